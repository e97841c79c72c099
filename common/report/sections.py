"""Gather what a page shows of one cell: figures, and what adaptation did to single images."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from common.distortions import TYPES
from common.photographs import Photograph
from common.report import figures
from common.report.page import Drawing, Thumbnail, thumbnail
from common.runs import metrics
from common.runs.results import Scores, Summary
from common.system.errors import UserError

MOST_GROUPS = 12  # that the distortion types are counted for one by one


class ImageChange(NamedTuple):
    """What adaptation did to one image."""

    name: str
    mos: float
    before: float  # score by the source, averaged over seeds
    after: float  # score after adapting, likewise
    places_gained: float  # how many it came nearer to the place that its MOS gives it
    thumbnail: Thumbnail | None = None


class Extremes(NamedTuple):
    """The images that adaptation changed most, one way or the other."""

    title: str
    images: Sequence[ImageChange]  # all with a thumbnail, or none


def verdicts(summaries: Mapping[str, Summary]) -> str:
    """Say which methods help, which hurt, which change nothing, and of which it cannot be told."""
    words = {"helped": "helps", "harmed": "hurts", "undecided": "cannot be told from nothing"}
    moved = [name for name, summary in summaries.items() if summary.gain.interval != (0, 0)]
    parts = []
    for verdict, words_of in words.items():
        names = [name for name in moved if summaries[name].gain.verdict == verdict]
        if names:
            parts.append(f"{words_of}: {', '.join(names)}")
    if still := [name for name in summaries if name not in moved]:
        parts.append(f"changes nothing: {', '.join(still)}")
    return "; ".join(parts)


def gains(summaries: Mapping[str, Summary], over: str) -> Drawing:
    """Draw what each method gains over the source. over: what the intervals resample."""
    defined = [(name, summary.gain) for name, summary in summaries.items() if summary.gain.mean is not None]
    return Drawing(
        figures.gains(defined, over),
        "Green where the method helps and red where it hurts, by an interval that leaves out zero; black "
        "where this cannot be told.",
    )


def scatter(scores: Scores, photographs: Sequence[Photograph], label: str) -> Drawing:
    """Draw score against MOS before and after. label: what the MOS is."""
    panels = {"source": scores.source.mean(0), "adapted": scores.adapted.mean(0)}
    groups = [photograph.group for photograph in photographs]
    return Drawing(
        figures.scatter(_mos(photographs), panels, groups, label),
        "Each point an image, its score averaged over seeds.",
    )


def places_gained(scores: Scores, photographs: Sequence[Photograph], label: str) -> Drawing:
    """Draw which images came nearer to their place, and which went away from it. label: what the MOS is."""
    gained = metrics.places_gained(scores.source, scores.adapted, _mos(photographs))
    better, worse = int((gained > 0).sum()), int((gained < 0).sum())
    return Drawing(
        figures.places_gained([photograph.key for photograph in photographs], gained, label),
        f"{better} of {len(gained)} images came nearer to their place by {label}, {worse} went away.",
    )


def distortions_chosen(scores: Scores, photographs: Sequence[Photograph]) -> Drawing:
    """Draw how often each distortion type was chosen, per group if the groups are few."""
    groups = np.array([photograph.group for photograph in photographs])
    names = list(dict.fromkeys(groups.tolist()))
    choices = {name: scores.choice[:, groups == name] for name in names}
    if len(names) > MOST_GROUPS:
        choices = {"all": scores.choice}
    rows = {
        name: {kind: int((chosen == index).sum()) for index, kind in enumerate(TYPES)}
        for name, chosen in choices.items()
    }
    return Drawing(
        figures.shares(rows),
        "The type whose strong and weak copies the source scores most differently: the rank loss compares "
        "the image with those.",
    )


def losses(scores: Mapping[str, Scores]) -> Drawing:
    """Draw the loss at each step, of every method that has one. scores: by method."""
    lines = {}
    for name, own in scores.items():
        if not own.losses.size:  # a stream has no steps of its own for each batch
            continue
        values = np.ma.masked_invalid(own.losses.reshape(-1, own.losses.shape[-1]))
        if values.count() and values.max() > 0:
            lines[name] = values.mean(0).filled(np.nan), values.std(0).filled(np.nan)
    return Drawing(
        figures.curves(lines, "step", "loss"),
        "Mean over the episodes, and one standard deviation on either side.",
    )


def strips(scores: Scores, photographs: Sequence[Photograph], shown: int = 6) -> list[list[ImageChange]]:
    """Pick `shown` images of every group in the order of their MOS, with their thumbnails."""
    changes = _changes(scores, photographs)
    picked = []
    for group in dict.fromkeys(photograph.group for photograph in photographs):
        members = [index for index, photograph in enumerate(photographs) if photograph.group == group]
        members.sort(key=lambda index: -changes[index].mos)
        steps = np.linspace(0, len(members) - 1, min(shown, len(members)))
        strip = [members[round(step)] for step in steps]
        picked.append([changes[i]._replace(thumbnail=thumbnail(photographs[i].path)) for i in strip])
    return picked


def extremes(scores: Scores, photographs: Sequence[Photograph], shown: int = 6) -> Iterator[Extremes]:
    """Pick the images that gained most places, and those that lost most.

    They have thumbnails where the files of all of them can be read.
    """
    changes = _changes(scores, photographs)
    order = np.argsort([-change.places_gained for change in changes], kind="stable").tolist()
    for title, picked in (
        ("Gained most places", [index for index in order[:shown] if changes[index].places_gained > 0]),
        ("Lost most places", [index for index in order[::-1][:shown] if changes[index].places_gained < 0]),
    ):
        images = [changes[index] for index in picked]
        with suppress(UserError):  # else the page shows their names
            images = [changes[i]._replace(thumbnail=thumbnail(photographs[i].path, 200)) for i in picked]
        if images:
            yield Extremes(title, images)


def _changes(scores: Scores, photographs: Sequence[Photograph]) -> list[ImageChange]:
    """Return what adaptation did to each image, without thumbnails."""
    mos = _mos(photographs)
    gained = metrics.places_gained(scores.source, scores.adapted, mos)
    names = (photograph.key for photograph in photographs)
    before, after = scores.source.mean(0).tolist(), scores.adapted.mean(0).tolist()
    return [ImageChange(*row) for row in zip(names, mos.tolist(), before, after, gained.tolist())]


def _mos(photographs: Sequence[Photograph]) -> np.ndarray:
    return np.array([photograph.mos for photograph in photographs])
