"""Workers in other processes and on other machines, through Dask: those of this machine's devices, of a
cluster that is there, or of Slurm.

The launcher hands out the jobs itself, one to a worker at a time, and Dask carries them. So nothing lies in
wait at a worker that dies, and a death is charged to the one job that it may be the fault of.
"""

import asyncio
import pickle
import queue
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.runs.dask_place import Call, Place, serve
from common.runs.dask_worker import address_of, dask_modules, worker_environment
from common.runs.jobs import Job
from common.runs.slurm import Slurm, slurm_cluster
from common.runs.sweep import Answered, Gone, Joined
from common.runs.tender import Devices, Tender
from common.runs.worker import Answer, Checked, Expected
from common.system.errors import UserError, fault

SECONDS = 5.0  # of work that a worker is asked for at a time
POLL = 1.0  # seconds between two looks at who is there
FORGOTTEN = "Dask's scheduler lost what it was asked"


class Cluster:
    """A crew of Dask's workers."""

    def __init__(self, client: Any, place: Place, tender: Tender):
        self.client, self.place, self.tender = client, place, tender
        self.workers: dict[str, tuple[str, str, str]] = {}  # (Dask's id, address, Dask's name), by our name
        self.asked: dict[str, tuple[Any, str]] = {}  # future, and what was asked, by worker
        self.answers: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self.polled, self.number = 0.0, 0

    def wait(self, jobs: int) -> Iterator[Joined | Gone | Answered]:
        """Yield who came, who went and what was answered."""
        if (now := time.monotonic()) - self.polled > POLL:
            self.polled = now
            yield from self._poll(jobs)
        with suppress(queue.Empty):
            answer = self.answers.get(timeout=POLL)
            while True:
                yield from self._answered(*answer)
                answer = self.answers.get_nowait()

    def _poll(self, jobs: int) -> Iterator[Joined | Gone]:
        try:
            # Not what the client keeps itself: that may be without workers.
            there = self.client.sync(self.client.scheduler.identity)["workers"]
        except (OSError, RuntimeError, asyncio.TimeoutError):  # OSError: also of a comm that is closed
            if self.client.status in ("closed", "closing"):
                raise UserError("Dask's scheduler is gone: start one, and the same command goes on") from None
            return  # the client tries to find it again
        present = {(info["id"], address): str(info["name"]) for address, info in there.items()}
        for worker, (dask_id, address, _) in list(self.workers.items()):
            future, _ = self.asked.get(worker, (None, ""))
            if (dask_id, address) not in present:
                yield from self._gone(worker, "it ended, or its machine or the line to it did")
            elif future is not None and future.status in ("lost", "cancelled"):
                yield from self._gone(worker, FORGOTTEN)
        known = {(dask_id, address) for dask_id, address, _ in self.workers.values()}
        for (dask_id, address), name in present.items():
            if (dask_id, address) not in known:
                self.number += 1
                worker = f"worker {self.number} ({name})"
                self.workers[worker] = dask_id, address, name
                yield Joined(worker)
        self.tender.tend(jobs, present.values())

    def _gone(self, worker: str, reason: str) -> Iterator[Gone]:
        del self.workers[worker]
        if worker in self.asked:
            future, _ = self.asked.pop(worker)
            future.cancel(force=True)
        yield Gone(worker, reason)

    def _answered(self, worker: str, future: Any, value: Any) -> Iterator[Gone | Answered]:
        if worker not in self.asked or self.asked[worker][0] is not future:
            return  # of one that was given up
        _, what = self.asked.pop(worker)
        if isinstance(value, Checked | Answer):
            yield Answered(worker, value)
            return
        if isinstance(value, asyncio.CancelledError):
            reason = FORGOTTEN
        else:
            reason = str(value) if isinstance(value, UserError) else f"{type(value).__name__}: {fault(value)}"
        if what == "check":
            if isinstance(value, ImportError):
                reason += "; it must start in a checkout of this code, or with PYTHONPATH set to one"
            yield Answered(worker, Checked(reason, self.workers[worker][1], "", {}))
        else:
            yield from self._gone(worker, reason)

    def check(self, worker: str, expected: Expected) -> None:
        """Ask for a `Checked`."""
        self._ask(worker, "check", expected)

    def begin(self, worker: str, job: Job, done: Sequence[frozenset[int]]) -> None:
        """Ask for a job to be begun, and for some seconds of it."""
        self.tender.employ(self.workers[worker][2])
        self._ask(worker, "begin", job, done, SECONDS)

    def go_on(self, worker: str) -> None:
        """Ask for some more seconds of it."""
        self._ask(worker, "go_on", SECONDS)

    def _ask(self, worker: str, what: str, *more: Any) -> None:
        future = self.client.submit(
            pickle.loads,
            pickle.dumps(Call(serve, self.place, what, *more)),
            workers=[self.workers[worker][1]],
            key=f"{what}-{uuid.uuid4().hex}",
            pure=False,
            retries=0,
        )
        self.asked[worker] = future, what
        self.client.loop.add_callback(self._fetch, worker, future)

    async def _fetch(self, worker: str, future: Any) -> None:
        """Put an answer, or the error in its place, where `wait` finds it.

        That is not done by `wait` itself: it would wait for ever for an answer that died with its worker.
        """
        value: Any
        try:
            value = await self.client.gather(future, asynchronous=True)
        except (Exception, asyncio.CancelledError) as error:
            value = error
        self.answers.put((worker, future, value))

    def refuse(self, worker: str, reason: str) -> None:
        """Be told that a worker cannot take part, and why."""
        self.tender.refuse(self.workers[worker][2], reason)

    def release(self, worker: str) -> bool:
        """Let a worker go, for which there is no job any more; return whether it goes."""
        return self.tender.release(self.workers[worker][2])


@dataclass(frozen=True)
class Wanted:
    """Which workers a sweep shall have."""

    devices: Sequence[str]  # of this machine; or the one kind of device of jobs of Slurm
    scheduler: str | None = None  # address or file of a cluster that is there
    slurm: str | None = None  # options of sbatch
    most: int = 16  # jobs of Slurm at once


@contextmanager
def cluster(wanted: Wanted, place: Place, logs: Path, say: Callable[[str], object]) -> Iterator[Cluster]:
    """Start or find the workers, until the end of the block.

    logs: folder of what workers print.
    say: is told where Dask's dashboard is.

    Raises UserError where Dask is not installed, or the cluster is not there.
    """
    _, distributed = dask_modules()
    local, tender = None, Tender()
    try:
        if wanted.scheduler is not None:
            where: Any = address_of(wanted.scheduler)
        elif wanted.slurm is not None:
            (device,) = wanted.devices
            environment = worker_environment(None if device == "auto" else device)
            where = local = slurm_cluster(wanted.slurm, environment, logs)
            tender = Slurm(local, wanted.most)
        else:
            where = local = distributed.LocalCluster(
                n_workers=0, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
            )
            tender = Devices(local.scheduler_address, wanted.devices, place.root, place.weights, logs)
        try:
            client = distributed.Client(where, timeout="30s")
        except (OSError, ValueError) as error:
            raise UserError(f"no scheduler of Dask at {where} ({error}): start one first") from None
        with client:
            if "dashboard" in client.scheduler_info().get("services", {}):
                say(f"Dask's dashboard: {client.dashboard_link}")
            yield Cluster(client, place, tender)
    finally:
        tender.close()
        if local is not None:
            local.close()
