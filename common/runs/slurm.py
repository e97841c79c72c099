"""Workers as jobs of Slurm, through dask-jobqueue."""

import asyncio
import logging
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.runs.dask_worker import PATIENCE
from common.runs.tender import TRIES, Tender
from common.system import cli
from common.system.code import ROOT
from common.system.errors import UserError
from common.system.text import shortened

LOOK = 10.0  # seconds between two looks at the jobs: Slurm is slow, and asked by many


@dataclass
class Slurm(Tender):
    """As many jobs as there is work for.

    Slurm's commands may take long, so that they run in the event loop of Dask's cluster, and nobody waits for
    them. There alone its two dictionaries are touched: `worker_spec`, the workers that are wanted, and
    `workers`, the jobs that were submitted for them, both by the name of the worker.
    """

    cluster: Any  # a dask_jobqueue.SLURMCluster
    most: int  # jobs at once; one less for each worker that is refused, since another would be so too
    look: Future | None = None  # one that has begun
    looked: float = 0.0  # when that was
    unwanted: set[str] = field(default_factory=set)  # names of workers whose jobs are to end
    there: set[str] = field(default_factory=set)  # ids of jobs whose workers were there
    vanished: int = 0  # jobs in a row that ended before their worker had got a job of the sweep
    refusal: str = ""  # why the last worker could not take part
    refused_since: float | None = None  # when sbatch began to refuse every job

    def tend(self, jobs: int, present: Collection[str]) -> None:
        """Submit as many jobs as there is work for, others for those that ended, and cancel idle ones."""
        if self.look is not None:
            if not self.look.done():
                return
            look, self.look = self.look, None
            look.result()
        if self.most == 0:
            raise UserError(f"no worker in a job of Slurm can take part: {self.refusal}")
        if self.vanished >= TRIES and not present:
            raise UserError(
                f"{self.vanished} jobs of Slurm in a row ended before they could do anything: what they "
                "printed is in logs/ of the results"
            )
        # With some at work a node may be broken, where jobs end as fast as they are submitted.
        pause = LOOK if self.vanished < TRIES else 60 * LOOK
        if (now := time.monotonic()) - self.looked > pause or self.unwanted:
            unwanted, self.unwanted, self.looked = self.unwanted, set(), now
            looking = self._look(min(self.most, jobs), set(present), unwanted)
            self.look = asyncio.run_coroutine_threadsafe(looking, self.cluster.loop.asyncio_loop)

    def employ(self, name: str) -> None:
        """Be told that a worker gets a job."""
        self.vanished = 0

    def refuse(self, name: str, reason: str) -> None:
        """End the job of a worker that cannot take part, and submit none in its place."""
        if self.release(name):
            self.most -= 1
            self.refusal = reason

    def release(self, name: str) -> bool:
        """End the job of a worker."""
        self.unwanted.add(name)
        return True

    async def _look(self, wanted: int, present: set[str], unwanted: set[str]) -> None:
        workers, spec = self.cluster.workers, self.cluster.worker_spec
        self.there |= {workers[name].job_id for name in present if name in workers}
        await self._forget_ended()
        for name in unwanted & spec.keys():
            del spec[name]
        waiting = [name for name in spec if name not in present]
        while len(spec) > wanted and waiting:
            del spec[waiting.pop()]
        while len(spec) < wanted:
            spec.update(self.cluster.new_worker_spec())
        try:
            await self.cluster  # cancels the jobs whose workers are not wanted any more, and submits others
        except (RuntimeError, OSError, ValueError) as error:
            self._refused(str(error))
        else:
            self.refused_since = None

    async def _forget_ended(self) -> None:
        """Have the jobs submitted anew that Slurm does not know, and whose workers never were there.

        Dask's cluster does so itself with those that were, after a while.
        """
        workers = self.cluster.workers
        ids = {job.job_id: name for name, job in workers.items() if job.job_id not in {None, *self.there}}
        if not ids:
            return
        asked = ["squeue", "--noheader", "--format=%i", f"--jobs={','.join(ids)}"]
        try:
            listed = await asyncio.to_thread(
                subprocess.run, asked, capture_output=True, text=True, timeout=60
            )
        except subprocess.TimeoutExpired:
            return
        # With a single job that is no more, squeue fails; with several it lists the others.
        if listed.returncode != 0 and "Invalid job id" not in listed.stderr:
            return
        for job_id in ids.keys() - set(listed.stdout.split()):
            self.vanished += 1
            self._drop(ids[job_id])

    def _refused(self, fault: str) -> None:
        """Have jobs submitted anew that sbatch refused. Raises UserError where it never took one, or no more.

        It may be out of order for a while, or there may be as many as one user may have.
        """
        workers = self.cluster.workers
        for name in [name for name, job in workers.items() if job.job_id is None]:
            self._drop(name)
        now = time.monotonic()
        self.refused_since = self.refused_since or now
        if not workers and (not self.there or now - self.refused_since > PATIENCE):
            told = fault.rpartition("stderr:")[2] or fault
            raise UserError(f"--slurm: sbatch fails: {shortened(' '.join(told.split()), 300)}")

    def _drop(self, name: str) -> None:
        """Forget a job, so that one is submitted in its place."""
        from distributed.core import Status

        if (job := self.cluster.workers.pop(name, None)) is not None:
            job.status = Status.closed  # Dask's cluster looks at that in the end

    def close(self) -> None:
        """Wait for the look that has begun, since a job that it submits is not known before its end."""
        if self.look is not None:
            with suppress(Exception):
                self.look.result(timeout=60)


def slurm_cluster(options: str, environment: Mapping[str, str], logs: Path) -> Any:
    """Return a cluster of Dask whose workers are jobs of Slurm; none is submitted yet.

    options: of sbatch.
    environment: of the workers, beside that of sbatch.
    logs: folder of what the jobs print.

    Raises UserError where dask-jobqueue or Slurm is not there, or --time is no time.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise UserError("--slurm needs dask-jobqueue: python -m pip install 'dask-jobqueue>=0.9'") from None
    for program in ("sbatch", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise UserError(f"--slurm: no {program} on this machine; start it where jobs are submitted")
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
        job_extra_directives=[" ".join(options.split())],
        job_script_prologue=[
            f"cd {shlex.quote(str(ROOT))}",
            *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        ],
        worker_extra_args=["--memory-limit", "0", "--no-dashboard", *lifetime(time_limit(options))],
        silence_logs=logging.CRITICAL,
    )


def lifetime(limit: float | None) -> list[str]:
    """Return the options of a worker that ends itself before a time limit, in seconds.

    That leaves some time for its start, and for the work that it is at. Not all of them end at once.
    """
    if limit is None:
        return []
    margin = min(300.0, limit / 5)
    return ["--lifetime", f"{limit - 1.5 * margin:.0f}s", "--lifetime-stagger", f"{margin / 2:.0f}s"]


def time_limit(options: str) -> float | None:
    """Return the seconds of Slurm's --time, None for no limit. Raises UserError for what is no time."""
    found = None
    words = cli.words("--slurm", options)
    for word, following in zip(words, [*words[1:], ""]):
        if word in ("-t", "--time"):
            found = following
        elif word.startswith("--time="):
            found = word.partition("=")[2]
        elif word.startswith("-t"):
            found = word[2:]
    if found is None:
        return None
    if found.lower() in ("infinite", "unlimited"):
        return None
    days, dash, clock = found.rpartition("-")
    parts = clock.split(":")
    if len(parts) > 3 or not all(part.isdecimal() for part in (*parts, *([days] if dash else ()))):
        raise UserError(f"--slurm: {found!r} is no time of Slurm's, such as 08:00:00")
    first = 3600 if dash or len(parts) == 3 else 60  # seconds that the first number is of
    seconds = sum(int(part) * first / 60**place for place, part in enumerate(parts))
    return int(days or 0) * 86400.0 + seconds or None
