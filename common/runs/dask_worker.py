"""A worker of a sweep as a process of Dask: how it is started, and how it is asked."""

import logging
import multiprocessing
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.runs.jobs import Inputs
from common.runs.worker import Worker
from common.system.code import ROOT
from common.system.device import choose, default_workers
from common.system.errors import UserError

PATIENCE = 300.0  # seconds for which a worker looks for its scheduler
SETTINGS: dict[str, Any] = {  # of Dask, where the environment says nothing else; docs/cluster.md has the why
    # A nanny's worker is no daemon, which might have no loader processes.
    "distributed.worker.daemon": False,
    # A nanny sets none of these: it would leave a CPU one thread, and have every tensor cost page faults.
    "distributed.nanny.pre-spawn-environ": dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")
    ),
    # A line that is cut is noticed by the kernels at both ends, whatever holds the interpreters.
    "distributed.comm.timeouts.tcp": "30s",
    # A machine that hangs while its kernel answers is noticed by its heartbeats, which need the interpreter:
    # no less than it may be held for, such as by CUDA's libraries while a slow disk gives them.
    "distributed.scheduler.worker-ttl": "300s",
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
    dask.config.set({name: value for name, value in SETTINGS.items() if _variable(name) not in os.environ})
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # the sweep says itself who is lost
    return dask, distributed


def _variable(setting: str) -> str:
    """Return the environment variable of a setting of Dask's."""
    return "DASK_" + setting.upper().replace("-", "_").replace(".", "__")


def is_address(text: str) -> bool:
    """Return whether this is the address of a scheduler, and no file that holds one."""
    return "://" in text or re.fullmatch(r"[^/\\]*:\d+", text) is not None


def worker_command(address: str, name: str, *more: str) -> list[str]:
    """Return the command that starts a worker, one thread without a limit of memory.

    address: of the scheduler, or a file that it writes.
    more: options of `dask worker`.
    """
    where = [address] if is_address(address) else ["--scheduler-file", address]
    options = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
    program = [sys.executable, "-m", "distributed.cli.dask_worker"]
    return [*program, *where, "--name", name, *options, "--death-timeout", f"{PATIENCE:.0f}", *more]


def worker_environment(
    device: str | None = None, root: Path | None = None, weights: Path | None = None
) -> dict[str, str]:
    """Return what the environment of a worker has beside that of this process.

    device: "cuda:1" shows it that GPU alone, "cuda" those that it sees anyway.
    """
    found = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    for name, value in SETTINGS.items():
        found[_variable(name)] = os.environ.get(_variable(name), str(value))
    if device is not None:
        kind, _, index = device.partition(":")
        found["IQA_DEVICE"] = kind
        if kind == "cuda" and index:
            seen = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
            number = int(index)
            found["CUDA_VISIBLE_DEVICES"] = seen[number] if number < len(seen) else index
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
