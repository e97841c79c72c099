"""Locks between processes, by files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Lock a file until the end of the block; the system unlocks it when a process dies.

    The block is told whether it has the lock. Without `wait` that is False where another has it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
