"""The parts of a report that show what adaptation did, as HTML: from results that one cell or a sweep has."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from common import figures
from common.batches import Photograph
from common.cell import Scores, with_std
from common.distortions import TYPES
from common.metrics import places_gained
from common.page import figure, signed, table, thumbnail


def methods(results: Mapping[str, dict]) -> str:
    """Metrics of every method beside the source's. results: method to `common.cell.summary`."""
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
    return table(("method", "SROCC", "PLCC", "gain in SROCC", "95 % interval"), rows) + figure(figures.gains(listed), caption)


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
    gained = places_gained(scores.source, scores.adapted, np.array([photograph.mos for photograph in photographs]))
    better, worse = int((gained > 0).sum()), int((gained < 0).sum())
    drawn = figures.places([photograph.key for photograph in photographs], gained)
    return figure(
        drawn,
        f"{better} of {len(gained)} images came nearer to the place that their MOS gives them, {worse} went away.",
    )


def chosen(scores: Scores, photographs: Sequence[Photograph]) -> str:
    """How often each distortion type was chosen, per group."""
    groups = [photograph.group for photograph in photographs]
    rows = {}
    for group in dict.fromkeys(groups):
        drawn = scores.choice[:, [i for i, other in enumerate(groups) if other == group]]
        rows[group] = {kind: int((drawn == index).sum()) for index, kind in enumerate(TYPES)}
    if len(rows) > 12:
        rows = {"all": {kind: sum(row[kind] for row in rows.values()) for kind in TYPES}}
    return figure(
        figures.shares(rows),
        "The type whose strong and weak copies the source scores most differently: the rank loss compares the image with those.",
    )


def losses(found: Mapping[str, Scores]) -> str:
    """Loss at each step, of every method that has one."""
    lines = {name: scores.losses.reshape(-1, scores.losses.shape[-1]) for name, scores in found.items()}
    lines = {
        name: values for name, values in lines.items() if values.size and np.isfinite(values).any() and np.nanmax(values) > 0
    }
    return figure(figures.curves(lines, "step", "loss"), "Mean over the episodes, and one standard deviation on either side.")
