"""Make the page of the demo, and the content of its summary.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.choice import Decision
from common.photographs import Photograph
from common.protocols import TUNED
from common.report import sections
from common.report.page import render
from common.runs.results import OverSeeds, Scores, Summary

METRICS = ("srocc", "plcc")


def demo_page(
    summaries: Mapping[str, Summary],
    scores: Mapping[str, Scores],
    decisions: Sequence[Decision],
    photographs: Sequence[Photograph],
    happened: str,
    label: str,
    out: str,
    command: str,
    seconds: float,
    environment: Mapping[str, object],
) -> str:
    """Return the page of the demo, as HTML.

    summaries, scores: by method; rank+gc and tuned are among them.
    decisions: of tuned, by seed.
    happened: what the photographs did, as the rest of a sentence. label: what their MOS is.
    out: the folder of the page. command: as somebody would type it again.
    seconds: that all of it took.
    environment: versions and hardware.
    """
    tuned, paper = scores[TUNED.name], scores["rank+gc"]
    return render(
        "demo.html.j2",
        summaries=summaries,
        source=_source(summaries),
        verdicts=sections.verdicts(summaries),
        advice=advice(summaries),
        decisions=[decision.sentence() for decision in decisions],
        n_images=len(photographs),
        n_photographs=len({photograph.group for photograph in photographs}),
        seeds=len(tuned.seeds),
        happened=happened,
        label=label,
        out=out,
        command=command,
        gains=sections.gains(summaries, "photographs"),
        strips=sections.strips(tuned, photographs),
        scatter=sections.scatter(tuned, photographs, label),
        places_gained=sections.places_gained(tuned, photographs, label),
        distortions=sections.distortions_chosen(paper, photographs),
        losses=sections.losses(scores),
        seconds=seconds,
        environment=environment,
    )


def advice(summaries: Mapping[str, Summary]) -> str:
    """Say in a sentence which method to use, as far as that can be read off here. summaries: by method."""
    if summaries[TUNED.name].gain.verdict == "harmed":
        return "to use: the source as it is; tuned hurts here"
    best = max(summaries, key=lambda name: summaries[name].gain.mean or 0.0)
    rest = "" if best == TUNED.name else f"; {best} gains most here, which only labels can tell"
    return f"to use: tuned, which decides without labels{rest}"


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
