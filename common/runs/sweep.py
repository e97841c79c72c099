"""Run many cells into one folder: one process hands out jobs, keeps what comes back and writes results.

What cells share is done once, by one worker (`common.runs.worker`). Workers come and go, as the crew tells:
`Alone` below is one worker in this process; common/runs/cluster.py has those of other processes and machines.
A worker that dies costs the episodes that it had not answered with; its job goes on elsewhere.
"""

import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch

from common.batches import batch_order
from common.runs.grid import Cell, Target
from common.runs.jobs import Job, TargetImages
from common.runs.journal import Journal
from common.runs.progress import Progress
from common.runs.results import CellResult, summarise
from common.runs.store import Store
from common.runs.worker import Answer, Checked, Expected, Worker, versions
from common.system.code import code_digest
from common.system.device import environment
from common.system.precision import PRECISIONS

DEATHS = 5  # workers in a row that a job may cost without a further episode
CPU = torch.device("cpu")
STATUS_SECONDS = 2.0  # between two writings of how far it is


class Joined(NamedTuple):
    """A worker is there."""

    worker: str


class Gone(NamedTuple):
    """A worker is there no more, and what it was asked is not answered."""

    worker: str
    reason: str


class Answered(NamedTuple):
    """A worker has answered."""

    worker: str
    value: Checked | Answer


class Crew(Protocol):
    """Workers, each known by a name of its own, which is never given again."""

    def wait(self, jobs: int) -> Iterator[Joined | Gone | Answered]:
        """Yield what has happened, after a second at the latest.

        jobs: that there are, in hand or not. Raises UserError once no worker will come any more.
        """

    def check(self, worker: str, expected: Expected) -> None:
        """Ask a worker for a `Checked`; it is answered in `wait`, like what follows."""

    def begin(self, worker: str, job: Job, done: Sequence[frozenset[int]]) -> None:
        """Ask a worker to begin a job."""

    def go_on(self, worker: str) -> None:
        """Ask a worker to go on with its job."""

    def refuse(self, worker: str, reason: str) -> None:
        """Be told that a worker cannot take part, and why."""

    def release(self, worker: str) -> bool:
        """Let a worker go, for which there is no job any more; return whether it goes."""


class Alone:
    """A crew of one worker, in this process."""

    def __init__(self, worker: Worker):
        self.worker = worker
        self.name = socket.gethostname()
        self.asked: Callable[[], Checked | Answer] | None = None
        self.known = False

    def wait(self, jobs: int) -> Iterator[Joined | Gone | Answered]:
        """Do what was asked."""
        if not self.known:
            self.known = True
            yield Joined(self.name)
        elif self.asked is not None:
            asked, self.asked = self.asked, None
            yield Answered(self.name, asked())

    def check(self, worker: str, expected: Expected) -> None:
        """Take part: code, images and checkpoints are the same."""
        device = self.worker.device
        self.asked = partial(Checked, None, self.name, device.type, environment(device))

    def begin(self, worker: str, job: Job, done: Sequence[frozenset[int]]) -> None:
        """Begin a job, and run one episode."""
        self.asked = partial(self.worker.begin, job, done, 0.0)

    def go_on(self, worker: str) -> None:
        """Run one more episode."""
        self.asked = partial(self.worker.go_on, 0.0)

    def refuse(self, worker: str, reason: str) -> None:
        """Cannot be: it is the sweep's own."""

    def release(self, worker: str) -> bool:
        """Stay."""
        return False


@dataclass
class Task:
    """A job that is to do."""

    job: Job
    left: float  # what it still takes, in seconds of a CPU
    deaths: int = 0  # of workers, since its last episode


@dataclass
class Hand:
    """A worker that takes part."""

    host: str
    network: tuple[str, str] | None = None  # the one that it has loaded
    task: Task | None = None  # what it is at
    journals: list[Journal] = field(default_factory=list)  # of the cells of its job


@dataclass
class Sweep:
    """Runs jobs with a crew, into a folder that this process holds."""

    store: Store
    targets: Mapping[tuple[Target, int | None], TargetImages]  # images by target and limit
    sources: Mapping[str, Any]  # checkpoints by name, with `sha256` and `record`
    seconds: Callable[[Job], float]  # what a job takes on a CPU
    progress: Progress
    finished: Callable[[CellResult], object]  # is told each result that was written
    todo: deque[Task] = field(default_factory=deque)
    checking: set[str] = field(default_factory=set)  # workers that have not answered yet whether they fit
    hands: dict[str, Hand] = field(default_factory=dict)  # by worker
    failed: set[str] = field(default_factory=set)  # ids of cells that broke; not those of earlier sweeps
    device: str | None = None  # cpu, cuda or mps: of all workers; None: that of the first
    precision: str = PRECISIONS[0]  # that the workers compute in
    environment: Mapping[str, Any] = field(default_factory=dict)  # of the first worker
    told: float = 0.0  # when the status was written last

    def run(self, work: Sequence[Job], crew: Crew) -> None:
        """Run what is left of the jobs. Raises UserError as `Crew.wait` does, with all kept that was done."""
        self.todo = deque(self._task(job) for job in work)
        while open_tasks := [*self.todo, *(hand.task for hand in self.hands.values() if hand.task)]:
            self.progress.remains(sum(task.left for task in open_tasks))
            for event in crew.wait(len(open_tasks)):
                match event:
                    case Joined(worker):
                        self.checking.add(worker)
                        crew.check(worker, self._expected())
                    case Gone(worker, reason):
                        self._lose(worker, reason)
                    case Answered(worker, Checked() as checked):
                        self._admit(worker, checked, crew)
                    case Answered(worker, Answer() as answer):
                        self._keep(worker, answer, crew)
            for worker, hand in list(self.hands.items()):
                if hand.task is None:
                    self._hand_out(worker, hand, crew)
                if hand.task is None and crew.release(worker):
                    del self.hands[worker]
            self._tell()

    def _task(self, job: Job) -> Task:
        return Task(job, self.seconds(job))

    def _expected(self) -> Expected:
        return Expected(
            code_digest(),
            self.versions,
            self.device,
            {target: images.digest for target, images in self.targets.items()},
            {name: source.sha256 for name, source in self.sources.items()},
        )

    @property
    def versions(self) -> dict[str, str]:
        """The versions that every worker must have."""
        return versions(environment(CPU))

    def _admit(self, worker: str, checked: Checked, crew: Crew) -> None:
        self.checking.remove(worker)
        reason = checked.reason
        if reason is None and self.device not in (None, checked.device):
            reason = f"its device is {checked.device}, that of the others {self.device}"
        if reason is not None:
            self.progress.refused(worker, checked.host, reason)
            crew.refuse(worker, reason)
            return
        if not self.environment:
            own = {name: value for name, value in environment(CPU).items() if name == "commit"}
            self.device, self.environment = checked.device, {**checked.environment, **own}
        self.hands[worker] = Hand(checked.host)
        self.progress.joined(worker, checked.host)

    def _hand_out(self, worker: str, hand: Hand, crew: Crew) -> None:
        """Give a worker the next job, one of the network that it has loaded if there is one."""
        while self.todo:
            task = next((one for one in self.todo if one.job.network == hand.network), self.todo[0])
            self.todo.remove(task)
            cells = [cell for cell in task.job.cells if self._is_open(cell)]
            if not cells:
                continue
            task.job = task.job.only(cells)
            first, seed = cells[0], task.job.seed
            images = self.targets[first.target, first.limit]
            batches = len(batch_order(images.photographs, seed, first.batch_size))
            hand.journals = [self.store.journal(cell, seed, self._depends_on(cell)) for cell in cells]
            for cell, journal in zip(cells, hand.journals):
                journal.read()
                if cell.setting.stateful and len(journal.batches) < batches:
                    journal.forget()  # an episode depends on the ones before it, whose state is not kept
            if all(len(journal.batches) == batches for journal in hand.journals):
                self._finish(cells)
                continue
            there = sum(len(journal.batches) for journal in hand.journals) / batches / len(cells)
            task.left = (1 - there) * self.seconds(task.job)
            hand.task, hand.network = task, task.job.network
            self.progress.begun(worker, task.job, len(images.photographs) * task.job.forwards)
            crew.begin(worker, task.job, [frozenset(journal.batches) for journal in hand.journals])
            return

    def _is_open(self, cell: Cell) -> bool:
        return cell.id not in self.failed and not self.store.done(cell)

    def _keep(self, worker: str, answer: Answer, crew: Crew) -> None:
        """Keep what a worker has finished, and let it go on."""
        hand = self.hands[worker]
        task = hand.task
        assert task is not None
        for index, journal in enumerate(hand.journals):
            if own := [(number, batch) for cell, number, batch in answer.episodes if cell == index]:
                with journal.opened():
                    for number, batch in own:
                        journal.append(number, batch)
        if answer.episodes:
            task.deaths = 0
        taken = self.progress.worked(worker, task.job.network[0], answer)
        task.left = max(0.0, task.left - taken)
        if answer.fault is None and not answer.ended:
            crew.go_on(worker)
            return
        hand.task = None
        if answer.fault is None:
            self._finish(task.job.cells)
        else:
            self._divide(task, answer.fault, answer.details)

    def _lose(self, worker: str, reason: str) -> None:
        """Take back the job of a worker that is no more."""
        hand = self.hands.pop(worker, None)
        if hand is not None or worker in self.checking:
            self.progress.lost(worker, reason)
        self.checking.discard(worker)
        if hand is None or (task := hand.task) is None:
            return
        task.deaths += 1
        if task.deaths < DEATHS:
            self.todo.appendleft(task)
        else:
            self._divide(task, f"{DEATHS} workers in a row died at it; the last: {reason}", "")

    def _divide(self, task: Task, reason: str, details: str) -> None:
        """Try the cells of a broken job one by one, to learn whose fault it was."""
        cells = [cell for cell in task.job.cells if self._is_open(cell)]
        if len(cells) > 1:
            self.todo.extendleft(self._task(task.job.only([cell])) for cell in reversed(cells))
        for cell in cells if len(cells) == 1 else ():
            self.failed.add(cell.id)
            self.store.fail(cell, reason)
            self.progress.failed(cell, reason, details)

    def _finish(self, cells: Sequence[Cell]) -> None:
        """Write the results of the cells whose journals are complete for all seeds."""
        for cell in cells:
            images, source = self.targets[cell.target, cell.limit], self.sources[cell.weights]
            found = self.store.scores(cell, images.photographs, self._depends_on(cell))
            if found is None:
                continue
            scores, devices = found
            used = {**self.environment, "device": " and ".join(devices), "precision": self.precision}
            summary = summarise(scores, images.photographs)
            result = CellResult(cell, summary, images.record, source.record, used, scores.seconds)
            result = self.store.add(result, scores, images.photographs)
            self.progress.finished(cell)
            self.finished(result)

    def _depends_on(self, cell: Cell) -> dict[str, Any]:
        """Return what the episodes of a cell depend on beside the cell, wherever that lies."""
        images = self.targets[cell.target, cell.limit]
        data = {name: value for name, value in images.record.items() if name not in ("folder", "label_file")}
        return {
            "images": images.digest,
            **data,
            "weights": self.sources[cell.weights].sha256,
            "code": code_digest(),
            **self.versions,
            "device": self.device,
            "precision": self.precision,
        }

    def _tell(self) -> None:
        if (now := time.monotonic()) - self.told > STATUS_SECONDS:
            self.told = now
            self.store.write_status(self.progress.status())
