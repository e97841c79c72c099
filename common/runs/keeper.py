"""A worker on this machine, started again whenever it ends."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from subprocess import TimeoutExpired

from common.runs.dask_worker import address_of, is_address, start_worker, worker_command
from common.system.errors import UserError

QUICK = 30.0  # a worker that ends sooner is not started again at once
WRITING = 1.0  # seconds after which a file that was half written is whole
GRACE = 60.0  # seconds after the end of its lifetime in which a worker may end


def keep(
    scheduler: str,
    environment: Mapping[str, str],
    name: Callable[[], str],
    patience: float,
    lifetime: float | None,
    options: Sequence[str],
    say: Callable[[str], object],
) -> None:
    """Run a worker, and another one whenever it ends, until there is no scheduler any more.

    A worker ends when the line to the scheduler is cut, and when something kills it.

    scheduler: its address, or a file that it writes.
    environment: of the worker, beside that of this process.
    name: gives a name that no worker had, since the scheduler may not know yet that one ended.
    patience: seconds for which the scheduler may be away.
    lifetime: seconds after which the worker ends for good; None: never.
    options: of `dask worker`.
    say: is told what happens.

    Raises UserError where the scheduler was never there, where its file is none, and where Dask does not take
    the options.
    """
    if not is_address(scheduler) and os.path.lexists(scheduler):
        try:
            address_of(scheduler)  # with any other file Dask would start again and again
        except UserError:
            time.sleep(WRITING)
            address_of(scheduler)
    deadline = None if lifetime is None else time.monotonic() + lifetime
    found, pause = False, 1.0
    while deadline is None or deadline - time.monotonic() >= 1:
        left = None if deadline is None else deadline - time.monotonic()
        limit = [] if left is None else ["--lifetime", f"{left:.0f}s"]
        command = worker_command(scheduler, name(), *limit, *options, patience=patience)
        began = time.monotonic()
        process = start_worker(command, environment)
        try:
            status = process.wait(None if left is None else left + GRACE)
        except TimeoutExpired:
            continue
        finally:
            process.kill()  # it holds nothing that is not written
            process.wait()
        took = time.monotonic() - began
        if status == 1 and took >= patience:  # so Dask ends where it has not found the scheduler
            if not found:
                raise UserError(
                    f"no scheduler of Dask at {scheduler}: start it first, or give more --patience"
                )
            say(f"the scheduler at {scheduler} has been away for {patience:g} seconds")
            return
        if status == 2:  # so it ends where it does not understand its options
            raise UserError("`dask worker` does not take what it was given, see above: mend --dask")
        found = found or status == 0
        pause = min(2 * pause, QUICK) if status != 0 and took < QUICK else 1.0
        say(f"the worker ended with status {status}; another one is started")
        time.sleep(pause)
