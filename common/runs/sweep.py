"""Many cells into one folder: what is done stays done, what they share is done once, a kill loses the batches
in hand.

RESULTS/<id>/result.json, scores.csv and run.json hold a finished cell and appear together. Until then its
episodes lie in RESULTS/.work/<id>/<seed>.jsonl, a line each, appended as they end. RESULTS/failed/<id>.json
says why a cell failed. RESULTS/.work/locks keeps two sweeps from the same work.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from common.adapter import Outcome
from common.batches import batch_order
from common.photographs import Photograph
from common.runs.cell import (
    FinishedEpisode,
    Scores,
    episodes_of,
    forwards,
    score_table,
    shared_inputs,
    summary,
)
from common.runs.grid import Cell, Target
from common.system.device import default_episodes, environment
from common.system.errors import UserError
from common.system.output import write_csv, write_json
from common.y import YNetwork


@dataclass(frozen=True)
class TargetImages:
    """What a target is on this machine. record: what a result says of it."""

    photographs: Sequence[Photograph]
    resize: tuple[int, int] | None
    record: dict

    @cached_property
    def digest(self) -> str:
        """Of the images' names, in their order, and of the sizes of their files."""
        listed = ((photograph.key, os.path.getsize(photograph.path)) for photograph in self.photographs)
        return hashlib.sha256(json.dumps(list(listed)).encode()).hexdigest()


FILES = ("result.json", "run.json", "scores.csv")  # of a finished cell


class LoadedNetwork(NamedTuple):
    """A source on its device. wrap: the Y that a protocol asks for. record: what a result says of the
    weights."""

    wrap: Callable[..., YNetwork]
    record: dict


@dataclass(frozen=True)
class Job:
    """Cells that share a network, images and views, for one seed: the unit that a worker takes."""

    cells: tuple[Cell, ...]
    seed: int

    @property
    def name(self) -> str:
        first = self.cells[0]
        return f"{first.weights} on {first.target}, seed {self.seed}"

    @property
    def forwards(self) -> int:
        """Forward-equivalents per image."""
        return forwards([cell.setting for cell in self.cells])


def jobs(cells: Iterable[Cell]) -> list[Job]:
    """Distinct cells, grouped by what they share; jobs of one network follow each other."""
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
        return self.root / cell.id / "result.json"

    def failure(self, cell: Cell) -> Path:
        return self.root / "failed" / f"{cell.id}.json"

    def work(self, cell: Cell) -> Path:
        return self.root / ".work" / cell.id

    def lock(self, name: str) -> Path:
        return self.root / ".work/locks" / name

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
        return all((self.root / cell.id / name).is_file() for name in FILES)

    def failed(self, cell: Cell) -> bool:
        return self.failure(cell).exists()

    def fail(self, cell: Cell, reason: str) -> None:
        write_json(self.failure(cell), {"reason": reason, "cell": asdict(cell)})

    def reason(self, cell: Cell) -> str:
        """Why a cell is not done."""
        try:
            return json.loads(self.failure(cell).read_text(encoding="utf-8"))["reason"]
        except FileNotFoundError:
            return "not finished; the same command goes on"

    def clear_failure(self, cell: Cell) -> None:
        """A failed cell may be tried again."""
        with suppress(FileNotFoundError):
            self.failure(cell).unlink()

    def journal(self, cell: Cell, seed: int, inputs: dict) -> "Journal":
        return Journal(self.work(cell) / f"{seed}.jsonl", inputs, cell.setting.stateful)

    def finish(
        self, cell: Cell, images: TargetImages, network: LoadedNetwork, device: torch.device, inputs: dict
    ) -> bool:
        """Write the result of a cell, all of its files at once, if the journals of all its seeds are
        complete."""
        with locked(self.lock(cell.id), wait=True):
            if self.done(cell):
                return False
            scores = Scores.empty(cell.seeds, len(images.photographs), cell.method.niter)
            for row, seed in enumerate(cell.seeds):
                order = batch_order(images.photographs, seed, cell.batch_size)
                journal = self.journal(cell, seed, inputs)
                journal.read()
                if len(journal.lines) < len(order):
                    return False
                for number, line in sorted(journal.lines.items()):
                    scores.record(row, order[number], _outcome(line), line["enlarged"], line["seconds"])
            found = summary(scores, images.photographs)
            run = {name: found.pop(name) for name in ("seconds", "images_per_second")}
            config = {"id": cell.id, **asdict(cell), "data": images.record, "weights_file": network.record}
            folder = self.work(cell) / "result"
            shutil.rmtree(folder, ignore_errors=True)
            write_json(
                folder / "result.json", {"config": config, "environment": environment(device), **found}
            )
            write_json(
                folder / "run.json", {**run, "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            )
            write_csv(folder / "scores.csv", *score_table(scores, images.photographs))
            shutil.rmtree(self.root / cell.id, ignore_errors=True)  # one that somebody took a file out of
            os.rename(folder, self.root / cell.id)
        self.clear(cell)
        return True

    def clear(self, cell: Cell) -> None:
        """Remove what a finished cell has no more use for."""
        self.clear_failure(cell)
        shutil.rmtree(self.work(cell), ignore_errors=True)


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Whether nobody else has `path` locked, until the end of the block. The system unlocks it when a process
    dies."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


class Journal:
    """The finished episodes of one cell and seed, by number of the batch. A line that a kill cut short does
    not count.

    inputs: what the episodes depend on beside the cell; a journal of other inputs is started over. stateful:
    an episode depends on those before it, so that an unfinished journal is of no use.
    """

    def __init__(self, path: Path, inputs: dict, stateful: bool):
        self.path, self.inputs, self.stateful = path, inputs, stateful
        self.lines: dict[int, dict] = {}
        self.whole = 0  # bytes that are valid

    def read(self) -> None:
        """As far as its lines are whole."""
        content = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        self.lines, self.whole = {}, 0
        if not content or content[0] != _line(self.inputs):
            return
        self.whole = len(content[0])
        for text in content[1:]:
            try:
                line = json.loads(text)
            except ValueError:
                return
            if not text.endswith(b"\n"):
                return
            self.lines[line["batch"]] = line
            self.whole += len(text)

    @contextmanager
    def opened(self, batches: int) -> Iterator["Journal"]:
        """For writing, behind the last whole line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.read()
        if self.stateful and len(self.lines) < batches:
            self.lines, self.whole = {}, 0
        with self.path.open("ab") as self.file:
            self.file.truncate(self.whole)
            if not self.whole:
                self.file.write(_line(self.inputs))
                self.file.flush()
            yield self

    def append(self, done: FinishedEpisode) -> None:
        """Once it returns, the end of this process does not lose the episode."""
        outcome = done.outcome
        line = {
            "batch": done.number,
            **{name: getattr(outcome, name).tolist() for name in _ARRAYS},
            "group_left_out": outcome.group_left_out,
            "fell_back": outcome.fell_back,
            "enlarged": done.batch.enlarged,
            "seconds": done.seconds,
        }
        self.file.write(_line(line))
        self.file.flush()
        self.lines[done.number] = line


def _inputs(images: TargetImages, network: LoadedNetwork, device: torch.device) -> dict:
    """What the episodes of a cell depend on, wherever it lies."""
    data = {name: value for name, value in images.record.items() if name not in ("folder", "label_file")}
    versions = {name: value for name, value in environment(device).items() if name in ("commit", "torch")}
    return {
        "images": images.digest,
        **data,
        "weights": network.record["sha256"],
        **versions,
        "device": device.type,
    }


_ARRAYS = ("source", "adapted", "choice", "losses")


def _line(value: dict) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _outcome(line: dict) -> Outcome:
    arrays = (torch.tensor(line[name], dtype=torch.float64) for name in _ARRAYS)
    return Outcome(*arrays, line["group_left_out"], line["fell_back"])


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
    load: Callable[[str, str, torch.device, Path | None], LoadedNetwork]  # backbone, weights, device, folder
    weights_dir: Path | None  # the folder of the checkpoints, None for the usual one
    device: torch.device
    workers: int  # loader processes
    tell: Callable[[Event], object]  # is told what happens
    network: tuple[tuple[str, str], LoadedNetwork] | None = None  # the last one, kept for the next job
    failed: set[str] = field(default_factory=set)  # ids; those that failed elsewhere may well succeed here

    def run(self, todo: Iterable[Job]) -> None:
        """Run what is left of the jobs. What another process is at comes last, and is waited for."""
        elsewhere = []
        for job in todo:
            with ExitStack() as stack:
                mine = []
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
        except (
            Exception
        ) as error:  # of whatever kind: the other cells of the sweep have nothing to do with it
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
            journals = [
                stack.enter_context(self.store.journal(cell, seed, inputs).opened(batches)) for cell in cells
            ]
            found = episodes_of(
                network.wrap,
                images.photographs,
                settings,
                seed,
                batch_size=first.batch_size,
                at_once=1 if settings[0].stateful else default_episodes(self.device),
                workers=self.workers,
                resize=images.resize,
                finished=lambda setting, number: number in journals[setting].lines,
                tell=lambda what, size, work: self.tell(WorkDone(what, size * work)),
            )
            for done in found:
                journals[done.setting].append(done)
        for cell in cells:
            if self.store.finish(cell, images, network, self.device, inputs):
                self.tell(CellFinished(cell))

    def _network(self, backbone: str, weights: str) -> LoadedNetwork:
        if self.network is None or self.network[0] != (backbone, weights):
            self.network = None  # free the memory first
            self.network = (backbone, weights), self.load(backbone, weights, self.device, self.weights_dir)
        return self.network[1]
