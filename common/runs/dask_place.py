"""What a process of Dask makes a worker of a sweep of, and how it is asked."""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.runs.jobs import Inputs
from common.runs.worker import Worker
from common.system.device import choose, default_workers


@dataclass(frozen=True)
class Place:
    """What a worker is made of; what the environment of its own machine says comes first."""

    sweep: str  # a name that no other sweep has
    inputs: Inputs
    root: Path | None  # the launcher's --data-root, where IQA_DATA_ROOT says nothing
    weights: Path | None  # its --weights-dir, where IQA_WEIGHTS_DIR says nothing
    allow_missing: bool
    loaders: int | None  # loader processes, None: by device
    precision: str

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
            self.precision,
        )


class Call:
    """A call of a function, which is made where this is unpickled.

    A scheduler of Dask unpickles what it hands on, apart from what is bytes already: with this in bytes it
    needs none of this code, and does not stand still while that is imported.
    """

    def __init__(self, function: Callable, *arguments: Any):
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.function, self.arguments


def serve(place: Place, what: str, *more: Any) -> Any:
    """Call a method of this process's worker; runs in a worker of Dask."""
    from distributed import get_worker

    host: Any = get_worker()
    if getattr(host, "sweep", None) != place.sweep:
        host.sweep_worker = None  # free the memory of another sweep's first
        host.sweep, host.sweep_worker = place.sweep, place.worker()
    return getattr(host.sweep_worker, what)(*more)
