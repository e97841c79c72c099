"""Workers in other processes and on other machines, through Dask: those of this machine's devices, of a
cluster that is there, or of Slurm.

The launcher hands out the jobs itself, one to a worker at a time, and Dask carries them. So nothing lies in
wait at a worker that dies, and a death is charged to the one job that it may be the fault of.
"""

import asyncio
import json
import logging
import multiprocessing
import os
import queue
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.runs.jobs import Inputs, Job
from common.runs.sweep import Answered, Gone, Joined
from common.runs.worker import Answer, Checked, Expected, Worker
from common.system.code import ROOT
from common.system.device import choose, default_workers
from common.system.errors import UserError

SECONDS = 5.0  # of work that a worker is asked for at a time
POLL = 1.0  # seconds between two looks at who is there
QUICK, TRIES = 30.0, 3  # a process that ends so many times in a row within so many seconds is given up
PATIENCE = "300"  # seconds for which a worker looks for its scheduler
SETTINGS: dict[str, Any] = {  # of Dask, wherever it starts
    "distributed.worker.daemon": False,  # loader processes are allowed inside a worker
    "distributed.worker.memory.target": False,  # a share of a guessed limit, at which it would spill,
    "distributed.worker.memory.spill": False,  # pause or kill
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 1_000_000,  # the launcher counts deaths
    "distributed.scheduler.work-stealing": False,
}


def dask_modules() -> tuple[Any, Any]:
    """Import dask and distributed with SETTINGS. Raises UserError where they are not installed."""
    try:
        import dask
        import distributed
    except ImportError:
        raise UserError(
            "several devices or machines need Dask: python -m pip install 'distributed>=2024.8' "
            "'dask-jobqueue>=0.9', or give a single --device"
        ) from None
    dask.config.set(SETTINGS)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # the sweep says itself who is lost
    return dask, distributed


def worker_command(address: str, name: str, *more: str) -> list[str]:
    """Return the command that starts a worker, one thread without a limit of memory.

    address: of the scheduler, or a file that it has written.
    more: options of `dask worker`.
    """
    where = ["--scheduler-file", address] if Path(address).is_file() else [address]
    options = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--death-timeout", PATIENCE]
    program = [sys.executable, "-m", "distributed.cli.dask_worker"]
    return [*program, *where, "--name", name, *options, *more]


def worker_environment(
    device: str | None = None, root: Path | None = None, weights: Path | None = None
) -> dict[str, str]:
    """Return what the environment of a worker has beside that of this process.

    device: "cuda:1" shows it that GPU alone.
    """
    found = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    for name, value in SETTINGS.items():
        found["DASK_" + name.upper().replace("-", "_").replace(".", "__")] = str(value)
    if device is not None:
        kind, _, index = device.partition(":")
        found["IQA_DEVICE"] = kind
        if kind == "cuda":
            seen = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
            number = int(index or 0)
            found["CUDA_VISIBLE_DEVICES"] = seen[number] if number < len(seen) else str(number)
    if root is not None:
        found["IQA_DATA_ROOT"] = str(root.resolve())
    if weights is not None:
        found["IQA_WEIGHTS_DIR"] = str(weights.resolve())
    return found


@dataclass(frozen=True)
class Place:
    """What a worker is made of; what the environment of its own machine says comes first."""

    sweep: str  # a name that no other sweep has
    inputs: Inputs
    root: Path | None  # the launcher's --data-root, where IQA_DATA_ROOT says nothing
    weights: Path | None  # its --weights-dir, where IQA_WEIGHTS_DIR says nothing
    allow_missing: bool
    loaders: int | None  # loader processes, None: by device

    def worker(self) -> Worker:
        """Make the worker of this process, on the device that IQA_DEVICE names, else on the best one."""
        device = choose(os.environ.get("IQA_DEVICE") or "auto")
        weights = os.environ.get("IQA_WEIGHTS_DIR")
        loaders = default_workers(device) if self.loaders is None else self.loaders
        if multiprocessing.current_process().daemon:  # of Dask's own settings: it may have no children
            loaders = 0
        return Worker(
            self.inputs,
            None if os.environ.get("IQA_DATA_ROOT") else self.root,
            self.allow_missing,
            Path(weights) if weights else self.weights,
            device,
            loaders,
        )


def serve(place: Place, what: str, *more: Any) -> Any:
    """Call a method of this process's worker; runs in a worker of Dask."""
    from distributed import get_worker

    host: Any = get_worker()
    if getattr(host, "sweep", None) != place.sweep:
        host.sweep_worker = None  # free the memory of another sweep's first
        host.sweep, host.sweep_worker = place.sweep, place.worker()
    return getattr(host.sweep_worker, what)(*more)


class Tender:
    """Sees to it that there are workers; this one leaves that to others."""

    def tend(self, jobs: int, present: Mapping[str, str]) -> None:
        """Start what is wanted for so many jobs.

        present: Dask's names of the workers that are there, by address.

        Raises UserError once no worker can be had.
        """

    def release(self, name: str) -> bool:
        """Let a worker go, for which there is no job any more; return whether it goes."""
        return False

    def close(self) -> None:
        """End what was started."""


@dataclass
class Devices(Tender):
    """A process for each of several devices of this machine."""

    address: str
    devices: Sequence[str]  # cuda:0, cpu, ...
    root: Path | None
    weights: Path | None
    logs: Path  # folder
    processes: dict[int, subprocess.Popen] = field(default_factory=dict)  # by index of the device
    started: dict[int, float] = field(default_factory=dict)
    quick: dict[int, int] = field(default_factory=dict)  # how many ended quickly, in a row

    def tend(self, jobs: int, present: Mapping[str, str]) -> None:
        """Start the processes, and those again that have ended."""
        for index, device in enumerate(self.devices):
            process = self.processes.get(index)
            if process is not None and process.poll() is None:
                continue
            if process is not None:
                fast = time.monotonic() - self.started[index] < QUICK
                self.quick[index] = self.quick.get(index, 0) + 1 if fast else 0
            if self.quick.get(index, 0) < TRIES:
                self._start(index, device)
        if all(self.quick.get(index, 0) >= TRIES for index in range(len(self.devices))):
            raise UserError(f"no worker can be started: {self._log(0)} says why")

    def _start(self, index: int, device: str) -> None:
        environment = {**os.environ, **worker_environment(device, self.root, self.weights)}
        with self._log(index).open("ab") as log:
            self.processes[index] = subprocess.Popen(
                worker_command(self.address, f"{device}.{index}", "--no-nanny"),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the launcher, which ends them
            )
        self.started[index] = time.monotonic()

    def _log(self, index: int) -> Path:
        return self.logs / f"worker-{index}.log"

    def close(self) -> None:
        """End the processes."""
        for process in self.processes.values():
            process.kill()  # they hold nothing that is not written
        for process in self.processes.values():
            process.wait()


@dataclass
class Slurm(Tender):
    """Jobs of Slurm, as many as there is work for."""

    cluster: Any  # a dask_jobqueue.SLURMCluster
    most: int
    looked: float = 0.0
    vanished: int = 0  # jobs in a row that ended before they were there

    def tend(self, jobs: int, present: Mapping[str, str]) -> None:
        """Submit as many jobs as there is work for, and others for those that ended."""
        if (now := time.monotonic()) - self.looked < 10 * POLL:
            return
        self.looked = now
        names = set(present.values())
        if names:
            self.vanished = 0
        self._forget_ended(names)
        if self.vanished >= TRIES:
            raise UserError(
                f"{self.vanished} jobs of Slurm ended before they reached {self.cluster.scheduler_address}: "
                "what they printed is in logs/ of the results"
            )
        wanted = min(self.most, jobs)
        if wanted >= len(self.cluster.worker_spec):
            self.cluster.scale(wanted)

    def _forget_ended(self, present: set[str]) -> None:
        """Have the jobs submitted anew that Slurm does not know any more."""
        jobs = self.cluster.workers.items()
        ids = {job.job_id: name for name, job in jobs if job.job_id and name not in present}
        if not ids:
            return
        asked = ["squeue", "--noheader", "--format=%i", f"--jobs={','.join(ids)}"]
        listed = subprocess.run(asked, capture_output=True, text=True, timeout=60)
        # With a single job that is no more, squeue fails; with several it lists the others.
        known = listed.stdout.split() if listed.returncode == 0 or "Invalid job id" in listed.stderr else ids
        for job_id, name in ids.items():
            if job_id not in known and self.cluster.workers.pop(name, None):
                self.vanished += 1

    def release(self, name: str) -> bool:
        """End the job of a worker."""
        if name not in self.cluster.worker_spec:
            return False
        self.cluster.sync(self.cluster.scale_down, [name])
        return True

    def close(self) -> None:
        """Cancel the jobs."""
        self.cluster.close()


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
            there = self.client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, RuntimeError, asyncio.TimeoutError):  # OSError: also of a comm that is closed
            if self.client.status in ("closed", "closing"):
                raise UserError("Dask's scheduler is gone: start one, and the same command goes on") from None
            return  # the client tries to find it again
        present = {(info["id"], address): str(info["name"]) for address, info in there.items()}
        for worker, (dask_id, address, _) in list(self.workers.items()):
            future, _ = self.asked.get(worker, (None, ""))
            if (dask_id, address) not in present:
                yield from self._gone(worker, "its process, its machine or the line to it died")
            elif future is not None and future.status in ("lost", "cancelled"):
                yield from self._gone(worker, "Dask lost what it was asked")
        known = {(dask_id, address) for dask_id, address, _ in self.workers.values()}
        for (dask_id, address), name in present.items():
            if (dask_id, address) not in known:
                self.number += 1
                worker = f"worker {self.number} ({name})"
                self.workers[worker] = dask_id, address, name
                yield Joined(worker)
        self.tender.tend(jobs, {address: name for (_, address), name in present.items()})

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
        reason = str(value) if isinstance(value, UserError) else f"{type(value).__name__}: {value}"
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
        self._ask(worker, "begin", job, done, SECONDS)

    def go_on(self, worker: str) -> None:
        """Ask for some more seconds of it."""
        self._ask(worker, "go_on", SECONDS)

    def _ask(self, worker: str, what: str, *more: Any) -> None:
        future = self.client.submit(
            serve,
            self.place,
            what,
            *more,
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

    def release(self, worker: str) -> bool:
        """Let a worker go, for which there is no job any more; return whether it goes."""
        return self.tender.release(self.workers[worker][2])


@dataclass(frozen=True)
class Wanted:
    """Which workers a sweep shall have."""

    devices: Sequence[str] = ()  # of this machine
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
    dask, distributed = dask_modules()
    local, tender = None, Tender()
    try:
        if wanted.scheduler is not None:
            where: Any = _address(wanted.scheduler)
        elif wanted.slurm is not None:
            where = local = _slurm(wanted.slurm, logs)
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


def _address(text: str) -> str:
    """Return the address of a scheduler, which a file may hold."""
    if "://" in text or not Path(text).exists():
        if not Path(text).suffix or "://" in text:
            return text
        raise UserError(f"{text}: no such file; `dask scheduler --scheduler-file {text}` writes it")
    try:
        return str(json.loads(Path(text).read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{text}: not written by `dask scheduler --scheduler-file` ({error})") from None


def _slurm(options: str, logs: Path) -> Any:
    """Return a cluster whose workers are jobs of Slurm; none is submitted yet."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise UserError("--slurm needs dask-jobqueue: python -m pip install dask-jobqueue") from None
    if shutil.which("sbatch") is None:
        raise UserError("--slurm: no sbatch on this machine; start it on a login node of the cluster")
    directives: list[str] = []
    for word in shlex.split(options):
        if word.startswith("-") or not directives:
            directives.append(word)
        else:
            directives[-1] += f" {word}"
    return SLURMCluster(
        cores=1,
        processes=1,
        memory="1GiB",  # neither asked of Slurm nor a limit: see below
        nanny=True,
        python=sys.executable,
        job_name="tta-iqa",
        log_directory=str(logs.resolve()),
        death_timeout=PATIENCE,
        job_directives_skip=["#SBATCH -n ", "#SBATCH --cpus-per-task=", "#SBATCH --mem=", "#SBATCH -t "],
        job_extra_directives=directives,
        job_script_prologue=[
            f"cd {shlex.quote(str(ROOT))}",
            *(f"export {name}={shlex.quote(value)}" for name, value in worker_environment().items()),
        ],
        worker_extra_args=["--memory-limit", "0", "--no-dashboard", *lifetime(time_limit(directives))],
        silence_logs=logging.CRITICAL,
    )


def lifetime(limit: float | None) -> list[str]:
    """Return the options of a worker that ends itself before a time limit, in seconds."""
    if limit is None:
        return []
    margin = min(300.0, limit / 5)
    return ["--lifetime", f"{limit - margin:.0f}s", "--lifetime-stagger", f"{margin / 2:.0f}s"]


def time_limit(directives: Sequence[str]) -> float | None:
    """Return the seconds of Slurm's --time, None where there is none. Raises UserError for no time."""
    texts = [
        text.replace("--time", "", 1).replace("-t", "", 1).strip("= ")
        for text in directives
        if text.startswith(("--time=", "--time ", "-t"))
    ]
    if not texts:
        return None
    try:
        days, dash, clock = texts[-1].rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        if dash:  # days-hours[:minutes[:seconds]]
            hours, minutes, seconds = [*parts, 0, 0][:3]
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:  # minutes[:seconds]
            hours, (minutes, seconds) = 0, [*parts, 0][:2]
        return float(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds)
    except ValueError:
        raise UserError(f"--slurm: {texts[-1]!r} is no time of Slurm's, such as 08:00:00") from None
