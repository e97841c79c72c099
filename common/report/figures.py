"""Draw the figures of a report as SVG.

What they show is in their arguments alone, and the same arguments give the same bytes.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from common.runs.results import Gain

INK, FAINT, GRID = "#222831", "#c9ced6", "#eceff3"
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8a6d3b",
    "#666666",
)
BETTER, WORSE = "#00795a", "#b3400a"
VARIABLES = {  # of report.css, which has other colours for the dark
    INK: "--ink",
    FAINT: "--axis",
    GRID: "--line",
    BETTER: "--better",
    WORSE: "--worse",
    COLOURS[0]: "--series",
}
MANY = 2000  # points that a figure draws as shapes of their own; more become one picture
STYLE: dict[Any, Any] = {  # matplotlib has a type of its own for the keys, but not in every version
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "svg.hashsalt": "figure",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # names of files may hold "$"
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def _axes(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure of width x height inches with panels side by side, which share their vertical axis."""
    figure = Figure((width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False, sharey=True)[0])


def _svg(figure: Figure) -> Markup:
    file = io.StringIO()
    with warnings.catch_warnings():
        # What matplotlib's font lacks the font of the page may have: text stays text.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # Figures of one page must not share names: a browser looks in the first, which may be folded away.
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|href="#|url\(#)(?=\w)', rf"\g<1>f{mark}_", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    return Markup(text)


def gains(rows: Sequence[tuple[str, Gain]], over: str) -> Markup:
    """Draw the gain in SROCC of each method with its 95 % interval, coloured by what it says.

    over: what the intervals resample.
    """
    colours = {"helped": BETTER, "harmed": WORSE, "undecided": INK, "": INK}
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _axes(6.4, 0.6 + 0.38 * len(rows))
        for y, (_, gain) in enumerate(rows):
            colour = colours[gain.verdict]
            if gain.interval is not None:
                axes.plot(gain.interval, (y, y), color=colour, linewidth=2, solid_capstyle="round")
            if gain.mean is not None:
                axes.plot(gain.mean, y, "o", color=colour, markersize=6)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"gain in SROCC over the source, 95 % interval over {over}")
        return _svg(figure)


def scatter(mos: np.ndarray, panels: Mapping[str, np.ndarray], groups: Sequence[str], label: str) -> Markup:
    """Draw scores against MOS.

    mos: (n,).
    panels: scores by the title of the panel, (n,) each.
    groups: of the n points, told apart by colour if they are few.
    label: what the MOS is.
    """
    names, group = np.unique(groups, return_inverse=True)
    few = 1 < len(names) <= len(COLOURS)
    size, alpha = (14, 0.75) if len(mos) <= MANY else (3, 0.3)
    with matplotlib.rc_context(STYLE):
        figure, all_axes = _axes(3.4 * len(panels), 3.2, len(panels))
        for axes, (title, scores) in zip(all_axes, panels.items()):
            for index, name in enumerate(names if few else [None]):
                chosen = group == index if few else slice(None)
                drawn = axes.scatter(
                    mos[chosen], scores[chosen], s=size, color=COLOURS[index], alpha=alpha, linewidth=0
                )
                drawn.set(label=name, rasterized=len(mos) > MANY)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel(label)
        all_axes[0].set_ylabel("score")
        if few:
            handles = all_axes[-1].get_legend_handles_labels()
            figure.legend(
                *handles, loc="outside upper right", ncols=min(len(names), 4), fontsize=8, handletextpad=0.2
            )
        return _svg(figure)


def measured_against_published(
    groups: Mapping[str, Sequence[tuple[float, float]]], tolerance: float
) -> Markup:
    """Draw measured values against published ones.

    groups: (published, measured) of every value, by the name of the group.
    tolerance: width of the band on either side of where the two are equal.
    """
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _axes(4.6, 4.2)
        points = np.array([point for pairs in groups.values() for point in pairs])
        ends = np.array([points.min() - 0.03, points.max() + 0.03])
        axes.fill_between(ends, ends - tolerance, ends + tolerance, color=FAINT, alpha=0.6, linewidth=0)
        axes.plot(ends, ends, color=FAINT, linewidth=0.8)
        for colour, (name, pairs) in zip(COLOURS, groups.items()):
            if pairs:
                published, measured = np.transpose(pairs)
                axes.scatter(published, measured, s=16, color=colour, alpha=0.8, linewidth=0, label=name)
        axes.set(xlim=ends, ylim=ends, xlabel="published", ylabel="measured", aspect="equal")
        figure.legend(fontsize=8, handletextpad=0.2, loc="outside right upper")
        return _svg(figure)


def bars(rows: Mapping[str, Mapping[str, tuple[float | None, float | None]]], y: str) -> Markup:
    """Draw a group of bars for each row, and in it a bar for each part with its standard deviation.

    rows: (mean, std) by row and part, None where there is none.
    y: label of the vertical axis.
    """
    parts = list(next(iter(rows.values())))
    width = 0.8 / len(parts)
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _axes(2.2 + 0.7 * len(rows), 2.8)
        for index, (colour, part) in enumerate(zip(COLOURS, parts)):
            x = np.arange(len(rows)) + (index - (len(parts) - 1) / 2) * width
            mean, std = (np.array([row[part][k] for row in rows.values()], dtype=float) for k in (0, 1))
            axes.bar(x, mean, width * 0.9, color=colour, label=part)
            axes.errorbar(x, mean, std, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_xticks(range(len(rows)), list(rows))
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(y)
        if len(parts) > 1:
            figure.legend(
                *axes.get_legend_handles_labels(), loc="outside upper right", ncols=len(parts), fontsize=8
            )
        return _svg(figure)


def places_gained(names: Sequence[str], gained: np.ndarray, label: str) -> Markup:
    """Draw how many places each image came nearer to its right one, sorted.

    gained: (n,). label: what the right places are by.
    """
    order = np.argsort(-gained, kind="stable")
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _axes(8.6, 2.4)
        if len(order) <= MANY / 10:
            colours = [BETTER if gained[i] > 0 else WORSE for i in order]
            axes.bar(range(len(order)), gained[order], color=colours, width=0.8)
        else:
            x = np.unique(np.linspace(0, len(order) - 1, MANY // 2).round().astype(int))
            for colour, bound in ((BETTER, np.maximum), (WORSE, np.minimum)):
                axes.fill_between(x, bound(gained[order][x], 0), color=colour, linewidth=0)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_xticks([])
        axes.margins(x=0.01)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(f"places nearer to that by\n{label}")
        ends = (0, len(order) - 1) if len(order) > 1 else (0,)
        for end, alignment in zip(ends, ("left", "right")):
            above = gained[order[end]] < 0
            axes.annotate(
                names[order[end]],
                (end, gained[order[end]]),
                xytext=(0, 3 if not above else -3),
                textcoords="offset points",
                ha=alignment,
                va="top" if above else "bottom",
                fontsize=8,
            )
        axes.margins(y=0.2)
        return _svg(figure)


def shares(rows: Mapping[str, Mapping[str, float]]) -> Markup:
    """Draw the share of every part in each row, stacked. rows: counts by row and part."""
    parts = list(next(iter(rows.values())))
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _axes(6.4, 0.8 + 0.34 * len(rows))
        left = np.zeros(len(rows))
        for colour, part in zip(COLOURS, parts):
            width = np.array([row[part] / max(1, sum(row.values())) for row in rows.values()])
            axes.barh(range(len(rows)), width, left=left, color=colour, height=0.62, label=part)
            left += width
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(visible=False)
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside upper right", ncols=len(parts), fontsize=8
        )
        return _svg(figure)


def curves(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    x: str,
    y: str,
    first: int = 1,
    level: tuple[str, float, float] | None = None,
) -> Markup:
    """Draw the mean of each line with a band of its spread on either side.

    lines: mean and spread by name, (steps,) each, NaN where there is none.
    x, y: labels of the axes.
    first: number of the first step.
    level: (name, mean, spread) of what has no steps.
    """
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _axes(5.2, 2.8)
        if level is not None:
            name, height, around = level
            axes.axhspan(height - around, height + around, color=FAINT, alpha=0.4, linewidth=0)
            axes.axhline(height, color=INK, linewidth=1, linestyle="--", label=name)
        for colour, (name, (mean, spread)) in zip(COLOURS, lines.items()):
            steps = np.arange(first, first + len(mean))
            axes.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.12, linewidth=0)
            axes.plot(steps, mean, "o-", color=colour, markersize=4, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        figure.legend(loc="outside right upper", fontsize=8)
        return _svg(figure)
