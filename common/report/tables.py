"""A sweep's results in the layout of the paper: which value stands where, what was published there, and what
was measured."""

import json
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from typing import Protocol as Interface

import numpy as np
import pandas as pd
from scipy import stats

from common.distortions import TYPES
from common.photographs import Photograph
from common.protocols import METHODS, Method
from common.runs.cell import Scores, mean_std
from common.runs.grid import Entry, Published, published
from common.runs.sweep import FILES
from common.system.errors import UserError
from weights.networks import BACKBONES

TOLERANCE = 0.01
PROTOCOLS = ("paper", "released")


@dataclass(frozen=True)
class Result:
    """A finished cell. found: of result.json. run: of run.json."""

    id: str
    folder: Path
    found: dict
    run: dict

    @property
    def config(self) -> dict:
        return self.found["config"]


class Failure(NamedTuple):
    """A cell that failed, as the sweep wrote it."""

    reason: str
    cell: dict


@dataclass(frozen=True)
class Results:
    """What a sweep's folder holds, by the id of the cell."""

    finished: Mapping[str, Result]
    failed: Mapping[str, Failure]

    @classmethod
    def read(cls, root: Path) -> "Results":
        """Finished cells and failures; what is under way does not count. Raises UserError where the folder is
        none or a file of it cannot be understood."""
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; give the --results of scripts.all_expt")
        finished = {}
        for folder in sorted(root.iterdir()):
            if folder.name.startswith(".") or not all((folder / name).is_file() for name in FILES):
                continue
            result = Result(folder.name, folder, _json(folder / "result.json"), _json(folder / "run.json"))
            if result.found.get("config", {}).get("id") != folder.name:
                raise UserError(
                    f"{folder}/result.json: not the result of the cell {folder.name}: move the folder elsewhere"
                )
            finished[folder.name] = result
        failed = {}
        for path in sorted(root.glob("failed/[!.]*.json")):
            with suppress(FileNotFoundError):  # forgiven since the folder was listed
                if path.stem not in finished:
                    failed[path.stem] = Failure(**_json(path))
        return cls(finished, failed)

    @property
    def cells(self) -> Iterator[tuple[str, dict]]:
        """Every id with what describes its cell."""
        yield from ((name, result.config) for name, result in self.finished.items())
        yield from ((name, failure.cell) for name, failure in self.failed.items())


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path}: cannot be read ({error}): move it elsewhere, and the cell can be run again"
        ) from None


class Variant(NamedTuple):
    """One way to fill the paper's tables. limit: images of each data set, None for all. similar: DMOS bounds
    of Figure 4, None for the default ones."""

    protocol: str = "paper"
    seeds: int = 5
    limit: int | None = None
    similar: tuple[float, float] | None = None

    @property
    def options(self) -> str:
        """The options that choose it."""
        similar = "" if self.similar is None else f" --similar-dmos {self.similar[0]:g} {self.similar[1]:g}"
        return f"--protocol {self.protocol} --seeds {self.seeds} --limit-images {self.limit or 0}{similar}"

    def __str__(self) -> str:
        images = "all images" if self.limit is None else f"at most {self.limit} images of each data set"
        similar = (
            "" if self.similar is None else f", DMOS {self.similar[0]:g} to {self.similar[1]:g} in Figure 4"
        )
        return f"protocol {self.protocol}, {_count(self.seeds, 'seed')}, {images}{similar}"


@dataclass(frozen=True)
class Sweep:
    """The places of the paper under one variant, and what there is for them."""

    variant: Variant
    entries: Sequence[Entry]
    results: Results

    @cached_property
    def ids(self) -> list[str]:
        """Of the distinct cells."""
        return list(dict.fromkeys(entry.cell.id for entry in self.entries))

    @property
    def done(self) -> list[Result]:
        return [self.results.finished[name] for name in self.ids if name in self.results.finished]

    @property
    def failed(self) -> list[str]:
        return [name for name in self.ids if name in self.results.failed]

    @property
    def known(self) -> set[str]:
        """Ids of the cells that the folder holds, finished or failed."""
        return {name for name in self.ids if name in self.results.finished or name in self.results.failed}

    def outcome(self, entry: Entry) -> Result | Failure | None:
        return self.results.finished.get(entry.cell.id) or self.results.failed.get(entry.cell.id)


def sweeps(results: Results, grid: Callable[[Variant], Iterable[Entry]]) -> list[Sweep]:
    """The variants that the folder holds cells of, the one with most of them first; none whose cells are all
    in those before it. grid: the paper's places under a variant."""
    bounds: dict[Variant, set] = {}
    for _, cell in results.cells:
        seeds = list(cell["seeds"])
        if cell["protocol"]["name"] in PROTOCOLS and seeds == list(range(len(seeds))):
            found = bounds.setdefault(Variant(cell["protocol"]["name"], len(seeds), cell["limit"]), {None})
            if cell["target"]["between"] is not None:
                found.add(tuple(cell["target"]["between"]))
    variants = [one._replace(similar=similar) for one, found in bounds.items() for similar in found]
    candidates = [Sweep(variant, list(grid(variant)), results) for variant in variants]
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
    kept, known = [], set()
    for sweep in candidates:
        if sweep.known - known:
            kept.append(sweep)
            known |= sweep.known
    return kept


def strangers(results: Results, known: Iterable[Sweep]) -> list[Result]:
    """Finished cells that belong to no place of the paper."""
    places = {name for sweep in known for name in sweep.ids}
    found = [result for name, result in results.finished.items() if name not in places]
    return sorted(
        found, key=lambda result: (result.config["weights"], str(result.config["target"]), result.id)
    )


@dataclass(frozen=True)
class Value:
    """One number of a table. measured: {"mean", "std"} over seeds. gain, interval: in SROCC over the source,
    of what adapts. missing: why nothing was measured, if so. remarks: what a reader must know, such as why it
    cannot be compared. dataset: its title."""

    published: float | None = None
    digits: int = 4
    measured: Mapping[str, float | None] | None = None
    gain: float | None = None
    interval: tuple[float, float] | None = None
    images: int | None = None
    missing: str = ""
    remarks: tuple[str, ...] = ()
    dataset: str = ""

    @property
    def difference(self) -> float | None:
        """Measured less published."""
        if self.published is None or self.measured is None or self.measured["mean"] is None:
            return None
        return self.measured["mean"] - self.published

    @property
    def comparable(self) -> bool:
        """Whether it was measured on the images of the paper."""
        return self.difference is not None and not self.remarks

    @property
    def close(self) -> bool:
        """Whether it lies within 0.01 of the published value."""
        return self.comparable and abs(self.difference) <= TOLERANCE

    @property
    def alike(self) -> bool:
        """Whether it lies within 0.01 of the published value, or within two standard deviations over seeds if
        those are more."""
        return self.comparable and abs(self.difference) <= max(TOLERANCE, 2 * (self.measured["std"] or 0))

    @property
    def verdict(self) -> str:
        """helped or harmed where the interval of the gain leaves out zero, undecided where it does not, else
        nothing."""
        if self.interval is None:
            return ""
        return "helped" if self.interval[0] > 0 else "harmed" if self.interval[1] < 0 else "undecided"


class Head(NamedTuple):
    """One level of the heading of a row or column. note: in small print."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table or the numbers of a figure. name: as the paper's, "Table 1". rows, columns: headings, of one
    level or two. values: by (row, column); not every place has one."""

    name: str
    title: str
    rows: Sequence[tuple[Head, ...]]
    columns: Sequence[tuple[Head, ...]]
    values: Mapping[tuple[int, int], Value]

    @property
    def anchor(self) -> str:
        return self.name.lower().replace(" ", "-")

    @cached_property
    def notes(self) -> dict[str, str]:
        """Every remark on a value, and the letter that refers to it."""
        remarks = dict.fromkeys(remark for value in self.values.values() for remark in value.remarks)
        letters = string.ascii_lowercase
        return {remark: letters[i % 26] * (1 + i // 26) for i, remark in enumerate(remarks)}

    def marks(self, value: Value) -> str:
        return ",".join(self.notes[remark] for remark in value.remarks)

    def blocks(self) -> Iterator[tuple[Head | None, list[int]]]:
        """Indices of the rows below each heading of the upper level, which is None where there is one
        level."""
        blocks: dict[Head | None, list[int]] = {}
        for index, head in enumerate(self.rows):
            blocks.setdefault(head[0] if len(head) > 1 else None, []).append(index)
        yield from blocks.items()


class Tally(NamedTuple):
    """How many values of a table are what. published: of the measured ones."""

    places: int
    measured: int
    failed: int
    published: int
    comparable: int
    close: int
    alike: int
    helped: int
    harmed: int
    undecided: int

    @classmethod
    def of(cls, tables: Iterable[Table]) -> "Tally":
        values = [value for table in tables for value in table.values.values()]
        return cls(
            len(values),
            sum(value.measured is not None for value in values),
            sum(value.missing == "failed" for value in values),
            sum(value.measured is not None and value.published is not None for value in values),
            sum(value.comparable for value in values),
            sum(value.close for value in values),
            sum(value.alike for value in values),
            *(
                sum(value.verdict == verdict for value in values)
                for verdict in ("helped", "harmed", "undecided")
            ),
        )

    def __str__(self) -> str:
        said = [f"{self.measured} of {self.places} values measured"]
        if self.failed:
            said[0] += f", {self.failed} failed"
        if self.comparable:
            said.append(
                f"{self.close} of {self.comparable} lie within {TOLERANCE} of the published, {self.alike} within {TOLERANCE} or "
                "two standard deviations over seeds"
            )
        if other := self.published - self.comparable:
            said.append(f"{other} not compared, as they are of other images than the paper's or undefined")
        if self.helped + self.harmed + self.undecided:
            said.append(
                f"places where adaptation helped: {self.helped}, harmed: {self.harmed}, undecided: {self.undecided}"
            )
        return "; ".join(said) + "."


class Dataset(Interface):
    """What a table needs to know of a data set. released: the subset that the paper uses. subsets: to number
    of images."""

    title: str
    released: str
    subsets: Mapping[str, int | None]


class Layout(NamedTuple):
    """Where a table of the paper has what. rows, columns: fields of `Published`."""

    place: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    digits: int = 4


LAYOUTS = (
    Layout("1", "Four networks on four data sets", ("backbone", "setting"), ("dataset", "metric")),
    Layout(
        "2",
        "Rank loss, group contrastive loss (gc), and both",
        ("backbone", "setting"),
        ("dataset", "metric"),
    ),
    Layout("3", "Distortions to compare by; rank, SROCC", ("dataset",), ("setting",), 3),
    Layout("4", "Share p of the batch in each group; gc, SROCC", ("dataset",), ("setting",)),
    Layout("5", "Number of groups; gc, SROCC", ("dataset",), ("setting",)),
    Layout("6", "Parameters that adapt; rank+gc", ("backbone", "setting"), ("dataset", "metric")),
    Layout("7", "Two sources; SROCC", ("setting",), ("weights", "dataset"), 3),
    Layout("8", "DSLR, restored low-light photographs; SROCC", ("setting",), ("backbone",), 3),
)


def tables(sweep: Sweep, datasets: Mapping[str, Dataset]) -> list[Table]:
    """Tables 1 to 8. datasets: by name."""
    where = {entry.key: entry for entry in sweep.entries}
    numbers = published()
    return [
        _table(layout, [n for n in numbers if n.place == layout.place], where, sweep, datasets)
        for layout in LAYOUTS
    ]


def _table(
    layout: Layout,
    numbers: Sequence[Published],
    where: Mapping[tuple, Entry],
    sweep: Sweep,
    datasets: Mapping[str, Dataset],
) -> Table:
    rows = list(dict.fromkeys(tuple(getattr(n, field) for field in layout.rows) for n in numbers))
    columns = list(dict.fromkeys(tuple(getattr(n, field) for field in layout.columns) for n in numbers))
    values, sizes = {}, {}
    for n in numbers:
        place = (
            rows.index(tuple(getattr(n, field) for field in layout.rows)),
            columns.index(tuple(getattr(n, field) for field in layout.columns)),
        )
        entry = where[n.key]
        value = _value(
            sweep.outcome(entry), n.metric, entry.cell.method.adapts, datasets, n.value, layout.digits
        )
        values[place] = replace(value, dataset=datasets[n.dataset].title)
        if value.images is not None:
            sizes.setdefault(n.dataset, set()).add(value.images)

    def head(field: str, name: str) -> Head:
        if field == "dataset":
            return Head(datasets[name].title, _images(sizes.get(name, ())))
        if field == "weights":  # named by the network and the data set that it was trained on
            return Head(datasets[name.partition("-")[2]].title)
        titles = {"backbone": BACKBONES[name].title} if field == "backbone" else {"metric": name.upper()}
        return Head(titles.get(field, name.replace("=", " = ")))

    title = layout.title
    if "backbone" not in (*layout.rows, *layout.columns):
        title += f"; {BACKBONES[numbers[0].backbone].title}"
    if sizes and "dataset" not in (*layout.rows, *layout.columns):
        title += f"; {_images(set().union(*sizes.values()))}"
    return Table(
        f"Table {layout.place}",
        title,
        [tuple(head(field, name) for field, name in zip(layout.rows, row)) for row in rows],
        [tuple(head(field, name) for field, name in zip(layout.columns, column)) for column in columns],
        values,
    )


def _value(
    outcome: Result | Failure | None,
    metric: str,
    adapts: bool,
    datasets: Mapping[str, Dataset],
    number: float | None = None,
    digits: int = 4,
) -> Value:
    if outcome is None:
        return Value(number, digits, missing="not run")
    if isinstance(outcome, Failure):
        return Value(number, digits, missing="failed", remarks=(f"failed: {outcome.reason}",))
    found = outcome.found
    gains = metric == "srocc" and adapts
    interval = found["srocc_gain"]["interval_95"] if gains else None
    return Value(
        number,
        digits,
        found["adapted"][metric],
        found["srocc_gain"]["mean"] if gains else None,
        None if interval is None else tuple(interval),
        found["n_images"],
        remarks=tuple(_remarks(outcome, datasets)),
    )


def _remarks(result: Result, datasets: Mapping[str, Dataset]) -> Iterator[str]:
    """What keeps a result from being one on the paper's images."""
    data, limit, n = result.config["data"], result.config["limit"], result.found["n_images"]
    if limit is not None and n >= limit:
        yield f"on {n} images of the data set only (--limit-images)"
    if data["subset"] != (released := datasets[data["dataset"]].released):
        yield f"on the subset {data['subset']}; the paper's is {released}"
    whole = datasets[data["dataset"]].subsets[data["subset"]]
    if data["missing"]:
        yield f"{data['missing']} images of the data set were missing"
    elif (
        (limit is None or n < limit) and result.config["target"]["between"] is None and whole not in (None, n)
    ):
        yield f"on {_images([n])}; the data set has {whole:,}"


def _images(sizes: Iterable[int]) -> str:
    found = sorted(sizes)
    if not found:
        return ""
    return _count(found[0], "image") if len(found) == 1 else f"{found[0]:,} to {found[-1]:,} images"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def figures(sweep: Sweep, datasets: Mapping[str, Dataset]) -> list[Table]:
    """The numbers of Figures 4 to 6, none of which the paper prints."""
    makers = {"fig4": _figure_4, "fig5": _figure_5, "fig6": _figure_6}
    return [
        make([e for e in sweep.entries if e.place == place], sweep, datasets)
        for place, make in makers.items()
    ]


def _figure_4(entries: Sequence[Entry], sweep: Sweep, datasets: Mapping[str, Dataset]) -> Table:
    low, high = entries[0].target.between
    return _list(
        "Figure 4",
        f"LIVE-IQA images of similar quality, DMOS {low:g} to {high:g}; {BACKBONES[entries[0].backbone].title}",
        {
            entry.setting: _value(sweep.outcome(entry), "srocc", entry.cell.method.adapts, datasets)
            for entry in entries
        },
    )


def _list(name: str, title: str, values: Mapping[str, Value]) -> Table:
    """A table of one column."""
    size = _images({value.images for value in values.values()} - {None})
    return Table(
        name,
        title,
        [(Head(row),) for row in values],
        [(Head("SROCC", size),)],
        {(k, 0): v for k, v in enumerate(values.values())},
    )


def _figure_5(entries: Sequence[Entry], sweep: Sweep, datasets: Mapping[str, Dataset]) -> Table:
    whole = [_value(sweep.outcome(entry), "srocc", entry.cell.method.adapts, datasets) for entry in entries]
    rows = {"all types": whole}
    for column, entry in enumerate(entries):
        outcome = sweep.outcome(entry)
        if isinstance(outcome, Result):
            for kind, (measured, n) in srocc_by_type(outcome).items():
                row = rows.setdefault(
                    kind, [replace(value, measured=None, gain=None, interval=None) for value in whole]
                )
                row[column] = Value(measured=measured, images=n, remarks=whole[column].remarks)
    return Table(
        "Figure 5",
        f"Bad images of LIVE-IQA, DMOS above {entries[0].target.between[0]:g}, by type of distortion; "
        f"{BACKBONES[entries[0].backbone].title}",
        [
            (Head(kind, _images({value.images for value in row if value.measured})),)
            for kind, row in rows.items()
        ],
        [(Head(entry.setting),) for entry in entries],
        {(k, column): value for k, row in enumerate(rows.values()) for column, value in enumerate(row)},
    )


def _figure_6(entries: Sequence[Entry], sweep: Sweep, datasets: Mapping[str, Dataset]) -> Table:
    outcomes = [sweep.outcome(entry) for entry in entries]
    values = {"Baseline": Value(missing="not run")}
    done = next((outcome for outcome in outcomes if isinstance(outcome, Result)), None)
    if done is not None:
        remarks = tuple(_remarks(done, datasets))
        values["Baseline"] = Value(
            measured=done.found["source"]["srocc"], images=done.found["n_images"], remarks=remarks
        )
    for entry, outcome in zip(entries, outcomes):
        values[_count(entry.cell.method.niter, "step")] = _value(outcome, "srocc", True, datasets)
    network, dataset = BACKBONES[entries[0].backbone].title, datasets[entries[0].target.dataset].title
    return _list("Figure 6", f"Number of steps; {network} on {dataset}, rank+gc", values)


def srocc_by_type(result: Result) -> dict[str, tuple[dict, int]]:
    """SROCC, {"mean", "std"} over seeds, within each type of distortion that the data set tells, and its
    number of images."""
    scores, photographs = scores_of(result)
    mos, kinds = np.array([p.mos for p in photographs]), np.array([p.kind for p in photographs])
    found = {}
    for kind in dict.fromkeys(kinds[kinds != ""].tolist()):
        of = kinds == kind
        defined = np.ptp(mos[of]) > 0 and (np.ptp(scores.adapted[:, of], axis=1) > 0).all()
        values = [stats.spearmanr(row, mos[of])[0] for row in scores.adapted[:, of]] if defined else [None]
        over_seeds = mean_std(values)
        found[kind] = {name: over_seeds[name] for name in ("mean", "std")}, int(of.sum())
    return dict(sorted(found.items()))


def scores_of(result: Result, paths: Mapping[str, Path] | None = None) -> tuple[Scores, list[Photograph]]:
    """Scores and images of a finished cell, the images grouped by the type of their distortion. paths: of the
    images, by name, as far as they are known; "." where not."""
    file = result.folder / "scores.csv"
    frame = pd.read_csv(file, dtype={"image": str, "type": str, "distortion": str}, keep_default_na=False)
    seeds = list(result.config["seeds"])
    first = frame[frame["seed"] == seeds[0]]
    scores = Scores.empty(seeds, len(first), result.config["method"]["niter"])
    steps = [f"loss_{step + 1}" for step in range(scores.losses.shape[-1])]
    place = {kind: index for index, kind in enumerate(TYPES)}
    for row, seed in enumerate(seeds):
        own = frame[frame["seed"] == seed]
        if own["image"].tolist() != first["image"].tolist():
            raise UserError(
                f"{file}: seed {seed} is not of the images of seed {seeds[0]}: move the folder elsewhere"
            )
        scores.source[row], scores.adapted[row] = own["source_score"], own["adapted_score"]
        scores.choice[row] = own["distortion"].map(place).fillna(-1).to_numpy()
        scores.losses[row] = own[steps].to_numpy(dtype=float)
    photographs = [
        Photograph(name, (paths or {}).get(name, Path()), mos, group=kind or "all images", kind=kind)
        for name, mos, kind in zip(first["image"], first["mos"], first["type"])
    ]
    return scores, photographs


def _plain(method: Method) -> bool:
    """Whether a method is as its name says, without an ablation."""
    return replace(METHODS[method.name], adapt=method.adapt) == method


def speed(sweep: Sweep, standard: Callable[[Entry], bool]) -> dict[tuple[str, str], dict[str, float]]:
    """Images per second by (device, backbone) and method, over the cells of the methods as they are.
    standard: whether an entry has the usual protocol of its network."""
    counted: dict[tuple, list[float]] = {}
    for entry in {entry.cell.id: entry for entry in sweep.entries if standard(entry)}.values():
        outcome = sweep.outcome(entry)
        if isinstance(outcome, Result) and _plain(entry.cell.method):
            total = counted.setdefault(
                (outcome.found["environment"]["device"], entry.backbone, entry.cell.method.name), [0, 0]
            )
            total[0] += outcome.found["n_images"] * len(outcome.config["seeds"])
            total[1] += outcome.run["seconds"]
    found: dict[tuple[str, str], dict[str, float]] = {}
    for (device, backbone, method), (images, seconds) in counted.items():
        found.setdefault((device, backbone), {})[method] = images / seconds
    return found
