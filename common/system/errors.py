"""User mistakes: one line on standard error and exit status 2, never a traceback."""

import functools
import sys
from collections.abc import Callable, Iterable, Sequence

from common.system.text import printable, shortened


class UserError(Exception):
    """Something the user can mend; the message says what is wrong and what to do about it.

    It may quote what a file or a server says: whatever would steer a terminal is taken out of it here.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def fault(error: BaseException) -> str:
    """Return what an exception of somebody else's code says, in a few words on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first = printable(next((line for line in str(error).splitlines() if line.strip()), ""))
    if not first or isinstance(error, LookupError | AttributeError | AssertionError):  # which say half
        first = f"{type(error).__name__}{': ' if first else ''}{first}"
    return shortened(first)


def shown(names: Iterable[object]) -> str:
    """Return the first three names, and how many more there are, as messages list them."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Turn main(argv, ...) into a command line: 0 or its own status, 2 for a UserError, 130 for Ctrl-C.

    What was being written when it stopped is not there.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None, *more: object) -> int:
        try:
            return main(argv, *more) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return run
