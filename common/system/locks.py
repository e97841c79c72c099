"""Locks between processes, by files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from common.system.errors import UserError


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Lock a file until the end of the block; the system unlocks it when a process dies.

    The block is told whether it has the lock. Without `wait` that is False where another has it. Raises
    UserError where the file system has no locks, or the file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise UserError(
            f"{path} cannot be locked ({error.strerror or error}): choose a folder on a disk that has locks"
        ) from None
    try:
        yield True
    finally:
        lock.release()
