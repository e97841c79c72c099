"""Where to compute, and what was used to."""

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from common.system.code import ROOT
from common.system.errors import UserError, fault

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "opencv-python-headless",
    "opencv-python",
    "timm",
)


def kind(name: str) -> str:
    """Return what a device's name is one of: auto, cpu, cuda, mps. Raises UserError; touches no device."""
    try:
        found = name if name == "auto" else torch.device(name).type
    except RuntimeError:
        found = ""
    if found not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"device {name!r} is none: give auto, cpu, cuda, cuda:1 or mps")
    return found


def choose(name: str) -> torch.device:
    """Return a device by name; "auto" is CUDA where there is one, then MPS, then the CPU.

    It computes exactly, in float32, where `common.system.precision` does not say otherwise.
    Raises UserError if it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(f"neither cpu, cuda nor mps: {device.type}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used ({fault(error)}): try --device auto") from None
    torch.backends.cudnn.allow_tf32 = False  # torch's own default is True
    return device


def default_episodes(device: torch.device) -> int:
    """Return how many episodes run at once.

    On a CPU one is fastest (docs/speed.md); a GPU is idle with a single batch of 8.
    """
    return 4 if device.type == "cuda" else 1


def default_workers(device: torch.device) -> int:
    """Return the number of loader processes.

    On a CPU they take cores from the network. A GPU has its share of the cores, up to as many as keep up with
    it under the dearest protocol (docs/speed.md).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.type != "cuda":
        return min(2, cores - 1)
    return min(16, max(1, cores // max(1, torch.cuda.device_count())))


def title(device: torch.device) -> str:
    """Return what people call the hardware: a GPU by its name, a CPU with the threads that compute."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu()}, {threads} thread{'s' * (threads > 1)}" if device.type == "cpu" else device.type


def _cpu() -> str:
    """Return the model of the CPU, by Linux or as far as Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


@functools.cache
def environment(device: torch.device) -> dict[str, str | int]:
    """Return versions, this code's own commit where it is a checkout, and hardware, for the result."""
    found: dict[str, str | int] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if (commit := _commit()) is not None:
        found["commit"] = commit
    found["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    found["threads"] = torch.get_num_threads()
    return found


def _commit() -> str | None:
    """Return the commit of this checkout, None where this is none: it may lie in one of something else."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")).samefile(ROOT):
            return _git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        pass
    return None


def _git(*command: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of another one
    found = subprocess.run(
        ["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=True, timeout=10, env=own
    )
    return found.stdout.strip()
