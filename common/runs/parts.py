"""Parts of a long measurement, for so long and no longer; one that fails takes no other with it."""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from common.system.errors import fault


@dataclass(frozen=True)
class Part:
    """Something to be measured."""

    about: Mapping[str, Any]  # what, of what, under what
    run: Callable[[], Any]  # returns what JSON can hold
    series: str = ""  # parts of one series take a time in proportion to their size
    size: float = 1.0
    least: float = 0.0  # seconds without which it is not begun


class Done(NamedTuple):
    """What became of a part."""

    about: Mapping[str, Any]
    seconds: float
    result: Any  # None where there is none
    fault: str  # why there is none; "" where there is

    @property
    def name(self) -> str:
        """What people call it."""
        return " ".join(map(str, self.about.values()))

    def as_json(self) -> dict[str, Any]:
        """Return it for a file."""
        return {**self.about, **{name: getattr(self, name) for name in ("seconds", "result", "fault")}}


def run_parts(parts: Iterable[Part], deadline: float) -> Iterator[Done]:
    """Run the parts in their order; leave out those that would not end before `deadline`.

    deadline: by time.perf_counter. A part is expected to take as long as the last one of its series did, by
    its size; the first of a series may exceed the deadline.
    """
    known: dict[str, float] = {}  # seconds by size, of a series
    for part in parts:
        started = time.perf_counter()
        expected = max(part.least, known.get(part.series, 0.0) * part.size)
        if started + expected >= deadline:
            yield Done(part.about, 0.0, None, "left out: no time")
            continue
        try:
            result, failed = part.run(), ""
        except Exception as error:  # of whatever kind, out of memory above all
            result, failed = None, f"{type(error).__name__}: {fault(error)}"
        seconds = time.perf_counter() - started
        if part.series:
            known[part.series] = seconds / part.size
        gc.collect()  # tensors that an error held
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        yield Done(part.about, seconds, result, failed)
