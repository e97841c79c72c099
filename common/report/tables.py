"""Lay a sweep's results out as the paper does.

A table says which value stands where, what was published there, and what was measured.
"""

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from common.report.collected import Sweep
from common.report.numbers import minus
from common.runs.folders import settings_of
from common.runs.grid import Cell, Entry, Published, published
from common.runs.results import CellResult, Failure, Gain, OverSeeds, Verdict, read_scores, signed

TOLERANCE = 0.01
TICK = "✓"


@dataclass(frozen=True)
class Value:
    """One number of a table."""

    published: float | None = None
    digits: int = 4  # of the published number, as printed
    measured: OverSeeds | None = None
    gain: Gain | None = None  # in SROCC over the source, of what adapts, where it is defined
    images: int | None = None  # that it was measured on
    missing: str = ""  # why nothing was measured, if so
    file: Path | None = None  # that says so: result.json, beside which scores.csv lies, or a failure
    remarks: tuple[str, ...] = ()  # what a reader must know, such as why it cannot be compared
    dataset: str = ""  # name of the data set

    @property
    def difference(self) -> float | None:
        """Return measured less published; None where the two are not of the same images."""
        if self.published is None or self.measured is None or self.measured.mean is None or self.remarks:
            return None
        return self.measured.mean - self.published

    @property
    def comparable(self) -> bool:
        """Return whether it was measured on the images of the paper."""
        return self.difference is not None

    @property
    def close(self) -> bool:
        """Return whether it lies within 0.01 of the published value."""
        return self._within(TOLERANCE)

    @property
    def alike(self) -> bool:
        """Return whether it lies within 0.01 or two standard deviations over seeds, whichever is more."""
        std = self.measured.std if self.measured is not None else None
        return self._within(max(TOLERANCE, 2 * (std or 0.0)))

    @property
    def verdict(self) -> Verdict:
        """Return whether adapting helped or harmed; nothing where there is no interval."""
        return "" if self.gain is None else self.gain.verdict

    @property
    def measured_text(self) -> str:
        """Write what was measured, or why nothing was."""
        return self.missing if self.measured is None else minus(self.measured.text())

    @property
    def published_text(self) -> str:
        """Write the published value as the paper prints it; nothing where it prints none."""
        return "" if self.published is None else f"{self.published:.{self.digits}f}"

    @property
    def difference_text(self) -> str:
        """Write measured less published, ticked where they agree."""
        return "" if self.difference is None else minus(signed(self.difference)) + f" {TICK}" * self.alike

    @property
    def gain_text(self) -> str:
        """Write the gain with its interval; nothing where there is none."""
        return "" if self.gain is None else minus(self.gain.text())

    def _within(self, tolerance: float) -> bool:
        return self.difference is not None and abs(self.difference) <= tolerance


class Head(NamedTuple):
    """One level of the heading of a row or column."""

    text: str
    note: str = ""  # in small print


@dataclass(frozen=True)
class Table:
    """A table of the paper, or the numbers of one of its figures."""

    name: str  # as the paper's: "Table 1"
    title: str
    rows: Sequence[tuple[Head, ...]]  # headings, of one level or two
    columns: Sequence[tuple[Head, ...]]  # the same
    values: Mapping[tuple[int, int], Value]  # by (row, column); not every place has one

    @property
    def anchor(self) -> str:
        """Return the name that a page links to it by."""
        return self.name.lower().replace(" ", "-")

    @cached_property
    def notes(self) -> dict[str, str]:
        """Return every remark on a value, and the letter that refers to it."""
        remarks = dict.fromkeys(remark for value in self.values.values() for remark in value.remarks)
        letters = string.ascii_lowercase
        return {remark: letters[i % 26] * (1 + i // 26) for i, remark in enumerate(remarks)}

    def marks(self, value: Value) -> str:
        """Return the letters of a value's remarks."""
        return ",".join(self.notes[remark] for remark in value.remarks)

    def blocks(self) -> list[tuple[Head | None, list[int]]]:
        """Return the rows' indices by the heading of the upper level, None where there is one level."""
        blocks: dict[Head | None, list[int]] = {}
        for index, head in enumerate(self.rows):
            blocks.setdefault(head[0] if len(head) > 1 else None, []).append(index)
        return list(blocks.items())

    def column_spans(self) -> list[list[tuple[Head, int]]]:
        """Return the headings of each level of the columns, and how many neighbours share each."""
        return [[(head, len(list(same))) for head, same in groupby(level)] for level in zip(*self.columns)]

    def parts(self, most: int) -> list["Table"]:
        """Return the table in parts of so many rows at most."""
        starts = range(0, len(self.rows), most)
        return [
            replace(
                self,
                name=self.name + (", continued" if start else ""),
                rows=self.rows[start : start + most],
                values={
                    (row - start, column): value
                    for (row, column), value in self.values.items()
                    if start <= row < start + most
                },
            )
            for start in starts
        ]

    @property
    def first_columns(self) -> set[int]:
        """Return the columns that a heading of an upper level begins with."""
        return {
            index
            for index, head in enumerate(self.columns)
            if len(head) > 1 and (index == 0 or head[:-1] != self.columns[index - 1][:-1])
        }

    @property
    def has_published(self) -> bool:
        """Return whether the paper prints any of its numbers."""
        return any(value.published is not None for value in self.values.values())

    @property
    def has_measured(self) -> bool:
        """Return whether any of its numbers was measured."""
        return any(value.measured is not None for value in self.values.values())


class Tally(NamedTuple):
    """How many values of some tables were measured, compare, agree, and so on."""

    values: int
    measured: int
    failed: int
    published: int  # of the measured ones
    comparable: int  # measured on the images of the paper
    close: int  # within 0.01 of the published value
    alike: int  # within 0.01 or two standard deviations of it
    helped: int
    harmed: int
    undecided: int

    @classmethod
    def of(cls, tables: Iterable[Table]) -> "Tally":
        """Count the values of some tables."""
        values = [value for table in tables for value in table.values.values()]
        return cls(
            values=len(values),
            measured=sum(value.measured is not None for value in values),
            failed=sum(value.missing == "failed" for value in values),
            published=sum(value.measured is not None and value.published is not None for value in values),
            comparable=sum(value.comparable for value in values),
            close=sum(value.close for value in values),
            alike=sum(value.alike for value in values),
            helped=sum(value.verdict == "helped" for value in values),
            harmed=sum(value.verdict == "harmed" for value in values),
            undecided=sum(value.verdict == "undecided" for value in values),
        )

    @property
    def judged(self) -> int:
        """Return the number of values whose gain has an interval."""
        return self.helped + self.harmed + self.undecided

    def __str__(self) -> str:
        parts = [f"{self.measured} of {self.values} values measured"]
        if self.failed:
            parts[0] += f", {self.failed} failed"
        if self.comparable:
            parts.append(
                f"{self.close} of {self.comparable} lie within {TOLERANCE} of the published, "
                f"{self.alike} within {TOLERANCE} or two standard deviations over seeds"
            )
        if other := self.published - self.comparable:
            parts.append(f"{other} not compared, as they are of other images than the paper's or undefined")
        if self.judged:
            parts.append(
                f"places where adaptation helped: {self.helped}, harmed: {self.harmed}, "
                f"undecided: {self.undecided}"
            )
        return "; ".join(parts) + "."


class Layout(NamedTuple):
    """What the rows and columns of a table of the paper stand for."""

    place: str  # "1" to "8"
    title: str
    rows: tuple[str, ...]  # fields of `Published`
    columns: tuple[str, ...]  # the same
    digits: int = 4  # of the published numbers


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


def paper_tables(sweep: Sweep) -> list[Table]:
    """Return Tables 1 to 8, as far as they are shown."""
    entries = {entry.key: entry for entry in sweep.entries}
    numbers = [number for number in published() if number.key in entries]
    of_tables = (
        (layout, [number for number in numbers if number.place == layout.place]) for layout in LAYOUTS
    )
    return [_paper_table(layout, own, entries, sweep) for layout, own in of_tables if own]


def _paper_table(
    layout: Layout,
    numbers: Sequence[Published],
    entries: Mapping[tuple[str, str, str, str, str], Entry],
    sweep: Sweep,
) -> Table:
    def key(number: Published, fields: Sequence[str]) -> tuple[str, ...]:
        return tuple(getattr(number, field) for field in fields)

    rows = list(dict.fromkeys(key(number, layout.rows) for number in numbers))
    columns = list(dict.fromkeys(key(number, layout.columns) for number in numbers))
    values: dict[tuple[int, int], Value] = {}
    sizes: dict[str, set[int]] = {}  # numbers of images by data set
    for number in numbers:
        value = replace(
            _value(sweep, entries[number.key], number.metric),
            published=number.value,
            digits=layout.digits,
            dataset=number.dataset,
        )
        values[rows.index(key(number, layout.rows)), columns.index(key(number, layout.columns))] = value
        if value.images is not None:
            sizes.setdefault(number.dataset, set()).add(value.images)

    def head(field: str, name: str) -> Head:
        if field == "dataset":
            return Head(sweep.title_of_dataset(name), _images(sizes.get(name, ())))
        if field == "weights":  # named by the network and the data set that it was trained on
            return Head(sweep.title_of_dataset(name.partition("-")[2]))
        if field == "backbone":
            return Head(sweep.title_of_backbone(name))
        return Head(name.upper() if field == "metric" else name.replace("=", " = "))

    title = layout.title
    if "backbone" not in (*layout.rows, *layout.columns):
        title += f"; {sweep.title_of_backbone(numbers[0].backbone)}"
    if sizes and "dataset" not in (*layout.rows, *layout.columns):
        title += f"; {_images(set().union(*sizes.values()))}"
    return Table(
        f"Table {layout.place}",
        title,
        [tuple(head(field, name) for field, name in zip(layout.rows, row)) for row in rows],
        [tuple(head(field, name) for field, name in zip(layout.columns, column)) for column in columns],
        values,
    )


def _value(sweep: Sweep, entry: Entry, metric: str) -> Value:
    """Return what was measured at a place, without the published value."""
    outcome = sweep.outcome(entry)
    if outcome is None:
        return Value(missing="not run")
    if isinstance(outcome, Failure):
        return Value(missing="failed", remarks=(f"failed: {outcome.reason}",), file=outcome.file)
    summary = outcome.summary
    has_gain = metric == "srocc" and entry.cell.method.adapts and summary.gain.mean is not None
    return Value(
        measured=summary.adapted[metric],
        gain=summary.gain if has_gain else None,
        images=summary.n_images,
        remarks=tuple(_remarks(sweep, outcome)),
        file=result_file(outcome),
    )


def result_file(result: CellResult) -> Path | None:
    """Return the file that a result was read from."""
    return result.folder and result.folder / "result.json"


def _remarks(sweep: Sweep, result: CellResult) -> Iterator[str]:
    """Say what keeps a result from being one on the paper's images."""
    data, limit, n = result.data, result.cell.limit, result.summary.n_images
    dataset, subset = sweep.paper.datasets[data["dataset"]], data["subset"]
    cut_short = limit is not None and n >= limit
    if cut_short:
        yield f"on {n} images of the data set only (--limit-images)"
    if subset != dataset.released:
        yield f"on the subset {subset}; the paper's is {dataset.released}"
    whole = dataset.subsets[subset]
    if data["missing"]:
        yield f"{data['missing']} images of the data set were missing"
    elif not cut_short and result.cell.target.between is None and whole is not None and whole != n:
        yield f"on {_images([n])}; the data set has {whole:,}"


def _images(sizes: Iterable[int]) -> str:
    """Write a number of images, or the range of several numbers; nothing for none."""
    ordered = sorted(sizes)
    if not ordered:
        return ""
    if len(ordered) == 1:
        return _count(ordered[0], "image")
    return f"{ordered[0]:,} to {ordered[-1]:,} images"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def figure_tables(sweep: Sweep) -> list[Table]:
    """Return the numbers of Figures 4 to 6, none of which the paper prints, as far as they are shown."""
    makers = {"fig4": _figure_4, "fig5": _figure_5, "fig6": _figure_6}
    of_figures = (
        (make, [entry for entry in sweep.entries if entry.place == place]) for place, make in makers.items()
    )
    return [make(sweep, own) for make, own in of_figures if own]


def _bounds(entry: Entry) -> tuple[float, float]:
    """Return the DMOS that the images of a figure lie between."""
    assert entry.target.between is not None
    return entry.target.between


def _figure_4(sweep: Sweep, entries: Sequence[Entry]) -> Table:
    low, high = _bounds(entries[0])
    network = sweep.title_of_backbone(entries[0].backbone)
    return _one_column(
        "Figure 4",
        f"LIVE-IQA images of similar quality, DMOS {low:g} to {high:g}; {network}",
        {entry.setting: _value(sweep, entry, "srocc") for entry in entries},
    )


def _one_column(name: str, title: str, values: Mapping[str, Value]) -> Table:
    """Make a table of SROCC. values: by the name of the row."""
    return Table(
        name,
        title,
        [(Head(row),) for row in values],
        [(Head("SROCC", _images({n for value in values.values() if (n := value.images) is not None})),)],
        {(index, 0): value for index, value in enumerate(values.values())},
    )


def _figure_5(sweep: Sweep, entries: Sequence[Entry]) -> Table:
    whole = [_value(sweep, entry, "srocc") for entry in entries]
    rows = {"all types": whole}
    for column, entry in enumerate(entries):
        outcome = sweep.outcome(entry)
        if isinstance(outcome, CellResult):
            for kind, (measured, n) in srocc_by_type(outcome).items():
                row = rows.setdefault(kind, [replace(value, measured=None, gain=None) for value in whole])
                known = whole[column]
                row[column] = Value(measured=measured, images=n, remarks=known.remarks, file=known.file)
    network = sweep.title_of_backbone(entries[0].backbone)
    return Table(
        "Figure 5",
        f"Bad images of LIVE-IQA, DMOS above {_bounds(entries[0])[0]:g}, by type of distortion; {network}",
        [
            (Head(kind, _images({v.images for v in row if v.measured and v.images})),)
            for kind, row in rows.items()
        ],
        [(Head(entry.setting),) for entry in entries],
        {(k, column): value for k, row in enumerate(rows.values()) for column, value in enumerate(row)},
    )


def _figure_6(sweep: Sweep, entries: Sequence[Entry]) -> Table:
    values = {"Baseline": Value(missing="not run")}
    outcomes = (sweep.outcome(entry) for entry in entries)
    finished = next((outcome for outcome in outcomes if isinstance(outcome, CellResult)), None)
    if finished is not None:  # the source's scores do not depend on the number of steps
        values["Baseline"] = Value(
            measured=finished.summary.source["srocc"],
            images=finished.summary.n_images,
            remarks=tuple(_remarks(sweep, finished)),
            file=result_file(finished),
        )
    for entry in entries:
        values[_count(entry.cell.method.niter, "step")] = _value(sweep, entry, "srocc")
    network = sweep.title_of_backbone(entries[0].backbone)
    dataset = sweep.title_of_dataset(entries[0].target.dataset)
    return _one_column("Figure 6", f"Number of steps; {network} on {dataset}, rank+gc", values)


def other_table(sweep: Sweep, results: Sequence[CellResult]) -> Table | None:
    """Return the numbers of finished cells that belong to no place of the paper; None without any."""
    rows: list[tuple[Head, ...]] = []
    values: dict[tuple[int, int], Value] = {}
    for row, result in enumerate(results):
        cell, summary = result.cell, result.summary
        target = sweep.title_of_dataset(cell.target.dataset) + str(cell.target).removeprefix(
            cell.target.dataset
        )
        facts = (
            f"protocol {cell.protocol.name}",
            _count(len(cell.seeds), "seed"),
            _images([summary.n_images]),
            settings_of(cell).replace(";", ","),
            f"batches of {cell.batch_size}" if cell.batch_size != Cell.batch_size else "",
            f"cell {cell.id}",
        )
        rows.append(
            (
                Head(f"{sweep.title_of_backbone(cell.backbone)}, {cell.weights}, on {target}"),
                Head(cell.method.name, ", ".join(filter(None, facts))),
            )
        )
        for column, (metrics, name) in enumerate(
            (metrics, name) for metrics in (summary.source, summary.adapted) for name in ("srocc", "plcc")
        ):
            adapts = column > 1 and cell.method.adapts
            if column < 2 or adapts:
                gain = summary.gain if adapts and name == "srocc" and summary.gain.mean is not None else None
                values[row, column] = Value(
                    measured=metrics[name], gain=gain, images=summary.n_images, file=result_file(result)
                )
    columns = [(Head(which), Head(name)) for which in ("Source", "Adapted") for name in ("SROCC", "PLCC")]
    title = "Finished cells that belong to no place of the paper"
    return Table("Other results", title, rows, columns, values) if rows else None


def srocc_by_type(result: CellResult) -> dict[str, tuple[OverSeeds, int]]:
    """Return SROCC within each type of distortion that the data set tells, and its number of images."""
    scores, photographs = read_scores(result)
    mos = np.array([photograph.mos for photograph in photographs])
    kinds = np.array([photograph.kind for photograph in photographs])
    by_type = {}
    for kind in sorted(set(kinds[kinds != ""].tolist())):
        members = kinds == kind
        own = scores.adapted[:, members]
        defined = np.ptp(mos[members]) > 0 and (np.ptp(own, axis=1) > 0).all()
        values = [float(stats.spearmanr(row, mos[members])[0]) if defined else None for row in own]
        by_type[kind] = OverSeeds(tuple(values)), int(members.sum())
    return by_type
