"""Score photographs without human scores, by source and adapted network, and judge whether to trust it."""

import csv
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from torch.utils.data import ConcatDataset

from common.adapter import Adapter, NotFinite, Outcome
from common.batches import Batch, Views, load_readable
from common.photographs import DAMAGED, Photograph, size_of
from common.protocols import Setting
from common.runs.journal import Journal
from common.runs.results import Scores, Summary, summarise
from common.system.errors import UserError
from common.system.output import write_csv
from common.views import View
from common.y import YNetwork

# SROCC between the source's scores of a batch and the adapted ones. The losses are told which images the
# source holds for good and bad; an episode that ends in another order has left what it was told.
KEPT_ORDER = 0.5


@dataclass
class ScoredBatch:
    """The scores of one batch; photographs are known by their indices."""

    number: int  # of the batch
    source: dict[int, float] = field(default_factory=dict)  # score, the mean over crops
    adapted: dict[int, float] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)  # why a photograph cannot be scored
    kept_order: list[float] = field(default_factory=list)  # of each crop's episode; NaN where not defined
    notes: list[str] = field(default_factory=list)  # what a reader should know of the episodes

    def forget(self, indices: Iterable[int]) -> None:
        """Drop the scores of photographs that failed in one of their crops."""
        for index in indices:
            self.source.pop(index, None)
            self.adapted.pop(index, None)

    def record(self, indices: Sequence[int], outcome: Outcome, crops: int, guard: float | None) -> None:
        """Take over one episode; guard: the kept order below which the source's scores stand."""
        kept = kept_order(outcome)
        self.kept_order.append(kept)
        lost, unknown = guard is not None and kept < guard, guard is not None and math.isnan(kept)
        guarded = lost or unknown
        for index, source, adapted in zip(indices, outcome.source.tolist(), outcome.adapted.tolist()):
            self.source[index] = self.source.get(index, 0.0) + source / crops
            self.adapted[index] = self.adapted.get(index, 0.0) + (source if guarded else adapted) / crops
        notes = (
            (outcome.group_left_out, "batch too small for the group loss"),
            (outcome.fell_back, "adaptation was not finite: the source's score"),
            (lost, "adaptation lost the source's order: the source's score"),
            (unknown, "too few images to guard: the source's score"),
        )
        self.notes += [note for holds, note in notes if holds and note not in self.notes]


def kept_order(outcome: Outcome) -> float:
    """Return the SROCC between the source's scores of an episode and the adapted ones.

    It is 0 where adaptation made all scores one, and NaN where there is no order to keep: fewer than three
    images, or equal scores.
    """
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

    batches: number and indices of each.
    crops: episodes of each batch, on the views of seeds `seed`, `seed` + 1, ..., whose scores are averaged.
    guard: an episode whose kept order is below it, or not defined, gives the source's scores.
    at_once: how many episodes run at once.
    """
    protocol, method = setting
    ynet.draw_head(seed)
    adapter = Adapter(ynet, protocol, method)
    views: ConcatDataset = ConcatDataset(
        [
            Views(
                photographs,
                seed + crop,
                protocol.view,
                method.types,
                protocol.severities,
                second_views=method.second_views,
            )
            for crop in range(crops)
        ]
    )
    episodes = [(number, crop, indices) for number, indices in batches for crop in range(crops)]
    plan = [[crop * len(photographs) + index for index in indices] for _, crop, indices in episodes]
    loaded = zip(episodes, load_readable(views, plan, workers))
    scored = ScoredBatch(-1)
    while several := list(itertools.islice(loaded, at_once)):
        outcomes = _run(adapter, [batch for _, (batch, _) in several])
        for (episode, (_, faults)), (batch, outcome) in zip(several, outcomes):
            number, crop, indices = episode
            if crop == 0:
                scored = ScoredBatch(number)
            scored.faults |= {indices[position]: reason for position, reason in faults.items()}
            kept = [] if batch is None else batch.indices.tolist()
            lost = set(indices).difference(kept, scored.faults)
            scored.faults |= dict.fromkeys(lost, "the network's score is not finite")
            if outcome is not None:
                scored.record(kept, outcome, crops, guard)
            if crop == crops - 1:
                scored.forget(scored.faults)
                yield scored


def _run(adapter: Adapter, batches: Sequence[Batch | None]) -> list[tuple[Batch | None, Outcome | None]]:
    """Return each batch without the images that the source has no finite score of, and its outcome.

    Both are None for a batch of none.
    """
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
    """How adaptation changed the scores of a run."""

    moved: float | None  # mean absolute change, in standard deviations of the source's scores; None if equal
    episodes: int  # those whose kept order is defined
    lost: int  # how many of them fell below `threshold`
    median_kept_order: float | None  # None without such episodes
    threshold: float


def movement(
    source: Sequence[float], adapted: Sequence[float], kept: Sequence[float], threshold: float
) -> Movement:
    """Measure it; source, adapted: scores of all images; kept: `kept_order` of all episodes."""
    before, after, orders = (np.asarray(values, dtype=float) for values in (source, adapted, kept))
    defined = orders[np.isfinite(orders)]
    spread = before.std() if len(before) else 0.0
    return Movement(
        float(np.abs(after - before).mean() / spread) if spread > 0 else None,
        len(defined),
        int((defined < threshold).sum()),
        float(np.median(defined)) if len(defined) else None,
        threshold,
    )


HEADER = ("image", "source_score", "adapted_score", "width", "height", "notes")
Row = list[Any]  # of the CSV file, by HEADER; an image without scores has "" there


def row_of(name: str, photograph: Photograph, index: int, scored: ScoredBatch, view: View) -> Row:
    """Return what the CSV file says of a photograph; name: what it is called there."""
    if index in scored.faults:
        return [name, "", "", "", "", scored.faults[index].removeprefix(f"{photograph.path}: ")]
    scores = [scored.source[index], scored.adapted[index]]
    try:
        width, height = size_of(photograph.path)
    except DAMAGED:  # gone since it was scored
        return [name, *scores, "", "", "; ".join(scored.notes)]
    small = view.crop != "whole" and min(width, height) < view.size
    notes = [*scored.notes, *(["smaller than the view, scaled up"] if small else [])]
    return [name, *scores, width, height, "; ".join(notes)]


class ScoreFile:
    """The CSV file of scores: whole rows at any time, and in the order of the images once it is complete.

    Until then a journal lies beside it, OUT.csv.partial, from which a run goes on.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]):
        self.path = path
        self.journal = Journal(partial_of(path), config)  # config: what the scores depend on

    def resume(self) -> None:
        """Take over what an interrupted run has scored. Raises UserError if that run was another one."""
        if not self.journal.read():
            raise UserError(
                f"{self.journal.path} is of a run on other images or settings, or damaged: "
                "leave out --resume to start over"
            )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Write what there is so far, and be ready for more."""
        with self.journal.opened():  # first: without it the output counts as complete
            write_csv(self.path, HEADER, (row for rows in self._rows_of_batches() for _, row in rows))
            with self.path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as self._file:
                yield

    def add(self, scored: ScoredBatch, rows: Mapping[int, Row]) -> None:
        """Add a batch; rows: by index of the image."""
        batch = {"rows": list(rows.items()), "kept_order": scored.kept_order}
        self.journal.append(scored.number, batch)
        csv.writer(self._file, lineterminator="\n").writerows(rows.values())
        self._file.flush()

    @property
    def batches(self) -> set[int]:
        """Numbers of the batches that are scored."""
        return set(self.journal.batches)

    @property
    def rows(self) -> list[Row]:
        """The rows in the order of the images."""
        numbered = [(index, row) for rows in self._rows_of_batches() for index, row in rows]
        return [row for _, row in sorted(numbered, key=lambda pair: pair[0])]

    @property
    def kept_orders(self) -> list[float]:
        """The kept order of every episode."""
        return [order for batch in self.journal.batches.values() for order in batch["kept_order"]]

    def complete(self) -> None:
        """Put the rows into the order of the images: all is scored."""
        write_csv(self.path, HEADER, self.rows)
        with suppress(FileNotFoundError):
            self.journal.path.unlink()

    def _rows_of_batches(self) -> Iterator[list[tuple[int, Row]]]:
        return (batch["rows"] for batch in self.journal.batches.values())


def partial_of(path: Path) -> Path:
    """Return where the journal of an unfinished CSV file lies."""
    return path.with_name(f"{path.name}.partial")


def against_mos(photographs: Sequence[Photograph], rows: Sequence[Row], seed: int) -> Summary | None:
    """Summarise the rows as a cell, where at least three images have a score and a MOS."""
    pairs = [(p, row) for p, row in zip(photographs, rows) if row[1] != "" and math.isfinite(p.mos)]
    if len(pairs) < 3:
        return None
    scores = Scores.empty((seed,), len(pairs), 0)
    scores.source[0] = [row[1] for _, row in pairs]
    scores.adapted[0] = [row[2] for _, row in pairs]
    return summarise(scores, [photograph for photograph, _ in pairs])
