"""What a sweep would do, what of it this machine has the files for, and how long that takes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from common.runs.benchmark import FORMAT, quick_forward_seconds
from common.runs.cell import Plan
from common.runs.grid import Cell, Entry, Target, place_name
from common.runs.jobs import Job
from common.runs.store import Store
from common.runs.survey import Survey
from common.system.device import title
from common.system.errors import UserError
from common.system.files import read_json
from common.y import Backbone


@dataclass(frozen=True)
class Rates:
    """How long a forward-equivalent takes, and by whom that was found."""

    seconds: Mapping[str, float]  # of one image, by network; none for one whose rate is not known
    machine: str  # that is as fast as this
    origin: str  # of the figures

    @classmethod
    def read(cls, path: Path) -> "Rates":
        """Read what `scripts.benchmark --json` wrote. Raises UserError where the file is not that."""
        try:
            content = read_json(path, "file of scripts.benchmark --json")
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']}, and this program reads {FORMAT}")
            found = {row["network"]: float(row["forward_seconds"]) for row in content["networks"]}
            if not all(math.isfinite(value) and value > 0 for value in found.values()):
                raise ValueError("a rate is no time")
            return cls(found, str(content["machine"]["title"]), str(path))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"--rates: {path} is no file of scripts.benchmark --json ({type(error).__name__}: {error}): "
                "run that on the machine in question"
            ) from None

    @classmethod
    def measured(cls, backbones: Mapping[str, Backbone], device: torch.device) -> "Rates":
        """Measure the networks, a few seconds each, with random weights and images."""
        found = {name: quick_forward_seconds(backbone, device) for name, backbone in backbones.items()}
        return cls(found, title(device), "measured just now")


class Row(NamedTuple):
    """What one network has to do on one target, for all seeds."""

    network: str
    target: Target
    images: int
    cells: int
    passes: int  # forward-equivalents of single images
    seconds: float  # on one device; NaN if the rate of the network is not known


@dataclass(frozen=True)
class Cost:
    """What jobs take."""

    rows: list[Row]
    views: int  # photographs that are decoded
    longest: float  # seconds of the longest job, which no second device shortens

    @classmethod
    def of(cls, work: Iterable[Job], found: Survey, rates: Rates) -> "Cost":
        """Add up what a sweep does for these jobs."""
        grouped: dict[tuple[str, Target], list[Job]] = {}
        for job in work:
            grouped.setdefault((job.cells[0].backbone, job.cells[0].target), []).append(job)
        rows, views, longest = [], 0, 0.0
        for (network, target), own in grouped.items():
            rate = rates.seconds.get(network, math.nan)
            passes = [found.passes(job) for job in own]
            cells = {cell.id for job in own for cell in job.cells}
            size = found.size(own[0].cells[0])
            rows.append(Row(network, target, size, len(cells), sum(passes), sum(passes) * rate))
            views += size * len(own)
            longest = max([longest, *(rate * one for one in passes if not math.isnan(rate))])
        return cls(rows, views, longest)

    @property
    def cells(self) -> int:
        """Number of cells."""
        return sum(row.cells for row in self.rows)

    @property
    def passes(self) -> int:
        """Forward-equivalents of single images."""
        return sum(row.passes for row in self.rows)

    def seconds(self, devices: int) -> float:
        """Return the time on several devices that draw from one queue, of what has a known rate."""
        known = [row.seconds for row in self.rows if not math.isnan(row.seconds)]
        return max(sum(known) / devices, self.longest)

    @property
    def known(self) -> bool:
        """Whether the rate of every network is."""
        return not any(math.isnan(row.seconds) for row in self.rows)

    def time(self, devices: int) -> str:
        """Return the time in words."""
        if not self.rows:
            return "nothing"
        timed = spoken(self.seconds(devices))
        return f"about {timed}" if self.known else f"over {timed}, one rate or more being unknown"


def preview(
    places: Sequence[Entry],
    cells: Sequence[Cell],
    todo: Sequence[Cell],
    work: Sequence[Job],
    found: Survey,
    store: Store,
    rates: Rates,
    devices: int,
    verbose: bool,
) -> Iterator[str]:
    """Yield the lines that --dry-run prints.

    cells: those of the places, each once; todo: those that are neither done nor failed; work: their jobs.
    devices: how many share the work; verbose: whether every place is listed.
    """
    here = Cost.of([job for job in work if not found.reason(job.cells[0])], found, rates)
    elsewhere = Cost.of([job for job in work if found.reason(job.cells[0])], found, rates)
    done = [cell for cell in cells if store.done(cell)]
    failed = len(cells) - len(todo) - len(done)
    yield (
        f"{len(places)} places, {len(cells)} cells: {len(done)} done, {failed} failed before "
        f"(--retry-failed), {here.cells} to do, {elsewhere.cells} cannot be run yet"
    )
    if todo:
        each = f"{devices} devices, each like" if devices > 1 else "one device like"
        yield f"to do: {here.time(devices)}; cannot be run yet: {elsewhere.time(devices)}"
        yield f"on {each} {rates.machine} ({rates.origin})"
        for name in sorted({cell.backbone for cell in todo} - set(rates.seconds)):
            yield f"no rate of {name} in {rates.origin}: its time is unknown; scripts.benchmark measures it"
        alone_views = sum(found.size(job.cells[0]) * len(job.cells) for job in work)
        alone = sum(found.size(cell) * Plan.of([cell.setting]).forwards for job in work for cell in job.cells)
        yield (
            f"{here.views + elsewhere.views:,} views decoded once ({alone_views:,} cell by cell), "
            f"{here.passes + elsewhere.passes:,} forward passes ({alone:,} cell by cell)"
        )
    for label, cost in (("to do", here), ("cannot be run", elsewhere)):
        if cost.rows:
            yield ""
            yield from _table(label, cost, "on one" if devices > 1 else "time")
    if found.missing:
        yield ""
        yield from found.missing_lines(todo)
    if verbose:
        yield ""
        yield from _listing(places, done, todo, found)


def _table(label: str, cost: Cost, time: str) -> Iterator[str]:
    """Yield a table of rows and their sum, on one device.

    label: of the sum; time: heads the last column.
    """
    yield f"{'network':13s}  {'data set':20s} {'images':>7s} {'cells':>6s} {'passes':>13s} {time:>9s}"
    for row in cost.rows:
        yield (
            f"{row.network:13s}  {row.target!s:20s} {row.images:7,} {row.cells:6,} {row.passes:13,} "
            f"{spoken(row.seconds):>9s}"
        )
    whole = spoken(cost.seconds(1)) if cost.known else "unknown"
    yield f"{label:13s}  {'':20s} {'':7s} {cost.cells:6,} {cost.passes:13,} {whole:>9s}"


def _listing(
    places: Sequence[Entry], done: Sequence[Cell], todo: Sequence[Cell], found: Survey
) -> Iterator[str]:
    """Yield a line per place of a table or figure."""
    finished, left = {cell.id for cell in done}, {cell.id for cell in todo}
    for entry in places:
        cell = entry.cell
        state = "done" if cell.id in finished else "failed before" if cell.id not in left else "to do"
        state = "cannot be run" if state == "to do" and found.reason(cell) else state
        where = f"{place_name(entry.place):8s}  {entry.weights} on {entry.target}: {entry.setting}"
        yield f"{cell.id}  {where}: {state}"


def spoken(seconds: float) -> str:
    """Return a time in the unit in which people think of it; "unknown" for NaN."""
    if math.isnan(seconds):
        return "unknown"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 99.95 * 3600 else f"{seconds / 3600:,.0f} h"
