"""User mistakes: one line on standard error and exit status 2, never a traceback."""

import contextlib
import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from common.system.text import PrintableStream, printable, shortened


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
    """Return the first three names, shortened, and how many more there are, as messages list them."""
    listed = [shortened(str(name), 200) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


MENDED = {  # what helps against errors of the system
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EACCES: "choose another place, or mend its permissions",
    errno.EPERM: "choose another place, or mend its permissions",
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EEXIST: "choose another place, or move it away",
    errno.ENOTDIR: "choose another place, or move it away",
    errno.EMFILE: "allow more open files by ulimit -n",
}
NO_MEMORY = (
    "this takes more memory than there is: fewer --workers, or a smaller --batch-size or --size, take less"
)


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Turn main(argv, ...) into a command line: 0 or its own status, 2 for what its user or system can mend.

    Ctrl-C is 130, and 141 an output that nobody reads any more. What was being written when it stopped is not
    there.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None, *more: object) -> int:
        if signal.getsignal(signal.SIGINT) is _end:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream in (sys.stdout, sys.stderr):  # a file's name need not be of the terminal's characters
            if callable(reconfigure := getattr(stream, "reconfigure", None)):
                reconfigure(errors="backslashreplace")
        try:
            with contextlib.redirect_stdout(PrintableStream(sys.stdout)):
                status = main(argv, *more) or 0
            sys.stdout.flush()
            return status
        except UserError as error:
            return _ended(f"error: {error}", 2)
        except KeyboardInterrupt:
            return _ended("interrupted", 130)
        except BrokenPipeError:
            return _ended("", 141)
        except MemoryError:
            return _ended(f"error: {NO_MEMORY}", 2)
        except OSError as error:
            return _ended(f"error: {_of_system(error)}", 2)
        except RuntimeError as error:
            if reason := _of_torch(error):
                return _ended(f"error: {reason}", 2)
            raise

    return run


def interruptible() -> None:
    """Have Ctrl-C end a command by one line while its modules are imported; `command` takes over from there.

    For the package of a command that is run by `python -m`, which imports it first.
    """
    if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(*_: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)  # an exception might be caught, or told with a traceback, by whatever is imported


def _ended(message: str, status: int) -> int:
    """Say why a command ended; return its status."""
    with contextlib.suppress(OSError):
        if message:
            print(message, file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # a full disk, or a pipe that nobody reads: Python would complain again at its end
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _of_system(error: OSError) -> str:
    """Return what the system says, and what helps."""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    hint = f": {MENDED[error.errno]}" if error.errno in MENDED else ""
    return printable(f"{where}{fault(error)}{hint}")


def _of_torch(error: RuntimeError) -> str:
    """Return why the system ended what PyTorch did; "" where an error is one of the program."""
    text = str(error)
    if (
        type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
        or "out of memory" in text
    ):
        return NO_MEMORY
    if text.startswith("DataLoader worker") and ("killed" in text or "exited unexpectedly" in text):
        return "the system ended a loader process, perhaps for want of memory: fewer --workers take less"
    return ""
