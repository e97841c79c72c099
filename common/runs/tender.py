"""Who sees to it that a sweep has workers: somebody else, or this process for the devices of its machine."""

import os
import subprocess
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.runs.dask_worker import start_worker, worker_command, worker_environment
from common.system.errors import UserError

TRIES = 3  # processes in a row that may end before they have got a job


class Tender:
    """Sees to it that there are workers; this one leaves that to others."""

    def tend(self, jobs: int, present: Collection[str]) -> None:
        """Start the workers that are missing; is called every second.

        jobs: that there are, in hand or not.
        present: names of the workers that are there.

        Raises UserError once no worker can be had.
        """

    def employ(self, name: str) -> None:
        """Be told that a worker gets a job."""

    def refuse(self, name: str, reason: str) -> None:
        """Be told that a worker cannot take part, and why."""

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
    ended: Counter[int] = field(default_factory=Counter)  # how many in a row without a job

    def tend(self, jobs: int, present: Collection[str]) -> None:
        """Start the processes, and those again that have ended."""
        for index in range(len(self.devices)):
            process = self.processes.get(index)
            if process is not None and process.poll() is not None:
                self.ended[index] += 1
                del self.processes[index]
            if index not in self.processes and self.ended[index] < TRIES:
                self._start(index)
        if not self.processes:
            raise UserError(f"no worker can be started: {self._log(0)} says why")

    def employ(self, name: str) -> None:
        """Be told that a worker gets a job."""
        self.ended[int(name.rpartition(".")[2])] = 0

    def _start(self, index: int) -> None:
        device = self.devices[index]
        threads = str(max(1, (os.cpu_count() or 1) // len(self.devices)))  # else each would take every core
        environment = {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
            **worker_environment(device, self.root, self.weights),
        }
        with self._log(index).open("ab") as log:
            command = worker_command(self.address, f"{device}.{index}")
            self.processes[index] = start_worker(command, environment, log)

    def _log(self, index: int) -> Path:
        return self.logs / f"worker-{index}.log"

    def close(self) -> None:
        """End the processes."""
        for process in self.processes.values():
            process.kill()  # they hold nothing that is not written
        for process in self.processes.values():
            process.wait()
