"""Read what the folder of a sweep holds, and find the places of the paper that it fills."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from typing import Protocol as Interface

from common.protocols import METHODS, Method
from common.runs.folders import Results
from common.runs.grid import Entry, place_name
from common.runs.results import CellResult, Failure
from common.system.errors import UserError
from common.y import Backbone

PROTOCOLS = ("paper", "released")
_Held = TypeVar("_Held", CellResult, Failure)


class Variant(NamedTuple):
    """A choice of protocol, seeds and images that the paper's tables are filled with."""

    protocol: str = "paper"
    seeds: int = 5
    limit: int | None = None  # images of each data set, None for all
    similar: tuple[float, float] | None = None  # DMOS bounds of Figure 4, None for the default ones

    @property
    def options(self) -> str:
        """Return the options of scripts.report that choose it."""
        similar = "" if self.similar is None else f" --similar-dmos {self.similar[0]:g} {self.similar[1]:g}"
        return f"--protocol {self.protocol} --seeds {self.seeds} --limit-images {self.limit or 0}{similar}"

    def __str__(self) -> str:
        seeds = f"{self.seeds} seed{'' if self.seeds == 1 else 's'}"
        images = "all images" if self.limit is None else f"at most {self.limit} images of each data set"
        similar = (
            "" if self.similar is None else f", DMOS {self.similar[0]:g} to {self.similar[1]:g} in Figure 4"
        )
        return f"protocol {self.protocol}, {seeds}, {images}{similar}"


class DatasetFacts(Interface):
    """What a report needs to know of a data set."""

    @property
    def title(self) -> str: ...

    @property
    def larger_is_better(self) -> bool: ...

    @property
    def released(self) -> str | None:
        """Return the subset that the paper uses, None where it does not use the data set."""

    @property
    def subsets(self) -> Mapping[str, int | None]:
        """Return the number of images by subset; the first is the default."""


@dataclass(frozen=True)
class Paper:
    """What a report needs to know of the paper: its places, and the networks and data sets that they name."""

    grid: Callable[[Variant], Iterable[Entry]]  # the places under a variant, each with its cell
    backbones: Mapping[str, Backbone]  # by name
    datasets: Mapping[str, DatasetFacts]  # by name
    places: Sequence[str] | None = None  # tables and figures that are shown; None: all
    networks: Sequence[str] | None = None  # the same of networks, by name

    def entries(self, variant: Variant) -> list[Entry]:
        """Return the places that are shown."""
        return [
            entry
            for entry in self.grid(variant)
            if (self.places is None or entry.place in self.places)
            and (self.networks is None or entry.backbone in self.networks)
        ]

    @property
    def options(self) -> str:
        """Return the options of scripts.report that choose what is shown, each after a space."""
        asked = (("--tables", self.places), ("--backbones", self.networks))
        return "".join(f" {option} {' '.join(names)}" for option, names in asked if names is not None)

    @property
    def restriction(self) -> str:
        """Return what is shown, in words; "" where all is."""
        tables = map(place_name, self.places or ())
        networks = (self.backbones[name].title for name in self.networks or ())
        return "; ".join(filter(None, map(", ".join, (tables, networks))))


@dataclass(frozen=True)
class Sweep:
    """The places that the paper has under one variant, and the results that there are for them."""

    variant: Variant
    results: Results
    paper: Paper

    @cached_property
    def entries(self) -> list[Entry]:
        """Return the places of the paper, each with its cell."""
        return self.paper.entries(self.variant)

    @cached_property
    def ids(self) -> list[str]:
        """Return the ids of the distinct cells."""
        return list(dict.fromkeys(entry.cell.id for entry in self.entries))

    @property
    def done(self) -> list[CellResult]:
        """Return the cells that are finished."""
        return [self.results.finished[name] for name in self.ids if name in self.results.finished]

    @property
    def failed(self) -> list[str]:
        """Return the ids of the cells that failed."""
        return [name for name in self.ids if name in self.results.failed]

    @property
    def known(self) -> set[str]:
        """Return the ids of the cells that the folder holds, finished or failed."""
        return {name for name in self.ids if name in self.results.finished or name in self.results.failed}

    def outcome(self, entry: Entry) -> CellResult | Failure | None:
        """Return what became of the cell of a place; None where it was not run."""
        return self.results.finished.get(entry.cell.id) or self.results.failed.get(entry.cell.id)

    def title_of_backbone(self, name: str) -> str:
        """Return a network's name as people write it."""
        return self.paper.backbones[name].title

    def title_of_dataset(self, name: str) -> str:
        """Return a data set's name as people write it."""
        return self.paper.datasets[name].title


def check_known(results: Results, paper: Paper) -> None:
    """Raise UserError where a result is of a network, data set or subset that this program does not know."""
    for result in results.finished.values():
        dataset = paper.datasets.get(result.data["dataset"])
        for what, name, known in (
            ("network", result.cell.backbone, paper.backbones),
            ("data set", result.data["dataset"], paper.datasets),
            ("subset", result.data["subset"], dataset.subsets if dataset else {}),
        ):
            if name not in known:
                assert result.folder is not None
                file = result.folder / "result.json"
                raise UserError(f"{file}: unknown {what} {name!r}: move its folder elsewhere")


def sweeps(results: Results, paper: Paper) -> list[Sweep]:
    """Return the variants that a folder holds cells of, the one with most of them first.

    A variant whose cells are all in those before it is left out.
    """
    bounds: dict[Variant, set[tuple[float, float] | None]] = {}
    for cell in results.cells:
        if cell.protocol.name in PROTOCOLS and cell.seeds == tuple(range(len(cell.seeds))):
            variant = Variant(cell.protocol.name, len(cell.seeds), cell.limit)
            bounds.setdefault(variant, {None}).add(cell.target.between)
    variants = [variant._replace(similar=similar) for variant, held in bounds.items() for similar in held]
    candidates = [Sweep(variant, results, paper) for variant in variants]
    candidates.sort(
        key=lambda sweep: (
            -len(sweep.done),
            -len(sweep.failed),
            PROTOCOLS.index(sweep.variant.protocol),
            -sweep.variant.seeds,
            sweep.variant.limit is not None,
            sweep.variant.limit or 0,
            sweep.variant.similar or (),
        )
    )
    kept: list[Sweep] = []
    known: set[str] = set()
    for sweep in candidates:
        if sweep.known - known:
            kept.append(sweep)
            known |= sweep.known
    return kept


def select_sweep(
    candidates: Sequence[Sweep], asked: Mapping[str, Any], results: Results, paper: Paper
) -> Sweep:
    """Return the first sweep whose variant is as was asked for, else an empty one.

    asked: fields of `Variant`, None where anything will do, and a limit of 0 for none.
    """
    wanted = {name: value for name, value in asked.items() if value is not None}
    if "limit" in wanted:
        wanted["limit"] = wanted["limit"] or None
    for sweep in candidates:
        variant = sweep.variant._replace(similar=wanted.get("similar", sweep.variant.similar))
        if all(getattr(variant, name) == value for name, value in wanted.items()):
            return Sweep(variant, results, paper)
    return Sweep(Variant(**wanted), results, paper)


def of_networks(results: Results, paper: Paper) -> Results:
    """Return the cells of the networks that are shown."""

    def kept(held: Mapping[str, _Held]) -> dict[str, _Held]:
        shown = paper.networks
        return {name: one for name, one in held.items() if shown is None or one.cell.backbone in shown}

    return replace(results, finished=kept(results.finished), failed=kept(results.failed))


def results_without_place(results: Results, known: Sequence[Sweep]) -> list[CellResult]:
    """Return the finished cells that belong to no place of the paper under any of the variants.

    There are none where certain tables are asked for.
    """
    if any(sweep.paper.places is not None for sweep in known):
        return []
    placed = {name for sweep in known for name in sweep.ids}
    left = [result for name, result in results.finished.items() if name not in placed]
    return sorted(left, key=lambda result: (result.cell.weights, str(result.cell.target), result.cell.id))


def environments(sweep: Sweep, name: str) -> Counter[str]:
    """Count the finished cells by the value that their environment has for a name, such as "device"."""
    return Counter(str(result.environment.get(name, "unknown")) for result in sweep.done)


def images_per_second(sweep: Sweep) -> dict[tuple[str, str], dict[str, float]]:
    """Return images per second by (device, backbone) and method.

    Only methods without ablation count, under a protocol that the network has as it is.
    """
    counted: dict[tuple[str, str], dict[str, list[float]]] = {}
    for entry in {entry.cell.id: entry for entry in sweep.entries}.values():
        cell, outcome = entry.cell, sweep.outcome(entry)
        standard = cell.protocol in sweep.paper.backbones[entry.backbone].protocols.values()
        if isinstance(outcome, CellResult) and standard and _without_ablation(cell.method):
            row = counted.setdefault((str(outcome.environment["device"]), entry.backbone), {})
            total = row.setdefault(cell.method.name, [0.0, 0.0])
            total[0] += outcome.summary.n_images * len(cell.seeds)
            total[1] += outcome.seconds
    return {
        key: {method: images / seconds for method, (images, seconds) in row.items()}
        for key, row in counted.items()
    }


def _without_ablation(method: Method) -> bool:
    """Return whether a method is as its name says."""
    known = METHODS.get(method.name)
    return known is not None and replace(known, adapt=method.adapt) == method
