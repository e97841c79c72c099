"""Many cells into one folder: what is done stays done, what they share is done once, and a kill loses one batch.

RESULTS/<id>/result.json, scores.csv and run.json hold a finished cell and appear together. Until then its episodes lie in
RESULTS/.work/<id>/<seed>.jsonl, a line each, appended as they end. RESULTS/failed/<id>.json says why a cell failed.
"""

import fcntl
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol as Interface

import torch

from common.adapter import Outcome
from common.batches import Photograph, batch_order
from common.cell import Done, Scores, Setting, before_episodes, episodes_of, forwards, score_table, summary
from common.device import default_episodes, default_workers, environment
from common.errors import UserError
from common.grid import Cell, Target
from common.output import write_csv, write_json
from common.y import YNetwork


class Images(NamedTuple):
    """What a target is on this machine. record: what a result says of it."""

    photographs: Sequence[Photograph]
    resize: tuple[int, int] | None
    record: dict


class Network(NamedTuple):
    """A source on its device. wrap: the Y that a protocol asks for. record: what a result says of the weights."""

    wrap: Callable[..., YNetwork]
    record: dict


class Inputs(Interface):
    """Where a sweep gets its networks and its images from. Both raise UserError where they cannot."""

    def network(self, backbone: str, weights: str, device: torch.device) -> Network: ...

    def images(self, target: Target, limit: int | None) -> Images: ...


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
        return forwards([Setting(cell.protocol, cell.method) for cell in self.cells])


def jobs(cells: Iterable[Cell]) -> list[Job]:
    """Distinct cells, grouped by what they share; jobs of one network follow each other."""
    shared: dict[tuple, dict[str, Cell]] = {}
    for cell in cells:
        key = cell.backbone, cell.weights, cell.target, cell.limit, cell.batch_size, before_episodes(cell.protocol), cell.seeds
        shared.setdefault(key, {})[cell.id] = cell
    return [Job(tuple(group.values()), seed) for key, group in shared.items() for seed in key[-1]]


class Store:
    """The folder of a sweep."""

    def __init__(self, root: Path):
        self.root, self.work = root, root / ".work"

    def result(self, cell: Cell) -> Path:
        return self.root / cell.id / "result.json"

    def failure(self, cell: Cell) -> Path:
        return self.root / "failed" / f"{cell.id}.json"

    def done(self, cell: Cell) -> bool:
        return self.result(cell).exists()

    def journal(self, cell: Cell, seed: int) -> "Journal":
        return Journal(self.work / cell.id / f"{seed}.jsonl", stateful=cell.protocol.leak_state)

    @contextmanager
    def held(self, name: str, wait: bool) -> Iterator[bool]:
        """Whether nobody else holds `name`, until the end of the block; the system lets go of it when a process dies."""
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / f"{name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def fail(self, cell: Cell, reason: str) -> None:
        write_json(self.failure(cell), {"reason": reason, "cell": asdict(cell)})

    def finish(self, cell: Cell, images: Images, network: Network, device: torch.device) -> None:
        """Write the result of a cell whose journals are complete; all of its files appear at once."""
        with self.held(cell.id, wait=True):
            if self.done(cell):
                return
            scores = self.scores(cell, images.photographs)
            folder = self.work / cell.id / "result"
            shutil.rmtree(folder, ignore_errors=True)
            found = summary(scores, images.photographs)
            run = {"seconds": found.pop("seconds"), "images_per_second": found.pop("images_per_second")}
            described = {"config": {"id": cell.id, **asdict(cell), "data": images.record, "weights_file": network.record}}
            write_json(folder / "result.json", {**described, "environment": environment(device), **found})
            write_json(folder / "run.json", {**run, "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
            write_csv(folder / "scores.csv", *score_table(scores, images.photographs))
            os.rename(folder, self.root / cell.id)
            with suppress(FileNotFoundError):
                self.failure(cell).unlink()
        shutil.rmtree(self.work / cell.id, ignore_errors=True)

    def scores(self, cell: Cell, photographs: Sequence[Photograph]) -> Scores:
        """What the journals of a cell hold, of all seeds."""
        place = {photograph.key: i for i, photograph in enumerate(photographs)}
        scores = Scores.empty(cell.seeds, len(photographs), cell.method.niter)
        for row, seed in enumerate(cell.seeds):
            for line in self.journal(cell, seed).lines.values():
                indices = [place[key] for key in line["images"]]
                values = (torch.tensor(line[name], dtype=torch.float64) for name in ("source", "adapted", "choice", "losses"))
                outcome = Outcome(*values, line["group_left_out"], line["fell_back"])
                scores.record(row, indices, outcome, line["enlarged"], line["seconds"])
        return scores


class Journal:
    """The finished episodes of one cell and seed, by number of the batch. A line that a kill cut short does not count.

    stateful: an episode depends on those before it, so that an unfinished journal is of no use.
    """

    def __init__(self, path: Path, stateful: bool):
        self.path, self.stateful = path, stateful
        self.lines: dict[int, dict] = {}
        whole = 0
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                self.lines.update({(read := json.loads(line))["batch"]: read})
                whole += len(line)
        self.whole = whole

    def complete(self, batches: int) -> bool:
        return len(self.lines) == batches

    @contextmanager
    def opened(self, batches: int) -> Iterator["Journal"]:
        """For writing, behind the last whole line."""
        if self.stateful and not self.complete(batches):
            self.lines, self.whole = {}, 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as self.file:
            self.file.truncate(self.whole)
            yield self

    def append(self, done: Done, keys: Sequence[str]) -> None:
        """Returns once the line would survive the end of this process."""
        outcome = done.outcome
        line = {
            "batch": done.number,
            "images": keys,
            **{name: getattr(outcome, name).tolist() for name in ("source", "adapted", "choice", "losses")},
            "group_left_out": outcome.group_left_out,
            "fell_back": outcome.fell_back,
            "enlarged": done.batch.enlarged,
            "seconds": done.seconds,
        }
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()
        self.lines[done.number] = line


class Report(Interface):
    """What a worker says while it works."""

    def progress(self, what: str, images: float) -> None: ...

    def finished(self, cell: Cell) -> None: ...

    def failed(self, cell: Cell, reason: str, details: str) -> None: ...


class Worker:
    """Runs jobs on one device; the network and the images of the last job are kept for the next."""

    def __init__(self, store: Store, inputs: Inputs, device: torch.device, report: Report, workers: int | None = None):
        self.store, self.inputs, self.device, self.report = store, inputs, device, report
        self.workers = default_workers(device) if workers is None else workers
        self.network: tuple[tuple, Network] | None = None
        self.images: tuple[tuple, Images] | None = None

    def run(self, job: Job, wait: bool) -> bool:
        """Run what is left of a job. Returns False, at once, where another process is at it and `wait` is False."""
        name = f"{job.cells[0].id}-{len(job.cells)}-{job.seed}"
        with self.store.held(name, wait) as held:
            if held:
                self._run([cell for cell in job.cells if not self.store.done(cell)], job)
            return held

    def _run(self, cells: Sequence[Cell], job: Job) -> None:
        if not cells:
            return
        try:
            self._episodes(cells, job.seed)
        except Exception as error:  # of whatever kind: the other cells of the sweep have nothing to do with it
            if len(cells) == 1:
                self._fail(cells[0], error)
            for cell in cells if len(cells) > 1 else ():  # alone, to learn whose fault it is; journals keep what was done
                self._run([cell], job)

    def _episodes(self, cells: Sequence[Cell], seed: int) -> None:
        first = cells[0]
        network = self._network(first.backbone, first.weights)
        images = self._images(first.target, first.limit)
        batches = len(batch_order(images.photographs, seed, first.batch_size))
        journals = [self.store.journal(cell, seed) for cell in cells]
        settings = [Setting(cell.protocol, cell.method) for cell in cells]
        per_image = forwards(settings)
        with ExitStack() as stack:
            for journal in journals:
                stack.enter_context(journal.opened(batches))
            found = episodes_of(
                network.wrap,
                images.photographs,
                settings,
                seed,
                batch_size=first.batch_size,
                at_once=1 if any(cell.protocol.leak_state for cell in cells) else default_episodes(self.device),
                workers=self.workers,
                resize=images.resize,
                finished=lambda setting, number: number in journals[setting].lines,
                tell=lambda what, size, work: self.report.progress(what, size * work / per_image),
            )
            for done in found:
                journals[done.setting].append(done, [images.photographs[i].key for i in done.batch.indices])
        for cell in cells:
            if all(self.store.journal(cell, other).complete(batches) for other in cell.seeds):
                self.store.finish(cell, images, network, self.device)
                self.report.finished(cell)

    def _network(self, backbone: str, weights: str) -> Network:
        if self.network is None or self.network[0] != (backbone, weights):
            self.network = None  # free the memory first
            self.network = (backbone, weights), self.inputs.network(backbone, weights, self.device)
        return self.network[1]

    def _images(self, target: Target, limit: int | None) -> Images:
        if self.images is None or self.images[0] != (target, limit):
            self.images = (target, limit), self.inputs.images(target, limit)
        return self.images[1]

    def _fail(self, cell: Cell, error: Exception) -> None:
        known = isinstance(error, UserError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        self.store.fail(cell, reason)
        self.report.failed(cell, reason, "" if known else "".join(traceback.format_exception(error)))
