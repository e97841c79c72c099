"""The finished batches of a run, kept as they end, so that a run that was killed goes on behind them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.system.errors import UserError

FORMAT = 1


class Journal:
    """A file of JSON lines that only grows: a header, and a line for each finished batch.

    The header says what the batches depend on: batches of another header are not this run's. A line that a
    kill cut short does not count, nor does what follows it.
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
        if head and _value(head) != self.header:
            return False
        self.batches = {number: json.loads(line) for number, line in lines}
        self._whole = len(head) + sum(len(line) for _, line in lines)
        return True

    def forget(self) -> None:
        """Start over: the next opening drops what the file holds."""
        self.batches, self._whole = {}, 0

    @contextmanager
    def opened(self) -> Iterator["Journal"]:
        """Open the file for writing, behind the batches that are known."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._file.truncate(self._whole)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror or error})") from None
        with self._file:
            if not self._whole:
                self._write(self.header)
            yield self

    def append(self, number: int, batch: Mapping[str, Any]) -> None:
        """Add a finished batch. Once this returns, the end of this process does not lose it."""
        self.batches[number] = {"batch": number, **batch}
        self._write(self.batches[number])

    def _write(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror or error})") from None
        self._whole += len(line)


def read_lines(path: Path) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Return the header's line and the batches' with their numbers, up to a damaged one.

    Nothing where the file is not there, or its header was never finished.
    """
    head, *lines = path.read_bytes().splitlines(keepends=True) if path.exists() else [b""]
    found: list[tuple[int, bytes]] = []
    if not head.endswith(b"\n"):
        return b"", found
    for line in lines:
        batch = _value(line)
        if batch is None or "batch" not in batch:
            break
        found.append((batch["batch"], line))
    return head, found


def partial_of(path: Path) -> Path:
    """Return where the journal of an unfinished file lies."""
    return path.with_name(f"{path.name}.partial")


def _value(line: bytes) -> Any:
    """Return the object of a whole line, None of another one."""
    try:
        value = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
