"""The paper's tables and figures as data.

A `Cell` is the unit of work; an `Entry` is a cell at its place in a table or figure, where a `Published`
value may stand beside it.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common.protocols import METHODS, Method, Protocol, Setting
from common.runs.cell_ids import cell_id
from common.system.errors import UserError

if TYPE_CHECKING:
    from common.y import Backbone

PUBLISHED = Path(__file__).with_name("paper_tables.csv")
PAPER_PLACES = ("1", "2", "3", "4", "5", "6", "7", "8", "fig4", "fig5", "fig6")  # tables, figures
EXTRA_PLACE = "extra"  # experiments beyond the paper
SIMILAR_DMOS = (40.0, 50.0)  # of Figure 4; the paper's own bounds are not known


@dataclass(frozen=True)
class Target:
    """Images to adapt to."""

    dataset: str
    subset: str | None = None  # of the data set; None: its default
    between: tuple[float, float] | None = None  # only published scores above the first, up to the second

    def __str__(self) -> str:
        parts = [self.dataset, self.subset, self.between and f"{self.between[0]:g} to {self.between[1]:g}"]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Cell:
    """The unit of work, storage and comparison: one network, from one source, adapted to one target."""

    backbone: str  # name of the network
    weights: str  # name of the checkpoint, which names the source
    target: Target
    method: Method
    protocol: Protocol
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    batch_size: int = 8
    limit: int | None = None  # only so many images, chosen by the hash of their names; None: all

    @property
    def setting(self) -> Setting:
        """How its episodes run."""
        return Setting(self.protocol, self.method)

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits that depend on what is computed, not on what it is called."""
        return cell_id(self)


@dataclass(frozen=True)
class Experiment:
    """One table or figure for one network."""

    place: str  # one of PAPER_PLACES, or EXTRA_PLACE
    targets: Sequence[Target]
    settings: Mapping[str, Method]  # by what the paper calls each
    weights: str  # name of the checkpoint
    cut: str | None = None  # where the extractor ends, if not where the protocol says


class Entry(NamedTuple):
    """A cell as it stands in a table or figure."""

    place: str  # one of PAPER_PLACES, or EXTRA_PLACE
    backbone: str
    weights: str
    target: Target
    setting: str  # what the paper calls the method there
    cell: Cell

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """The key of the values that are published of this cell, `Published.key`."""
        return self.place, self.backbone, self.weights, self.target.dataset, self.setting


class Published(NamedTuple):
    """One number of the paper."""

    place: str
    backbone: str
    weights: str
    dataset: str
    setting: str  # what the paper calls the method there
    metric: str  # srocc or plcc
    value: float

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """The `Entry.key` of the cell that measures it."""
        return self[:5]


def targets(*names: str) -> tuple[Target, ...]:
    """Return whole data sets, by name."""
    return tuple(Target(name) for name in names)


MAIN = targets("koniq10k", "pipal", "cid2013", "live_iqa")
TABLE_1 = {"Baseline": METHODS["source"], "Rotation": METHODS["rotation"], "TTA-IQA": METHODS["rank+gc"]}
EXTRA = {name: METHODS[name] for name in ("bn-stats", "contrastive", "contrique", "online")}  # not published
TABLE_2 = {name: METHODS[name] for name in ("rank", "gc", "rank+gc")}


def adapting(**settings: tuple[str, ...]) -> dict[str, Method]:
    """Return the settings of Table 6, from a name to what adapts."""
    return {name: replace(METHODS["rank+gc"], adapt=adapt) for name, adapt in settings.items()}


def entries(
    name: str,
    backbone: "Backbone",
    experiments: Sequence[Experiment],
    protocol: str,
    seeds: Sequence[int],
    limit: int | None = None,
) -> Iterator[Entry]:
    """Yield every place of one network's experiments.

    Equal work is one cell, with one id, however often it is listed.
    """
    for experiment in experiments:
        for target in experiment.targets:
            for setting, method in experiment.settings.items():
                chosen = backbone.protocols[protocol]
                if experiment.cut is not None and method.adapts:
                    chosen = replace(chosen, cut=experiment.cut)
                spelt_out = backbone.cut(chosen).with_default_adapt(method)
                cell = Cell(name, experiment.weights, target, spelt_out, chosen, tuple(seeds), limit=limit)
                yield Entry(experiment.place, name, experiment.weights, target, setting, cell)


def paper_grid(
    experiments: "Mapping[str, tuple[Backbone, Sequence[Experiment]]]",
    protocol: str,
    seeds: Sequence[int],
    limit: int | None = None,
    similar: Sequence[float] = SIMILAR_DMOS,
) -> Iterator[Entry]:
    """Yield every place of the experiments, with its cell.

    experiments: of each network, by its name.
    protocol: name of the protocol, "paper" or "released".
    limit: only so many images of each target, or None for all.
    similar: DMOS bounds of Figure 4.
    """
    for name, (backbone, listed) in experiments.items():
        bounded = [_between(one, similar) if one.place == "fig4" else one for one in listed]
        yield from entries(name, backbone, bounded, protocol, seeds, limit)


def _between(experiment: Experiment, bounds: Sequence[float]) -> Experiment:
    low, high = bounds
    targets = [replace(target, between=(low, high)) for target in experiment.targets]
    return replace(experiment, targets=targets)


def place_of(
    row: Sequence[Entry], protocol: Protocol, method: Method, cut: str | None, weights: str | None
) -> Entry:
    """Return the one place among several whose cell has this protocol and method.

    row: places of one table and data set, of one network.
    cut: where the extractor ends, or None where the table may say.
    weights: name of the checkpoint, or None for any other file.

    Raises UserError if there is none, or more than one.
    """
    table = place_name(row[0].place)
    found = [entry for entry in row if _alike(entry.cell, protocol, method, cut)]
    if not found:
        settings = ", ".join(dict.fromkeys(entry.setting for entry in row))
        raise UserError(
            f"{table} has {settings} and not this method: choose --method and the ablations accordingly"
        )
    if weights is not None or len(found) > 1:
        found = [entry for entry in found if entry.weights == weights]
    if not found:
        sources = " and ".join(sorted({entry.weights for entry in row}))
        raise UserError(f"{table} on {row[0].target.dataset} is of {sources}: give one as --weights")
    return found[0]


def _alike(cell: Cell, protocol: Protocol, method: Method, cut: str | None) -> bool:
    """Return whether a cell is what was asked for; cut: None where the table may say."""
    named = replace(cell.method, name=method.name, adapt=method.adapt)
    same = set(cell.method.adapt or ()) == set(method.adapt or ()) and named == method
    return same and replace(cell.protocol, cut=protocol.cut if cut is None else cell.protocol.cut) == protocol


def place_name(place: str) -> str:
    """Return how people speak of a table or figure: "Table 1", "Figure 4"."""
    if place == EXTRA_PLACE:
        return "beyond the paper"
    return f"Figure {place[3:]}" if place.startswith("fig") else f"Table {place}"


def published() -> list[Published]:
    """Return the 344 values of Tables 1 to 8."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)  # the header
        return [
            Published(place, backbone, weights, dataset, setting, metric, float(value))
            for place, backbone, weights, dataset, setting, metric, value in rows
        ]
