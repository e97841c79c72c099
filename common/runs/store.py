"""The folder of a sweep, which one process at a time writes to.

common/runs/folders.py has its layout. Until a cell is finished its episodes lie in .work/<id>/<seed>.jsonl, a
line each; the files of a finished cell appear together. .work/holder.json says who has the folder, and
.work/status.json how far it is.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.adapter import Outcome
from common.batches import batch_order
from common.photographs import Photograph
from common.runs.folders import (
    FAILED,
    LOGS,
    WORK,
    check_layout,
    failure_file,
    find_cell,
    is_finished,
    work_folder,
)
from common.runs.grid import Cell
from common.runs.journal import Journal
from common.runs.results import (
    FILES,
    CellResult,
    Failure,
    Scores,
    read_failure,
    write_failure,
    write_result,
)
from common.system.errors import UserError
from common.system.files import read_json
from common.system.locks import locked
from common.system.output import make_folders, place_folder, write_json


class Store:
    """The folder of a sweep."""

    def __init__(self, root: Path):
        self.root = root

    @contextmanager
    def held(self, wait: bool) -> Iterator[None]:
        """Make the folder and have it alone until the end of the block.

        wait: for a process that has it, else UserError says who that is.
        """
        check_layout(self.root)
        try:
            for name in (WORK, FAILED, LOGS):
                make_folders(self.root / name)
        except OSError as error:
            raise UserError(
                f"{self.root} cannot be written to ({error.strerror}): choose other --results"
            ) from None
        lock = self.root / WORK / "lock"
        with locked(lock, wait=False) as free:
            if free:
                yield from self._as_holder()
                return
        if not wait:
            raise UserError(f"{self.root} is being worked on by {self.holder()}: --wait waits for its end")
        print(f"waiting for {self.holder()}", flush=True)
        with locked(lock, wait=True):
            yield from self._as_holder()

    def _as_holder(self) -> Iterator[None]:
        path = self.root / WORK / "holder.json"
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        write_json(path, {"host": socket.gethostname(), "process": os.getpid(), "since": since})
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()

    def is_held(self) -> bool:
        """Return whether a process has the folder."""
        lock = self.root / WORK / "lock"
        if not lock.exists():
            return False
        with locked(lock, wait=False) as free:
            return not free

    def holder(self) -> str:
        """Return who has the folder."""
        try:
            found = read_json(self.root / WORK / "holder.json", "file")
            return f"process {found['process']} on {found['host']} since {found['since']}"
        except (UserError, OSError, LookupError, TypeError):
            return "another process"

    def result(self, cell: Cell) -> Path:
        """Return where the result of a cell is, once it is there."""
        return find_cell(self.root, cell) / "result.json"

    def failure(self, cell: Cell) -> Path:
        """Return where it is told why a cell failed, if it did."""
        return failure_file(self.root, cell.id)

    def work(self, cell: Cell) -> Path:
        """Return the folder of an unfinished cell."""
        return work_folder(self.root, cell.id)

    def journal(self, cell: Cell, seed: int, inputs: Mapping[str, Any]) -> Journal:
        """Return the journal of a cell's episodes for a seed, on these inputs; it is yet to be read."""
        return Journal(self.work(cell) / f"{seed}.jsonl", inputs)

    def done(self, cell: Cell) -> bool:
        """Return whether all files of a finished cell are there."""
        return is_finished(find_cell(self.root, cell))

    def failed(self, cell: Cell) -> bool:
        """Return whether a cell was run and broke."""
        return self.failure(cell).exists()

    def fail(self, cell: Cell, reason: str) -> None:
        """Write why a cell failed."""
        write_failure(self.failure(cell), Failure(cell, reason))

    def reason(self, cell: Cell) -> str:
        """Return why a cell failed."""
        try:
            return read_failure(self.failure(cell)).reason
        except UserError as error:
            return str(error)

    def clear_failure(self, cell: Cell) -> None:
        """Forget that a cell failed: it may be tried again."""
        with suppress(FileNotFoundError):
            self.failure(cell).unlink()

    def scores(
        self, cell: Cell, photographs: Sequence[Photograph], inputs: Mapping[str, Any]
    ) -> tuple[Scores, list[str]] | None:
        """Return the scores of a cell and the devices that made them, once the journals are whole."""
        scores = Scores.empty(cell.seeds, len(photographs), cell.method.niter)
        devices: set[str] = set()
        for row, seed in enumerate(cell.seeds):
            order = batch_order(photographs, seed, cell.batch_size)
            journal = self.journal(cell, seed, inputs)
            journal.read()
            if len(journal.batches) < len(order):
                return None
            for number, batch in sorted(journal.batches.items()):
                scores.record(row, order[number], _outcome(batch), batch["enlarged"], batch["seconds"])
                devices.add(batch["device"])
        return scores, sorted(devices)

    def add(self, result: CellResult, scores: Scores, photographs: Sequence[Photograph]) -> CellResult:
        """Write the files of a finished cell, all at once, and drop its journals; return it with folder."""
        cell = result.cell
        folder = self._new_folder(cell)
        write_result(folder, result, scores, photographs)
        return replace(result, folder=self._settle(cell, folder))

    def copy(self, cell: Cell, finished: Path) -> None:
        """Take over the files of a finished cell from a folder elsewhere."""
        folder = self._new_folder(cell)
        try:
            folder.mkdir(parents=True)
            for name in FILES:
                shutil.copyfile(finished / name, folder / name)
        except OSError as error:
            raise UserError(f"{finished} cannot be copied to {folder} ({error.strerror or error})") from None
        self._settle(cell, folder)

    def _new_folder(self, cell: Cell) -> Path:
        folder = self.work(cell) / "result"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def _settle(self, cell: Cell, folder: Path) -> Path:
        """Give the folder of a finished cell its name, drop what it was made from, and return it."""
        finished = find_cell(self.root, cell)
        shutil.rmtree(finished, ignore_errors=True)  # one that somebody took a file out of
        place_folder(folder, finished)
        self.clear(cell)
        return finished

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Write how far the sweep is."""
        write_json(self.root / WORK / "status.json", status)

    def read_status(self) -> dict[str, Any] | None:
        """Return how far the sweep was when it wrote that last; None where it is not known."""
        try:
            found = read_json(self.root / WORK / "status.json", "file")
        except (UserError, OSError):
            return None
        return found if isinstance(found, dict) else None

    def clear(self, cell: Cell) -> None:
        """Remove what a finished cell has no more use for."""
        self.clear_failure(cell)
        shutil.rmtree(self.work(cell), ignore_errors=True)


def _outcome(batch: Mapping[str, Any]) -> Outcome:
    """Return what an episode gave, as `common.runs.worker` wrote it."""
    source, adapted, choice, losses = (
        torch.tensor(batch[name], dtype=torch.float64) for name in ("source", "adapted", "choice", "losses")
    )
    return Outcome(source, adapted, choice, losses, batch["group_left_out"], batch["fell_back"])
