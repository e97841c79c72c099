"""Gather what the HTML page of a sweep shows, part by part, and what its text files begin with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from common.report import figures, sections
from common.report.collected import (
    Sweep,
    environments,
    images_per_second,
    results_without_place,
)
from common.report.numbers import minus
from common.report.page import Drawing, relative_url, render
from common.report.tables import (
    TICK,
    TOLERANCE,
    Table,
    Tally,
    figure_tables,
    other_table,
    paper_tables,
    result_file,
)
from common.runs.grid import MAIN, Cell, place_name
from common.runs.results import CellResult, OverSeeds, read_scores
from common.system.errors import shown

TITLE = "TTA-IQA: published and measured"
OWN_METHOD = "TTA-IQA"  # what Table 1 calls both losses together

# The images of a data set's subset that are on this machine, by name: (data set, subset) -> paths.
ImagePaths = Callable[[str, str], Mapping[str, Path]]


class Remark(NamedTuple):
    """What a reader should know of the whole."""

    text: str
    options: str = ""  # of the command that shows more, if any


class Header(NamedTuple):
    """What says how far the sweep is."""

    tiles: Sequence[tuple[str, str]]  # numbers to be seen first, and what they are
    done: float  # share of the cells, 0 to 1
    failed: float  # the same
    origin: str  # variant, code, packages and devices
    remarks: Sequence[Remark]


class Section(NamedTuple):
    """A part of the page."""

    layout: str  # the macro of sections.html.j2 that it is laid out by
    anchor: str
    title: str
    content: Any  # what the macro takes; a section without any is left out
    note: str = ""  # beside the title in small print


class Overview(NamedTuple):
    """What the tables come to."""

    tallies: Sequence[tuple[Table, Tally]]
    drawing: Drawing | None  # all measured values against the published ones
    tolerance: float


class TableWithTally(NamedTuple):
    """A table of the paper."""

    table: Table
    tally: Tally


class TableWithDrawing(NamedTuple):
    """A figure of the paper: its numbers, and a drawing once there are any."""

    table: Table
    drawing: Drawing | None


class CellImages(NamedTuple):
    """What adaptation did to the images of one cell."""

    title: str
    file: Path | None  # of its result, beside which its scores lie
    label: str  # what the MOS is
    before: str  # SROCC of the source
    after: str  # SROCC after adapting
    scatter: Drawing
    places_gained: Drawing
    distortions: Drawing
    losses: Drawing
    extremes: Sequence[sections.Extremes]


class Speeds(NamedTuple):
    """Images per second."""

    methods: list[str]
    rows: list[tuple[str, list[str]]]  # a network and a device, and the number for each method


class Inputs(NamedTuple):
    """What the results were made from."""

    data: list[tuple[str, ...]]  # data set, subset, score, direction, missing images, label file
    weights: list[tuple[str, str, str]]  # source, file, SHA-256


class Report(NamedTuple):
    """What is shown of a sweep."""

    sweep: Sweep
    others: Sequence[Sweep]  # of other variants in its folder
    tables: Sequence[Table]
    figures: Sequence[Table]  # their numbers
    without_place: Table | None  # the finished cells that belong to no place of the paper

    @classmethod
    def of(cls, sweep: Sweep, others: Sequence[Sweep]) -> "Report":
        """Gather the tables."""
        left = results_without_place(sweep.results, [sweep, *others])
        return cls(sweep, others, paper_tables(sweep), figure_tables(sweep), other_table(sweep, left))

    @property
    def all_tables(self) -> list[Table]:
        """Return all that there is in tables: the paper's first, if any of it was measured."""
        beside = [] if self.without_place is None else [self.without_place]
        own = [*self.tables, *self.figures]
        return [*own, *beside] if self.sweep.known else [*beside, *own]


def report_page(report: Report, image_paths: ImagePaths, folder: Path) -> str:
    """Return the page of a sweep, as HTML.

    image_paths: where the images are, for thumbnails.
    folder: in which the page will lie.
    """
    sweep = report.sweep
    command = f"python -m scripts.report RESULTS --out DIR {sweep.variant.options}{sweep.paper.options}"
    parts = [
        Section("overview", "glance", "At a glance", _overview(report)),
        *(
            Section(
                "figure_and_numbers" if table in report.figures else "numbers",
                table.anchor,
                table.name,
                _with_drawing(table) if table in report.figures else TableWithTally(table, Tally.of([table])),
                table.title,
            )
            for table in report.all_tables
        ),
        Section(
            "images",
            "images",
            "Images before and after",
            list(_cell_images(sweep, image_paths)),
            "both losses, networks and data sets of Table 1",
        ),
        Section("failures", "failures", "Failures", _failures(sweep)),
        Section("speeds", "speed", "Images per second", _speeds(sweep)),
        Section("inputs", "inputs", "Data and checkpoints", _inputs(sweep)),
        Section("command", "made", "How this was made", command),
    ]
    return render(
        "sweep.html.j2",
        title=TITLE,
        header=_header(sweep, report.others),
        sections=[part for part in parts if part.content],
        link=partial(relative_url, folder=folder),
    )


def introduction(report: Report) -> list[str]:
    """Return the paragraphs before the tables of a text file: progress, tally, legend, remarks."""
    return [
        progress(report.sweep),
        str(Tally.of(report.tables)),
        "A value is mean and standard deviation over seeds. Below it: the published value, and the "
        f"difference from it, {TICK} where that is at most {TOLERANCE} or two standard deviations; the gain "
        "in SROCC over the source on the same views, with its paired 95 % bootstrap interval over images. "
        "The paper prints no numbers for its figures.",
        *(" ".join(filter(None, remark)) for remark in _remarks(report.sweep, report.others)),
    ]


def progress(sweep: Sweep) -> str:
    """Say how far the sweep is."""
    done, failed, total = len(sweep.done), len(sweep.failed), len(sweep.ids)
    left = total - done - failed
    what = "; ".join(filter(None, (str(sweep.variant), sweep.paper.restriction)))
    return f"{done} of {total} cells finished, {failed} failed, {left} not run; {what}."


def _header(sweep: Sweep, others: Sequence[Sweep]) -> Header:
    done, failed, total = len(sweep.done), len(sweep.failed), len(sweep.ids)
    images = sum(result.summary.n_images * len(result.cell.seeds) for result in sweep.done)
    seconds = sum(result.seconds for result in sweep.done)
    tiles = [
        (f"{done} of {total}", "cells finished"),
        (str(failed), "cells failed"),
        (str(total - done - failed), "cells not run"),
        (f"{images:,}", "images scored, over all cells and seeds"),
        (_duration(seconds), "of computing, over all cells"),
    ]
    origin = "; ".join(filter(None, (str(sweep.variant), sweep.paper.restriction, _made_with(sweep))))
    return Header(tiles, done / total, failed / total, origin, _remarks(sweep, others))


def _duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _made_with(sweep: Sweep) -> str:
    """Name the code, the packages and the devices of the results."""
    parts = []
    for name, before in (("commit", "code "), ("torch", "torch "), ("device", "on ")):
        values = sorted(environments(sweep, name))
        parts += [before + " and ".join(values)] * bool(values)
    return ", ".join(parts)


def _remarks(sweep: Sweep, others: Sequence[Sweep]) -> list[Remark]:
    """List what a reader should know of the whole."""
    remarks = []
    if sweep.variant.limit is not None:
        remarks.append(
            Remark(
                f"At most {sweep.variant.limit} images of each data set were scored. That tells whether "
                "everything runs, not how well: such values are marked, and not compared with the paper's."
            )
        )
    for other in others:
        cells = len(other.known - sweep.known)
        text = f"The folder also holds {cells} cells of another variant, {other.variant}:"
        remarks.append(Remark(text, other.variant.options))
    if incomplete := sweep.results.incomplete:
        text = f"Without all of their files, and not counted: {shown(incomplete)}. A sweep makes them again."
        remarks.append(Remark(text))
    for what, name in (("versions of the code", "commit"), ("devices", "device")):
        counts = environments(sweep, name)
        if len(counts) > 1:
            listed = ", ".join(f"{value} ({n} cells)" for value, n in sorted(counts.items()))
            remarks.append(Remark(f"Several {what}: {listed}."))
    return remarks


def _overview(report: Report) -> Overview:
    tallies = [(table, Tally.of([table])) for table in (*report.tables, *report.figures)]
    return Overview(tallies, _measured_against_published(report.sweep, report.tables), TOLERANCE)


def _measured_against_published(sweep: Sweep, tables: Sequence[Table]) -> Drawing | None:
    """Draw all values that compare; return None where there are none."""
    main = {target.dataset: sweep.title_of_dataset(target.dataset) for target in MAIN}
    points: dict[str, list[tuple[float, float]]] = {title: [] for title in (*main.values(), "others")}
    for table in tables:
        for value in table.values.values():
            mean = value.measured.mean if value.measured is not None else None
            if value.comparable and value.published is not None and mean is not None:
                points[main.get(value.dataset, "others")].append((value.published, mean))
    if not any(points.values()):
        return None
    caption = f"Every value of Tables 1 to 8 that compares; the band is {TOLERANCE} wide on either side."
    return Drawing(figures.measured_against_published(points, TOLERANCE), caption)


def _with_drawing(table: Table) -> TableWithDrawing:
    if not table.has_measured:
        return TableWithDrawing(table, None)
    svg = _curve(table) if table.name == "Figure 6" else _bars(table)
    return TableWithDrawing(table, Drawing(svg, "Mean and standard deviation over seeds."))


def _bars(table: Table) -> Markup:
    """Draw Figure 4 or 5 as it is in the paper."""
    unmeasured = OverSeeds((None,))
    rows: dict[str, dict[str, tuple[float | None, float | None]]] = {}
    for i, row in enumerate(table.rows):
        cells = rows.setdefault(row[-1].text, {})
        for k, column in enumerate(table.columns):
            measured = table.values[i, k].measured or unmeasured
            cells[column[-1].text] = measured.mean, measured.std
    return figures.bars(rows, "SROCC")


def _curve(table: Table) -> Markup:
    """Draw Figure 6 as it is in the paper."""
    measured = [table.values[row, 0].measured for row in range(len(table.rows))]
    mean = np.array([np.nan if m is None or m.mean is None else m.mean for m in measured])
    std = np.array([0.0 if m is None or m.std is None else m.std for m in measured])
    level = None if np.isnan(mean[0]) else ("Baseline", float(mean[0]), float(std[0]))
    return figures.curves({"rank+gc": (mean[1:], std[1:])}, "steps", "SROCC", level=level)


def _cell_images(sweep: Sweep, image_paths: ImagePaths) -> Iterator[CellImages]:
    """Show what both losses did to the images, for every network and data set of Table 1."""
    paths = cache(image_paths)
    for entry in sweep.entries:
        result = sweep.outcome(entry)
        if entry.place != "1" or entry.setting != OWN_METHOD or not isinstance(result, CellResult):
            continue
        dataset = sweep.paper.datasets[entry.target.dataset]
        scores, photographs = read_scores(result, paths(entry.target.dataset, result.data["subset"]))
        label = result.data["score_column"] + ("" if dataset.larger_is_better else ", negated")
        yield CellImages(
            title=f"{entry.weights} on {dataset.title}",
            file=result_file(result),
            label=label,
            before=minus(result.summary.source["srocc"].text()),
            after=minus(result.summary.adapted["srocc"].text()),
            scatter=sections.scatter(scores, photographs, label),
            places_gained=sections.places_gained(scores, photographs, label),
            distortions=sections.distortions_chosen(scores, photographs),
            losses=sections.losses({entry.cell.method.name: scores}),
            extremes=list(sections.extremes(scores, photographs)),
        )


def _failures(sweep: Sweep) -> dict[str, list[str]]:
    """List the cells that failed and their places in the paper, by the reason."""
    places: dict[str, list[str]] = {}
    for entry in sweep.entries:
        places.setdefault(entry.cell.id, []).append(f"{place_name(entry.place)}, {entry.setting}")
    reasons: dict[str, list[str]] = {}
    for name, failure in sweep.results.failed.items():
        if name not in places and sweep.paper.places is not None:
            continue
        where = "; ".join(places.get(name, ["not in this variant of the paper's tables"]))
        reasons.setdefault(failure.reason, []).append(f"{_cell_title(failure.cell)} ({where})")
    return reasons


def _cell_title(cell: Cell) -> str:
    return f"{cell.weights} on {cell.target}: {cell.method.name}"


def _speeds(sweep: Sweep) -> Speeds | None:
    speeds = images_per_second(sweep)
    if not speeds:
        return None
    methods = list(dict.fromkeys(method for row in speeds.values() for method in row))

    def text(speed: float | None) -> str:
        return "—" if speed is None else f"{speed:,.{0 if speed >= 10 else 1}f}"

    rows = [
        (f"{backbone}, {device}", [text(row.get(method)) for method in methods])
        for (device, backbone), row in speeds.items()
    ]
    return Speeds(methods, rows)


def _inputs(sweep: Sweep) -> Inputs | None:
    if not sweep.done:
        return None
    data: dict[tuple[str, ...], str] = {}
    weights: dict[tuple[str, str, str], None] = {}
    for result in sweep.done:
        used = (
            str(result.data[key]) for key in ("dataset", "subset", "score_column", "direction", "missing")
        )
        data[tuple(used)] = Path(result.data["label_file"]).name
        weights[result.cell.weights, Path(result.weights["file"]).name, result.weights["sha256"]] = None
    return Inputs(
        [(sweep.title_of_dataset(name), *more, label_file) for (name, *more), label_file in data.items()],
        list(weights),
    )
