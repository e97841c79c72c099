"""Photographs as a stream: the first ones decide how the network adapts, and the network scores all."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from common.batches import Batch, Order, Views, cut, load, load_readable, shuffled
from common.choice import Decision, decide
from common.photographs import Photograph
from common.protocols import Tuned
from common.runs.results import Scores
from common.stream import Streamed
from common.y import YNetwork


@dataclass(frozen=True)
class TunedRun:
    """What came out for every seed."""

    scores: Scores
    decisions: list[Decision]


def run_tuned(
    ynet: YNetwork,
    photographs: Sequence[Photograph],
    tuned: Tuned,
    *,
    seeds: Sequence[int],
    workers: int = 0,
    order: Order = shuffled,
) -> TunedRun:
    """Score every photograph by the source and as `tuned` decides, for every seed.

    order: in which the photographs come; the first `tuned.judge_on` of them decide.
    """
    scores = Scores.empty(seeds, len(photographs), 0)
    decisions = []
    started = time.perf_counter()
    for row, seed in enumerate(seeds):
        stream = order(photographs, seed)
        decision, streamed = decide_on(ynet, photographs, tuned, stream[: tuned.judge_on], seed, workers)
        decisions.append(decision)
        score_stream(streamed, photographs, tuned, stream, scores, row, workers)
    scores.seconds = time.perf_counter() - started
    return TunedRun(scores, decisions)


def alone(tuned: Tuned) -> list[Tuned]:
    """Return what gives each candidate the whole stream, whatever the agreement of its views."""
    return [
        replace(tuned, name=setting.method.name, candidates=(setting,), margin=-2.0, least=0)
        for setting in tuned.candidates
    ]


def decide_on(
    ynet: YNetwork,
    photographs: Sequence[Photograph],
    tuned: Tuned,
    indices: Sequence[int],
    seed: int,
    workers: int = 0,
) -> tuple[Decision, Streamed]:
    """Decide on the photographs of these indices; those that cannot be read are left out.

    The second view is that of the next seed.
    """
    adapted_on = cut(indices[: tuned.adapt_on], tuned.batch_size)
    others = cut(indices[tuned.adapt_on :], tuned.batch_size)
    first = [
        *_readable(views(photographs, tuned, seed, tuned.types), adapted_on, workers),
        *_readable(views(photographs, tuned, seed), others, workers),
    ]
    second = _readable(views(photographs, tuned, seed + 1), adapted_on + others, workers)
    return decide(ynet, tuned, first, second)


def _readable(views: Views, batches: Sequence[list[int]], workers: int) -> list[Batch]:
    return [batch for batch, _ in load_readable(views, batches, workers) if batch is not None]


def views(photographs: Sequence[Photograph], tuned: Tuned, seed: int, types: Sequence[str] = ()) -> Views:
    """Return the views of a seed, with distorted copies of the given types."""
    return Views(photographs, seed, tuned.protocol.view, types, tuned.protocol.severities)


def score_stream(
    streamed: Streamed,
    photographs: Sequence[Photograph],
    tuned: Tuned,
    stream: Sequence[int],
    scores: Scores,
    row: int,
    workers: int,
) -> None:
    """Score the photographs by source and adapted network into the row of a seed."""
    seed = scores.seeds[row]
    for batch in load(views(photographs, tuned, seed), cut(stream, tuned.batch_size), workers):
        (outcome,) = streamed([batch])
        scores.record(row, batch.indices.tolist(), outcome, batch.enlarged, 0.0)
