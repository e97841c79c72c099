"""Photographs without human scores: what source and adapted network say of them, and whether adaptation may
be trusted."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats
from torch.utils.data import ConcatDataset

from common.adapter import Adapter, NotFinite, Outcome
from common.batches import Batch, Views, collate_readable, load
from common.photographs import Photograph
from common.protocols import Setting
from common.y import YNetwork

# SROCC between the source's scores of a batch and the adapted ones. The losses are told which images the
# source holds for good and bad; an episode that ends in another order has left what it was told.
KEPT_ORDER = 0.5


@dataclass
class ScoredBatch:
    """One batch. number: of the batch. source, adapted: index of the photograph to its score, the mean over
    crops. faults: index to the reason why it cannot be read. kept_order: of each episode, one per crop, NaN
    where it is not defined. notes: what befell the episodes."""

    number: int
    source: dict[int, float] = field(default_factory=dict)
    adapted: dict[int, float] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    kept_order: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def forget(self, indices: Iterable[int]) -> None:
        """Scores of photographs that failed in one of their crops."""
        for index in indices:
            self.source.pop(index, None)
            self.adapted.pop(index, None)

    def record(self, indices: Sequence[int], outcome: Outcome, crops: int, guard: float | None) -> None:
        """One episode. guard: below which kept order the source's scores stand."""
        kept = kept_order(outcome)
        self.kept_order.append(kept)
        lost, unknown = guard is not None and kept < guard, guard is not None and math.isnan(kept)
        guarded = lost or unknown
        for index, source, adapted in zip(indices, outcome.source.tolist(), outcome.adapted.tolist()):
            self.source[index] = self.source.get(index, 0.0) + source / crops
            self.adapted[index] = self.adapted.get(index, 0.0) + (source if guarded else adapted) / crops
        said = (
            (outcome.group_left_out, "batch too small for the group loss"),
            (outcome.fell_back, "adaptation was not finite: the source's score"),
            (lost, "adaptation lost the source's order: the source's score"),
            (unknown, "too few images to guard: the source's score"),
        )
        self.notes += [note for holds, note in said if holds and note not in self.notes]


def kept_order(outcome: Outcome) -> float:
    """SROCC between the source's scores of an episode and the adapted ones, 0 where adaptation made all
    scores one; NaN where there is no order to keep: fewer than three images, or equal scores."""
    source, adapted = outcome.source.numpy(), outcome.adapted.numpy()
    if len(source) < 3 or np.ptp(source) == 0:
        return float("nan")
    return float(stats.spearmanr(source, adapted)[0]) if np.ptp(adapted) > 0 else 0.0


def score_batches(
    ynet: YNetwork,
    photographs: Sequence[Photograph],
    setting: Setting,
    batches: Sequence[tuple[int, Sequence[int]]],
    *,
    seed: int = 0,
    crops: int = 1,
    guard: float | None = None,
    at_once: int = 1,
    workers: int = 0,
) -> Iterator[ScoredBatch]:
    """Score batches of photographs; those that cannot be read are left out of their batch and named.

    batches: number and indices of each. crops: episodes of each batch, on the views of seeds `seed`, `seed` +
    1, ..., whose scores are averaged. guard: an episode whose kept order is below it, or not defined, gives
    the source's scores. at_once: how many episodes run at once.
    """
    protocol, method = setting
    ynet.draw_head(seed)
    adapter = Adapter(ynet, protocol, method)
    second_views = method.second_views
    views = ConcatDataset(
        [
            Views(
                photographs,
                seed + crop,
                protocol.view,
                method.types,
                protocol.severities,
                second_views=second_views,
            )
            for crop in range(crops)
        ]
    )
    episodes = [(number, crop, indices) for number, indices in batches for crop in range(crops)]
    plan = [[crop * len(photographs) + index for index in indices] for _, crop, indices in episodes]
    loaded = zip(episodes, load(views, plan, workers, collate_readable))
    now: ScoredBatch | None = None
    while several := list(itertools.islice(loaded, at_once)):
        read = [batch for _, (batch, _) in several]
        for (number, crop, indices), (_, faults), (batch, outcome) in zip(
            *zip(*several), _run(adapter, read)
        ):
            if crop == 0:
                now = ScoredBatch(number)
            now.faults |= {indices[place]: reason for place, reason in faults.items()}
            kept = [] if batch is None else batch.indices.tolist()
            now.faults |= dict.fromkeys(
                set(indices).difference(kept, now.faults), "the network's score is not finite"
            )
            if outcome is not None:
                now.record(kept, outcome, crops, guard)
            if crop == crops - 1:
                now.forget(now.faults)
                yield now


def _run(adapter: Adapter, batches: Sequence[Batch | None]) -> list[tuple[Batch | None, Outcome | None]]:
    """Each batch without the images that the source has no finite score of, and its outcome; None for a batch
    of none."""
    held = [batch for batch in batches if batch is not None]
    try:
        outcomes = iter(adapter(held) if held else ())
    except NotFinite as error:
        parts = iter(error.finite.cpu().split([len(batch.indices) for batch in held]))
        finite = [batch and batch.only(next(parts)) for batch in batches]
        return _run(
            adapter, [batch if batch is not None and len(batch.indices) else None for batch in finite]
        )
    return [(batch, None if batch is None else next(outcomes)) for batch in batches]


@dataclass(frozen=True)
class Movement:
    """How adaptation changed the scores of a run. moved: mean absolute change, in standard deviations of the
    source's scores, None where these are equal. episodes: those whose kept order is defined. lost: how many
    of them fell below `threshold`."""

    moved: float | None
    episodes: int
    lost: int
    median_kept_order: float | None
    threshold: float


def movement(
    source: Sequence[float], adapted: Sequence[float], kept: Sequence[float], threshold: float
) -> Movement:
    """source, adapted: scores of all images. kept: `kept_order` of all episodes."""
    before, after, kept = np.asarray(source), np.asarray(adapted), np.asarray(kept, dtype=float)
    defined = kept[np.isfinite(kept)]
    spread = before.std() if len(before) else 0.0
    return Movement(
        float(np.abs(after - before).mean() / spread) if spread > 0 else None,
        len(defined),
        int((defined < threshold).sum()),
        float(np.median(defined)) if len(defined) else None,
        threshold,
    )
