"""Kinds of work that take turns and are timed."""

import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Seconds that a photograph took in one round."""

    wall: float
    cpu: float  # of all threads of the process


def in_turns(
    works: Mapping[str, Callable[[], Timing]], rounds: int, no_warm_up: Collection[str] = ()
) -> dict[str, list[Timing]]:
    """Let all kinds of work take turns in every round, so that what else the machine does meets them alike.

    no_warm_up: kinds that are left out of the round before the first, which counts for nothing.
    """
    for kind, work in works.items():
        if kind not in no_warm_up:
            work()
    found: dict[str, list[Timing]] = {kind: [] for kind in works}
    for _ in range(rounds):
        for kind, work in works.items():
            found[kind].append(work())
    return found


def timed(work: Callable[[], object], photographs: int, device: torch.device) -> Timing:
    """Run work on some photographs until the device has finished it."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    _wait(device)
    return Timing(
        (time.perf_counter() - wall) / photographs,
        (time.process_time() - cpu) / photographs,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
