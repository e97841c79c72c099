"""Make the page of the demo, and the content of its summary.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.photographs import Photograph
from common.report import sections
from common.report.page import render
from common.runs.results import OverSeeds, Scores, Summary

METRICS = ("srocc", "plcc")


def demo_page(
    summaries: Mapping[str, Summary],
    scores: Mapping[str, Scores],
    photographs: Sequence[Photograph],
    label: str,
    seconds: float,
    environment: Mapping[str, object],
) -> str:
    """Return the page of the demo, as HTML.

    summaries, scores: by method; rank+gc is among them.
    label: what the MOS of the photographs is.
    seconds: that all of it took.
    environment: versions and hardware.
    """
    best = scores["rank+gc"]
    return render(
        "demo.html.j2",
        summaries=summaries,
        source=_source(summaries),
        verdicts=sections.verdicts(summaries),
        n_images=len(photographs),
        seeds=len(best.seeds),
        label=label,
        gains=sections.gains(summaries),
        strips=sections.strips(best, photographs),
        scatter=sections.scatter(best, photographs, label),
        places_gained=sections.places_gained(best, photographs),
        distortions=sections.distortions_chosen(best, photographs),
        losses=sections.losses(scores),
        seconds=seconds,
        environment=environment,
    )


def methods_json(summaries: Mapping[str, Summary]) -> dict[str, dict[str, Any]]:
    """Return what summary.json says of each method, the source before them. summaries: by method."""
    n_images = next(iter(summaries.values())).n_images
    source = _source(summaries)
    methods: dict[str, dict[str, Any]] = {
        "source": {**{metric: source[metric].to_json() for metric in METRICS}, "n": n_images}
    }
    for name, summary in summaries.items():
        methods[name] = {
            **{metric: summary.adapted[metric].to_json() for metric in METRICS},
            "n": summary.n_images,
            "srocc_gain": summary.gain.to_json(),
        }
    return methods


def _source(summaries: Mapping[str, Summary]) -> Mapping[str, OverSeeds]:
    """Return the metrics of the source, which are the same whatever the method."""
    return next(iter(summaries.values())).source
