"""The parts of a report that show what adaptation did, as HTML: from results that one cell or a sweep has."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby

import numpy as np

from common.distortions import TYPES
from common.photographs import Photograph
from common.report import figures
from common.report.page import figure, signed, table, thumbnail
from common.report.tables import TOLERANCE, Head, Table, Tally, Value
from common.report.text import between, change, difference, printed
from common.runs.cell import Scores, with_std
from common.runs.metrics import places_gained
from common.system.errors import UserError

SIGNS = {"helped": "▲", "harmed": "▼", "undecided": "○", "": ""}
LEGEND = (
    '<ul class="legend"><li><b>0.652 ± 0.004</b> measured here: mean and standard deviation over seeds</li>'
    "<li><b>0.6520 · +0.002 ✓</b> the published value, and how far the measured one is above it; ✓ where they differ by at most "
    f"{TOLERANCE} or two standard deviations, whichever is more</li>"
    "<li><b>▲ +0.043 [+0.020, +0.066]</b> what adapting gains in SROCC over the source on the same views, with its paired "
    '95 % bootstrap interval over images: <span class="helped">▲ above zero</span>, <span class="harmed">▼ below zero</span>, '
    "○ holding zero</li>"
    "<li><b>—</b> not run; a letter, as in <b>failed<sup>a</sup></b>, stands for a remark below the table</li></ul>"
)


def methods(results: Mapping[str, dict]) -> str:
    """Metrics of every method beside the source's. results: method to `common.runs.cell.summary`."""
    source = next(iter(results.values()))["source"]
    rows = [["source", with_std(source["srocc"]), with_std(source["plcc"]), "", ""]]
    for name, result in results.items():
        gain, interval = result["srocc_gain"]["mean"], result["srocc_gain"]["interval_95"]
        between = "" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"
        rows.append(
            [
                escape(name),
                with_std(result["adapted"]["srocc"]),
                with_std(result["adapted"]["plcc"]),
                "" if gain is None else signed(gain),
                between,
            ]
        )
    listed = [
        (name, result["srocc_gain"]["mean"], result["srocc_gain"]["interval_95"])
        for name, result in results.items()
        if result["srocc_gain"]["mean"] is not None
    ]
    caption = "Orange or green where the interval leaves out zero; else it is not known whether the method helps or hurts here."
    return table(("method", "SROCC", "PLCC", "gain in SROCC", "95 % interval"), rows) + figure(
        figures.gains(listed), caption
    )


def verdict(results: Mapping[str, dict]) -> str:
    """In words, which methods help, which hurt, and of which it cannot be told."""
    said = {"helps": [], "hurts": [], "cannot be told from nothing": []}
    for name, result in results.items():
        interval = result["srocc_gain"]["interval_95"]
        if interval is not None:
            low, high = interval
            said["helps" if low > 0 else "hurts" if high < 0 else "cannot be told from nothing"].append(name)
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in said.items() if names)


def scatter(scores: Scores, photographs: Sequence[Photograph], label: str) -> str:
    """Score against MOS before and after, averaged over seeds."""
    mos = np.array([photograph.mos for photograph in photographs])
    panels = {"source": scores.source.mean(0), "adapted": scores.adapted.mean(0)}
    drawn = figures.scatter(mos, panels, [photograph.group for photograph in photographs], label)
    return figure(drawn, "Each point an image, its score averaged over seeds.")


def strips(scores: Scores, photographs: Sequence[Photograph], label: str, shown: int = 6) -> str:
    """Of every group `shown` images in the order of their MOS, each with its score before and after."""
    mos = np.array([photograph.mos for photograph in photographs])
    gained = places_gained(scores.source, scores.adapted, mos)
    before, after = scores.source.mean(0), scores.adapted.mean(0)
    parts = []
    for group in dict.fromkeys(photograph.group for photograph in photographs):
        members = sorted((i for i, p in enumerate(photographs) if p.group == group), key=lambda i: -mos[i])
        picked = [members[round(k)] for k in np.linspace(0, len(members) - 1, min(shown, len(members)))]
        cells = (
            thumbnail(
                photographs[i].path,
                f"{escape(label)} {mos[i]:.3g}<br>{before[i]:.3f} → {after[i]:.3f}<br>{signed(gained[i], 1)} places",
            )
            for i in picked
        )
        parts.append(f'<div class="strip">{"".join(cells)}</div>')
    return "\n".join(parts)


def places(scores: Scores, photographs: Sequence[Photograph]) -> str:
    """Which images came nearer to their place, and which went away from it."""
    gained = places_gained(
        scores.source, scores.adapted, np.array([photograph.mos for photograph in photographs])
    )
    better, worse = int((gained > 0).sum()), int((gained < 0).sum())
    drawn = figures.places([photograph.key for photograph in photographs], gained)
    return figure(
        drawn,
        f"{better} of {len(gained)} images came nearer to the place that their MOS gives them, {worse} went away.",
    )


def chosen(scores: Scores, photographs: Sequence[Photograph]) -> str:
    """How often each distortion type was chosen, per group."""
    groups = np.array([photograph.group for photograph in photographs])
    names = list(dict.fromkeys(groups.tolist()))
    few = (
        {name: scores.choice[:, groups == name] for name in names}
        if len(names) <= 12
        else {"all": scores.choice}
    )
    rows = {
        name: {kind: int((drawn == index).sum()) for index, kind in enumerate(TYPES)}
        for name, drawn in few.items()
    }
    return figure(
        figures.shares(rows),
        "The type whose strong and weak copies the source scores most differently: the rank loss compares the image with those.",
    )


def losses(found: Mapping[str, Scores]) -> str:
    """Loss at each step, of every method that has one."""
    lines = {}
    for name, scores in found.items():
        values = scores.losses.reshape(-1, scores.losses.shape[-1])
        if values.size and np.isfinite(values).any() and np.nanmax(values) > 0:
            lines[name] = np.nanmean(values, 0), np.nanstd(values, 0)
    return figure(
        figures.curves(lines, "step", "loss"),
        "Mean over the episodes, and one standard deviation on either side.",
    )


def extremes(scores: Scores, photographs: Sequence[Photograph], label: str, shown: int = 6) -> str:
    """The images that came nearer to their place the most, and those that went away the most: as thumbnails
    where the files of all of them can be read, else by name."""
    mos = np.array([photograph.mos for photograph in photographs])
    gained = places_gained(scores.source, scores.adapted, mos)
    before, after = scores.source.mean(0), scores.adapted.mean(0)
    order = np.argsort(-gained, kind="stable")
    parts = []
    for title, picked in (
        ("Gained most places", [i for i in order[:shown] if gained[i] > 0]),
        ("Lost most places", [i for i in order[::-1][:shown] if gained[i] < 0]),
    ):
        rows = [
            (
                escape(photographs[i].key),
                f"{mos[i]:.4g}",
                f"{before[i]:.3f} → {after[i]:.3f}",
                signed(gained[i], 1),
            )
            for i in picked
        ]
        if not rows:
            continue
        try:
            captions = (
                f"{name}<br>{escape(label)} {value}<br>{scores_then}<br>{places} places"
                for name, value, scores_then, places in rows
            )
            cells = [
                thumbnail(photographs[i].path, caption, side=200) for i, caption in zip(picked, captions)
            ]
            drawn = f'<div class="strip">{"".join(cells)}</div>'
        except UserError:
            drawn = table(("image", label, "score", "places"), rows)
        parts.append(f"<div><h3>{title}</h3>{drawn}</div>")
    return f'<div class="pair">{"".join(parts)}</div>'


def numbers(shown: Table) -> str:
    """A table in the layout of the paper: measured, published, difference, gain."""
    *above, names = zip(*shown.columns)
    edges = {k for heads in above for k, head in enumerate(heads) if k == 0 or head != heads[k - 1]}
    head = []
    for heads in above:
        spans = ((one, len(list(group))) for one, group in groupby(heads))
        head.append("".join(f'<th class="span first" colspan="{n}">{_head(one)}</th>' for one, n in spans))
    head.append(
        "".join(f"<th{' class=first' * (k in edges)}>{_head(one)}</th>" for k, one in enumerate(names))
    )
    body = []
    for upper, rows in shown.blocks():
        if upper is not None:
            body.append(f'<tr class="group"><th>{_head(upper)}</th><td colspan="{len(names)}"></td></tr>')
        for row in rows:
            cells = (_value(shown, shown.values.get((row, k)), k in edges) for k in range(len(names)))
            body.append(f"<tr><th>{_head(shown.rows[row][-1])}</th>{''.join(cells)}</tr>")
    of_paper = any(value.published is not None for value in shown.values.values())
    key = "".join(
        f"<small>{line}</small>" for line in ("measured", *["published · diff."] * of_paper, "gain [95 %]")
    )
    top = f'<tr><th rowspan="{len(head)}">{key}</th>{head[0]}</tr>' + "".join(
        f"\n<tr>{cells}</tr>" for cells in head[1:]
    )
    lines = "\n".join(body)
    remarks = "".join(f"<li><b>{mark}</b> {escape(remark)}</li>" for remark, mark in shown.notes.items())
    found = f'<div class="scroll"><table class="paper">\n<thead>\n{top}\n</thead>\n<tbody>\n{lines}\n</tbody></table></div>'
    return f"<div>{found}" + f'<ul class="remarks note">{remarks}</ul>' * bool(remarks) + "</div>"


def _head(head: Head) -> str:
    return escape(head.text) + (f"<small>{escape(head.note)}</small>" if head.note else "")


def _value(shown: Table, value: Value | None, first: bool) -> str:
    if value is None:
        return "<td></td>"
    mark = f"<sup>{shown.marks(value)}</sup>" if value.remarks else ""
    if value.measured is None:
        said = f"{'—' if value.missing == 'not run' else escape(value.missing)}{mark}"
    elif value.measured["std"] is None:
        said = f"{with_std(value.measured)}{mark}"
    else:
        said = "{} <i>± {}</i>".format(*with_std(value.measured).split(" ± ")) + mark
    lines = [f'<span class="said">{said}</span>']
    if value.published is not None:
        lines.append(
            f'<span class="then">{" · ".join(filter(None, (printed(value), difference(value))))}</span>'
        )
    if value.gain is not None:
        interval = "" if value.interval is None else f" [{between(value.interval)}]"
        lines.append(f'<span class="gain">{SIGNS[value.verdict]} {change(value.gain)}{interval}</span>')
    return f'<td class="{value.verdict}{" first" * first}">{"".join(lines)}</td>'


def overview(tables: Iterable[Table]) -> str:
    """What each table comes to, with a link to it."""
    rows = []
    for one in tables:
        tally = Tally.of([one])
        rows.append(
            [
                f'<a href="#{one.anchor}">{escape(one.name)}</a>',
                escape(one.title),
                f"{tally.measured} of {tally.places}",
                f"{tally.failed or ''}",
                *(
                    f"{n} of {tally.comparable}" if tally.comparable else "—"
                    for n in (tally.close, tally.alike)
                ),
                *(f"{n or ''}" for n in (tally.helped, tally.harmed, tally.undecided)),
            ]
        )
    within = f"within {TOLERANCE}"
    header = ("", "", "measured", "failed", within, "or 2 std", "▲ helped", "▼ harmed", "○ undecided")
    return table(header, rows, "glance")
