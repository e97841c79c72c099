"""The finished batches of a run, kept as they end, so that a run that was killed goes on behind them."""

import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.system.errors import UserError
from common.system.files import need_file
from common.system.output import make_folders, sync_folder

FORMAT = 2
SYNC = 5.0  # seconds of batches that a power cut may cost, at most


class Journal:
    """A file of lines that only grows: a header, and a line for each finished batch.

    The header says what the batches depend on: batches of another header are not this run's. A line is its
    checksum and JSON. One that a kill cut short, or that was damaged, does not count, nor does what follows.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]):
        self.path = path
        self.header = {"format": FORMAT, **json.loads(json.dumps(header))}  # as it will be read again
        self.batches: dict[int, dict[str, Any]] = {}  # by number
        self._whole = 0  # bytes that are valid

    def read(self) -> bool:
        """Take over the batches that the file holds, up to a damaged line.

        Returns False if it is of another header, or its header is damaged.
        """
        self.batches, self._whole = {}, 0
        head, lines = read_lines(self.path)
        if head and value_of(head) != self.header:
            return False
        self.batches = {number: value_of(line) for number, line in lines}
        self._whole = len(head) + sum(len(line) for _, line in lines)
        return True

    def forget(self) -> None:
        """Start over: the next opening drops what the file holds."""
        self.batches, self._whole = {}, 0

    @contextmanager
    def opened(self) -> Iterator["Journal"]:
        """Open the file for writing, behind the batches that are known."""
        try:
            make_folders(self.path.parent)
            self._file = self.path.open("ab")
            self._file.truncate(self._whole)
            sync_folder(self.path.parent)
        except OSError as error:
            raise self._unwritten(error) from None
        with self._file:
            self._synced = time.monotonic()
            if not self._whole:
                self._write(self.header)
            try:
                yield self
            finally:
                self._sync()

    def append(self, number: int, batch: Mapping[str, Any]) -> None:
        """Add a finished batch. Once this returns, the end of this process does not lose it."""
        self.batches[number] = {"batch": number, **batch}
        self._write(self.batches[number])

    def _write(self, value: Mapping[str, Any]) -> None:
        line = line_of(value)
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise self._unwritten(error) from None
        self._whole += len(line)
        if time.monotonic() - self._synced > SYNC:
            self._sync()

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritten(error) from None
        self._synced = time.monotonic()

    def _unwritten(self, error: OSError) -> UserError:
        return UserError(f"{self.path} cannot be written ({error.strerror or error})")


def read_lines(path: Path) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Return the header's line and the batches' with their numbers, up to a damaged one.

    Nothing where the file is not there, or its header was never finished.
    """
    if not os.path.lexists(path):
        return b"", []
    need_file(path, "journal")
    head, *lines = path.read_bytes().split(b"\n")
    found: list[tuple[int, bytes]] = []
    if not lines:
        return b"", found
    for line in lines[:-1]:  # what follows the last line's end was never finished
        batch = value_of(line)
        if batch is None or "batch" not in batch:
            break
        found.append((batch["batch"], line + b"\n"))
    return head + b"\n", found


def partial_of(path: Path) -> Path:
    """Return where the journal of an unfinished file lies."""
    return path.with_name(f"{path.name}.partial")


def line_of(value: Mapping[str, Any]) -> bytes:
    """Return the line of an object; `value_of` is its inverse."""
    text = json.dumps(value).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def value_of(line: bytes) -> Any:
    """Return the object of a whole line, None of another one."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    return json.loads(text) if checksum == b"%08x" % zlib.crc32(text) else None
