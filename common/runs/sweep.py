"""Run many cells into one folder: what they share is done once, and a kill loses the batches in hand alone.

RESULTS/<id>/result.json, scores.csv and run.json hold a finished cell and appear together. Until then its
episodes lie in RESULTS/.work/<id>/<seed>.jsonl, a line each, appended as they end. RESULTS/failed/<id>.json
says why a cell failed. RESULTS/.work/locks keeps two sweeps from the same work.
"""

import hashlib
import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.adapter import Outcome
from common.batches import batch_order
from common.photographs import Photograph
from common.runs.cell import FinishedEpisode, Plan, episodes_of, shared_inputs
from common.runs.grid import Cell, Target
from common.runs.journal import Journal
from common.runs.results import (
    FILES,
    CellResult,
    Failure,
    Scores,
    read_failure,
    summarise,
    write_failure,
    write_result,
)
from common.system.device import default_episodes, environment
from common.system.errors import UserError
from common.system.locks import locked
from common.y import YNetwork


@dataclass(frozen=True)
class TargetImages:
    """The images of a target on this machine."""

    photographs: Sequence[Photograph]
    record: dict[str, Any]  # what a result says of them

    @cached_property
    def digest(self) -> str:
        """Hash the images' names, in their order, and the sizes of their files."""
        listed = ((photograph.key, os.path.getsize(photograph.path)) for photograph in self.photographs)
        return hashlib.sha256(json.dumps(list(listed)).encode()).hexdigest()


class LoadedNetwork(NamedTuple):
    """A source on its device."""

    wrap: Callable[..., YNetwork]  # makes the Y that a protocol asks for
    record: dict[str, Any]  # what a result says of the weights: file, sha256, size


@dataclass(frozen=True)
class Job:
    """Cells that share a network, images and views, for one seed: the unit that a worker takes."""

    cells: tuple[Cell, ...]
    seed: int

    @property
    def name(self) -> str:
        """What people call it."""
        first = self.cells[0]
        return f"{first.weights} on {first.target}, seed {self.seed}"

    @property
    def forwards(self) -> int:
        """Forward-equivalents per image."""
        return Plan.of([cell.setting for cell in self.cells]).forwards


def jobs(cells: Iterable[Cell]) -> list[Job]:
    """Group the distinct cells by what they share; the jobs of one network follow each other."""
    shared: dict[tuple, list[Cell]] = {}
    for cell in {cell.id: cell for cell in cells}.values():
        key = (
            (cell.backbone, cell.weights),
            (cell.target, cell.limit, cell.batch_size, cell.seeds),
            shared_inputs(cell.protocol),
            cell.setting.stateful,  # would keep the others from running several episodes at once
        )
        shared.setdefault(key, []).append(cell)
    return [Job(tuple(group), seed) for group in shared.values() for seed in group[0].seeds]


class Store:
    """The folder of a sweep."""

    def __init__(self, root: Path):
        self.root = root

    def result(self, cell: Cell) -> Path:
        """Return where the result of a cell is, once it is there."""
        return self.root / cell.id / "result.json"

    def failure(self, cell: Cell) -> Path:
        """Return where it is told why a cell failed, if it did."""
        return self.root / "failed" / f"{cell.id}.json"

    def work(self, cell: Cell) -> Path:
        """Return the folder of an unfinished cell."""
        return self.root / ".work" / cell.id

    def lock(self, name: str) -> Path:
        """Return the file whose lock keeps two processes from the same work."""
        return self.root / ".work/locks" / name

    def journal(self, cell: Cell, seed: int, inputs: Mapping[str, Any]) -> Journal:
        """Return the journal of a cell's episodes for a seed, on these inputs; it is yet to be read."""
        return Journal(self.work(cell) / f"{seed}.jsonl", inputs)

    def prepare(self) -> None:
        """Make the folders. Raises UserError where that cannot be."""
        try:
            for folder in (self.root / name for name in (".work/locks", "failed", "logs")):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.root} cannot be written to ({error.strerror}): choose other --results"
            ) from None

    def done(self, cell: Cell) -> bool:
        """Return whether all files of a finished cell are there."""
        return all((self.root / cell.id / name).is_file() for name in FILES)

    def failed(self, cell: Cell) -> bool:
        """Return whether a cell was run and broke."""
        return self.failure(cell).exists()

    def fail(self, cell: Cell, reason: str) -> None:
        """Write why a cell failed."""
        write_failure(self.failure(cell), Failure(cell, reason))

    def reason(self, cell: Cell) -> str:
        """Return why a cell is not done."""
        if not self.failed(cell):
            return "not finished; the same command goes on"
        try:
            return read_failure(self.failure(cell)).reason
        except UserError as error:
            return str(error)

    def clear_failure(self, cell: Cell) -> None:
        """Forget that a cell failed: it may be tried again."""
        with suppress(FileNotFoundError):
            self.failure(cell).unlink()

    def add(self, result: CellResult, scores: Scores, photographs: Sequence[Photograph]) -> None:
        """Write the result of a cell, all of its files at once."""
        with locked(self.lock(result.cell.id), wait=True):
            if self.done(result.cell):
                raise UserError(f"{self.root / result.cell.id} is there by now: choose other --results")
            self._write(result, scores, photographs)
        self.clear(result.cell)

    def finish(
        self,
        cell: Cell,
        images: TargetImages,
        network: LoadedNetwork,
        device: torch.device,
        inputs: Mapping[str, Any],
    ) -> bool:
        """Write the result of a cell if the journals of all its seeds are complete; return whether it did."""
        with locked(self.lock(cell.id), wait=True):
            if self.done(cell):
                return False
            scores = Scores.empty(cell.seeds, len(images.photographs), cell.method.niter)
            for row, seed in enumerate(cell.seeds):
                order = batch_order(images.photographs, seed, cell.batch_size)
                journal = self.journal(cell, seed, inputs)
                journal.read()
                if len(journal.batches) < len(order):
                    return False
                for number, batch in sorted(journal.batches.items()):
                    scores.record(row, order[number], _outcome(batch), batch["enlarged"], batch["seconds"])
            result = CellResult(
                cell,
                summarise(scores, images.photographs),
                images.record,
                network.record,
                environment(device),
                scores.seconds,
            )
            self._write(result, scores, images.photographs)
        self.clear(cell)
        return True

    def _write(self, result: CellResult, scores: Scores, photographs: Sequence[Photograph]) -> None:
        """Write the files of a finished cell, whose lock is held."""
        folder = self.work(result.cell) / "result"
        shutil.rmtree(folder, ignore_errors=True)
        write_result(folder, result, scores, photographs)
        finished = self.root / result.cell.id
        shutil.rmtree(finished, ignore_errors=True)  # one that somebody took a file out of
        os.rename(folder, finished)

    def clear(self, cell: Cell) -> None:
        """Remove what a finished cell has no more use for."""
        self.clear_failure(cell)
        shutil.rmtree(self.work(cell), ignore_errors=True)


def _inputs(images: TargetImages, network: LoadedNetwork, device: torch.device) -> dict[str, Any]:
    """Return what the episodes of a cell depend on beside the cell, wherever that lies."""
    data = {name: value for name, value in images.record.items() if name not in ("folder", "label_file")}
    versions = {name: value for name, value in environment(device).items() if name in ("commit", "torch")}
    return {
        "images": images.digest,
        **data,
        "weights": network.record["sha256"],
        **versions,
        "device": device.type,
    }


def _batch(episode: FinishedEpisode) -> dict[str, Any]:
    """Return a finished episode as the journal keeps it; `_outcome` is its inverse."""
    outcome = episode.outcome
    return {
        "source": outcome.source.tolist(),
        "adapted": outcome.adapted.tolist(),
        "choice": outcome.choice.tolist(),
        "losses": outcome.losses.tolist(),
        "group_left_out": outcome.group_left_out,
        "fell_back": outcome.fell_back,
        "enlarged": episode.batch.enlarged,
        "seconds": episode.seconds,
    }


def _outcome(batch: Mapping[str, Any]) -> Outcome:
    source, adapted, choice, losses = (
        torch.tensor(batch[name], dtype=torch.float64) for name in ("source", "adapted", "choice", "losses")
    )
    return Outcome(source, adapted, choice, losses, batch["group_left_out"], batch["fell_back"])


@dataclass(frozen=True)
class JobStarted:
    """A worker has begun a job."""

    name: str
    backbone: str
    work: float  # forward-equivalents of single images that are to come


@dataclass(frozen=True)
class WorkDone:
    """A worker has run some episodes of its job."""

    what: str  # name of the method, or "source"
    work: float  # forward-equivalents of single images


@dataclass(frozen=True)
class CellFinished:
    """A worker has written the result of a cell."""

    cell: Cell


@dataclass(frozen=True)
class CellFailed:
    """A worker has given a cell up."""

    cell: Cell
    reason: str  # one line
    details: str  # traceback, "" where the reason says it all


Event = JobStarted | WorkDone | CellFinished | CellFailed


@dataclass
class Worker:
    """Runs jobs on one device."""

    store: Store
    targets: Mapping[tuple[Target, int | None], TargetImages]  # images of every (target, limit)
    sources: Mapping[str, Any]  # checkpoints by name, as `load` takes them
    load: Callable[[str, Any, torch.device], LoadedNetwork]  # of (backbone, checkpoint, device)
    device: torch.device
    workers: int  # loader processes
    tell: Callable[[Event], object]  # is told what happens
    network: tuple[tuple[str, str], LoadedNetwork] | None = None  # the last one, kept for the next job
    failed: set[str] = field(default_factory=set)  # ids; those that failed elsewhere may well succeed here

    def run(self, todo: Iterable[Job]) -> None:
        """Run what is left of the jobs. What another process is at comes last, and is waited for."""
        elsewhere: list[Job] = []
        for job in todo:
            with ExitStack() as stack:
                mine: list[Job] = []
                for cell in self._left(job.cells):
                    free = stack.enter_context(locked(self.store.lock(f"{cell.id}.{job.seed}"), wait=False))
                    (mine if free else elsewhere).append(Job((cell,), job.seed))
                self._run([one.cells[0] for one in mine], job.seed)
        for job in elsewhere:
            with locked(self.store.lock(f"{job.cells[0].id}.{job.seed}"), wait=True):
                self._run(list(job.cells), job.seed)

    def _left(self, cells: Iterable[Cell]) -> list[Cell]:
        return [cell for cell in cells if cell.id not in self.failed and not self.store.done(cell)]

    def _run(self, cells: Sequence[Cell], seed: int) -> None:
        cells = self._left(cells)
        if not cells:
            return
        try:
            self._episodes(cells, seed)
            return
        except Exception as error:  # of whatever kind: it has nothing to do with the sweep's other cells
            if len(cells) == 1:
                known = isinstance(error, UserError)
                reason = str(error) if known else f"{type(error).__name__}: {error}"
                self.failed.add(cells[0].id)
                self.store.fail(cells[0], reason)
                details = "" if known else "".join(traceback.format_exception(error))
                self.tell(CellFailed(cells[0], reason, details))
                return
        # Each alone, to learn whose fault it was; the journals keep what was done. Not where the error is
        # still at hand, whose traceback holds the tensors of all of them.
        for cell in cells:
            self._run([cell], seed)

    def _episodes(self, cells: Sequence[Cell], seed: int) -> None:
        first = cells[0]
        network = self._network(first.backbone, first.weights)
        images = self.targets[first.target, first.limit]
        inputs = _inputs(images, network, self.device)
        batches = len(batch_order(images.photographs, seed, first.batch_size))
        settings = [cell.setting for cell in cells]
        job = Job(tuple(cells), seed)
        self.tell(JobStarted(job.name, first.backbone, len(images.photographs) * job.forwards))
        with ExitStack() as stack:
            journals = []
            for cell in cells:
                journal = self.store.journal(cell, seed, inputs)
                journal.read()
                if cell.setting.stateful and len(journal.batches) < batches:
                    journal.forget()  # an episode depends on the ones before it, whose state is not kept
                journals.append(stack.enter_context(journal.opened()))
            episodes = episodes_of(
                network.wrap,
                images.photographs,
                settings,
                seed,
                batch_size=first.batch_size,
                at_once=1 if settings[0].stateful else default_episodes(self.device),
                workers=self.workers,
                finished=lambda setting, number: number in journals[setting].batches,
                tell=lambda what, size, work: self.tell(WorkDone(what, size * work)),
            )
            for episode in episodes:
                journals[episode.setting].append(episode.number, _batch(episode))
        for cell in cells:
            if self.store.finish(cell, images, network, self.device, inputs):
                self.tell(CellFinished(cell))

    def _network(self, backbone: str, weights: str) -> LoadedNetwork:
        if self.network is None or self.network[0] != (backbone, weights):
            self.network = None  # free the memory first
            self.network = (backbone, weights), self.load(backbone, self.sources[weights], self.device)
        return self.network[1]
