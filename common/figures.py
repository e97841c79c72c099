"""Figures of a report as SVG: what they show is in their arguments, and they come out the same every time."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

INK, FAINT = "#222831", "#c9ced6"
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
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "svg.hashsalt": "figure",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff3",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def _axes(width: float, height: float, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False, **options)[0]


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def gains(rows: Sequence[tuple[str, float, tuple[float, float] | None]]) -> str:
    """Gain in SROCC of each method with its 95 % interval. rows: (name, gain, interval)."""
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _axes(6.4, 0.6 + 0.38 * len(rows))
        for y, (_, gain, interval) in enumerate(rows):
            colour = INK if interval is None or interval[0] <= 0 <= interval[1] else BETTER if gain > 0 else WORSE
            if interval is not None:
                axes.plot(interval, (y, y), color=colour, linewidth=2, solid_capstyle="round")
            axes.plot(gain, y, "o", color=colour, markersize=6)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("gain in SROCC over the source, 95 % interval over images")
        return _svg(figure)


def scatter(mos: np.ndarray, panels: Mapping[str, np.ndarray], groups: Sequence[str], label: str) -> str:
    """Scores against MOS, one panel each: title to scores, (n,). groups: of the points, told apart by colour if they are few.
    label: what the MOS is."""
    names = sorted(set(groups))
    few = 1 < len(names) <= len(COLOURS)
    with matplotlib.rc_context(STYLE):
        figure, all_axes = _axes(3.4 * len(panels), 3.2, len(panels), sharey=True)
        for axes, (title, scores) in zip(all_axes, panels.items()):
            for colour, name in zip(COLOURS, names if few else [None]):
                chosen = np.array([name is None or group == name for group in groups])
                axes.scatter(mos[chosen], scores[chosen], s=14, color=colour, alpha=0.75, linewidth=0, label=name)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel(label)
        all_axes[0].set_ylabel("score")
        if few:
            all_axes[-1].legend(fontsize=8, handletextpad=0.2)
        return _svg(figure)


def places(names: Sequence[str], gained: np.ndarray) -> str:
    """Places that each image gained or lost, sorted. gained: (n,)."""
    order = np.argsort(-gained, kind="stable")
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _axes(8.6, 2.4)
        colours = [BETTER if gained[i] > 0 else WORSE for i in order]
        axes.bar(range(len(order)), gained[order], color=colours, width=0.8)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_xticks([])
        axes.margins(x=0.01)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel("places nearer to MOS rank")
        ends = (0, len(order) - 1) if len(order) > 1 else (0,)
        for end, side in zip(ends, ("left", "right")):
            above = gained[order[end]] < 0
            axes.annotate(
                names[order[end]],
                (end, gained[order[end]]),
                xytext=(0, 3 if not above else -3),
                textcoords="offset points",
                ha=side,
                va="top" if above else "bottom",
                fontsize=8,
            )
        axes.margins(y=0.2)
        return _svg(figure)


def shares(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Of each row the share of every part, stacked: row to part to count."""
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
        axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
        axes.grid(visible=False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=len(parts), fontsize=8)
        return _svg(figure)


def curves(lines: Mapping[str, np.ndarray], x: str, y: str, first: int = 1) -> str:
    """Mean and spread of each line over its rows. lines: name to (rows, steps). first: number of the first step."""
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _axes(5.2, 2.8)
        for colour, (name, values) in zip(COLOURS, lines.items()):
            steps = np.arange(first, first + values.shape[1])
            mean, spread = np.nanmean(values, 0), np.nanstd(values, 0)
            axes.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.12, linewidth=0)
            axes.plot(steps, mean, "o-", color=colour, markersize=4, label=name)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.legend(fontsize=8)
        return _svg(figure)
