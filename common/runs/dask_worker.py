"""How a process of Dask is started that is a worker of a sweep."""

import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import Popen
from typing import IO, Any

from common.system.code import ROOT
from common.system.errors import UserError
from common.system.files import read_json

PR_SET_PDEATHSIG = 1  # of prctl, by <sys/prctl.h>
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
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the sweep says itself who is lost
    return dask, distributed


def _variable(setting: str) -> str:
    """Return the environment variable of a setting of Dask's."""
    return "DASK_" + setting.upper().replace("-", "_").replace(".", "__")


def address_of(text: str) -> str:
    """Return the address of a scheduler, which a file may hold. Raises UserError where it holds none."""
    if is_address(text):
        return text
    try:
        return str(read_json(Path(text), "file that `dask scheduler --scheduler-file` writes")["address"])
    except (LookupError, TypeError):
        raise UserError(
            f"{text}: not written by `dask scheduler --scheduler-file`: it has no address"
        ) from None


def is_address(text: str) -> bool:
    """Return whether this is the address of a scheduler, and no file that holds one."""
    return "://" in text or re.fullmatch(r"[^/\\]*:\d+", text) is not None


def worker_command(address: str, name: str, *more: str, patience: float = PATIENCE) -> list[str]:
    """Return the command that starts a worker, one thread without a limit of memory.

    address: of the scheduler, or a file that it writes.
    more: options of `dask worker`.
    patience: seconds after which it ends if it has not found the scheduler.
    """
    where = [address] if is_address(address) else ["--scheduler-file", address]
    options = ["--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
    program = [sys.executable, "-m", "distributed.cli.dask_worker"]
    return [*program, *where, "--name", name, *options, "--death-timeout", f"{patience:g}", *more]


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


def start_worker(command: Sequence[str], environment: Mapping[str, str], output: IO | None = None) -> Popen:
    """Start a worker, which ends with this process, however that ends; but on Linux only with a SIGKILL.

    environment: beside that of this process.
    output: for what it prints.
    """
    return Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # Ctrl-C is for this process, which ends it
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
