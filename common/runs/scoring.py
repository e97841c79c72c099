"""Score photographs without human scores, by source and adapted network, and judge whether to trust it."""

import csv
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset

from common.adapter import Adapter, NotFinite, Outcome
from common.batches import Batch, Views, cut, load_readable, shuffled
from common.choice import Decision
from common.photographs import Photograph, size_of
from common.protocols import METHODS, Setting, Tuned
from common.runs.guard import kept_order
from common.runs.journal import Journal, partial_of
from common.runs.results import Scores, Summary, summarise
from common.runs.scale import Scale
from common.runs.tuned import decide_on
from common.stream import Streamed
from common.system.errors import UserError
from common.system.output import write_csv
from common.system.text import printable
from common.views import View
from common.y import YNetwork

Runner = Callable[[Sequence[Batch]], list[Outcome]]  # one outcome per batch; raises NotFinite


@dataclass
class ScoredBatch:
    """The scores of one batch; photographs are known by their indices."""

    number: int  # of the batch
    crops: int = 1  # views of each image, whose scores are averaged
    source: dict[int, float] = field(default_factory=dict)  # score, the mean over crops
    adapted: dict[int, float] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)  # why a photograph cannot be scored
    kept_order: list[float] = field(default_factory=list)  # of each crop's episode; NaN where not defined
    notes: Counter[str] = field(default_factory=Counter)  # on the episodes, and of how many crops each holds

    def forget(self, indices: Iterable[int]) -> None:
        """Drop the scores of photographs that failed in one of their crops."""
        for index in indices:
            self.source.pop(index, None)
            self.adapted.pop(index, None)

    def record(self, indices: Sequence[int], outcome: Outcome, guard: float | None) -> None:
        """Take over one episode; guard: the kept order below which the source's scores stand."""
        kept = kept_order(outcome)
        self.kept_order.append(kept)
        lost, unknown = guard is not None and kept < guard, guard is not None and math.isnan(kept)
        guarded = lost or unknown
        for index, source, adapted in zip(indices, outcome.source.tolist(), outcome.adapted.tolist()):
            self.source[index] = self.source.get(index, 0.0) + source / self.crops
            self.adapted[index] = self.adapted.get(index, 0.0) + (source if guarded else adapted) / self.crops
        notes = (
            (outcome.group_left_out, "batch too small for the group loss"),
            (outcome.fell_back, "adaptation was not finite: the source's score"),
            (lost, "adaptation lost the source's order: the source's score"),
            (unknown, "too few images to guard: the source's score"),
        )
        self.notes.update(note for holds, note in notes if holds)

    def remarks(self) -> list[str]:
        """Return the notes, with the number of crops that each concerns where that is not all of them."""
        return [
            note if count == self.crops else f"{note} ({count} of {self.crops} crops)"
            for note, count in self.notes.items()
        ]


def score_batches(
    runner: Runner,
    views: Sequence[Views],
    batches: Sequence[tuple[int, Sequence[int]]],
    *,
    guard: float | None = None,
    at_once: int = 1,
    workers: int = 0,
) -> Iterator[ScoredBatch]:
    """Score batches of photographs; those that cannot be read are left out of their batch and named.

    views: of the same photographs; each makes an episode of every batch, whose scores are averaged.
    batches: number and indices of each.
    guard: an episode whose kept order is below it, or not defined, gives the source's scores.
    at_once: how many episodes run at once.
    """
    crops = len(views)
    joined: ConcatDataset = ConcatDataset(views)
    episodes = [(number, crop, indices) for number, indices in batches for crop in range(crops)]
    plan = [[crop * len(views[0]) + index for index in indices] for _, crop, indices in episodes]
    loaded = zip(episodes, load_readable(joined, plan, workers))
    scored = ScoredBatch(-1)
    while several := list(itertools.islice(loaded, at_once)):
        outcomes = _run(runner, [batch for _, (batch, _) in several])
        for (episode, (_, faults)), (batch, outcome) in zip(several, outcomes):
            number, crop, indices = episode
            if crop == 0:
                scored = ScoredBatch(number, crops)
            scored.faults |= {indices[position]: reason for position, reason in faults.items()}
            kept = [] if batch is None else batch.indices.tolist()
            lost = set(indices).difference(kept, scored.faults)
            scored.faults |= dict.fromkeys(lost, "the network's score is not finite")
            if outcome is not None:
                scored.record(kept, outcome, guard)
            if crop == crops - 1:
                scored.forget(scored.faults)
                yield scored


def _run(runner: Runner, batches: Sequence[Batch | None]) -> list[tuple[Batch | None, Outcome | None]]:
    """Return each batch without the images that the source has no finite score of, and its outcome.

    Both are None for a batch of none.
    """
    held = [batch for batch in batches if batch is not None]
    try:
        outcomes = iter(runner(held) if held else ())
    except NotFinite as error:
        parts = iter(error.finite.cpu().split([len(batch.indices) for batch in held]))
        finite = [batch and batch.only(next(parts)) for batch in batches]
        return _run(runner, [batch if batch is not None and len(batch.indices) else None for batch in finite])
    return [(batch, None if batch is None else next(outcomes)) for batch in batches]


HEADER = ("image", "source_score", "adapted_score", "scale_higher_is_better", "width", "height", "notes")
Row = list[Any]  # of the CSV file, by HEADER; an image without scores has "" there


def row_of(
    name: str, photograph: Photograph, index: int, scored: ScoredBatch, view: View, scale: Scale
) -> Row:
    """Return what the CSV file says of a photograph; name: what it is called there."""
    if index in scored.faults:
        reason = scored.faults[index].removeprefix(printable(f"{photograph.path}: "))
        return [name, *[""] * (len(HEADER) - 2), reason]
    row = [name, scale.score(scored.source[index]), scale.score(scored.adapted[index]), scale.title]
    try:
        width, height = size_of(photograph.path)
    except UserError:  # gone since it was scored
        return [*row, "", "", "; ".join(scored.remarks())]
    small = view.crop != "whole" and min(width, height) < view.size
    notes = [*scored.remarks(), *(["smaller than the view, scaled up"] if small else [])]
    return [*row, width, height, "; ".join(notes)]


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


def against_mos(photographs: Sequence[Photograph], rows: Sequence[Row], seed: int) -> Summary | None:
    """Summarise the rows as a cell, where at least three images have a score and a MOS."""
    pairs = [(p, row) for p, row in zip(photographs, rows) if row[1] != "" and math.isfinite(p.mos)]
    if len(pairs) < 3:
        return None
    scores = Scores.empty((seed,), len(pairs), 0)
    scores.source[0] = [row[1] for _, row in pairs]
    scores.adapted[0] = [row[2] for _, row in pairs]
    return summarise(scores, [photograph for photograph, _ in pairs])


@dataclass(frozen=True)
class Run:
    """All that the scores of photographs depend on, beside the photographs."""

    ynet: YNetwork
    how: Setting | Tuned
    scale: Scale
    seed: int = 0
    batch_size: int = 8
    crops: int = 1  # views of each image: of the seeds `seed`, `seed` + 1, ...
    guard: float | None = None  # for a Setting, as for `score_batches`

    def score(
        self,
        names: Sequence[str],
        photographs: Sequence[Photograph],
        output: ScoreFile,
        *,
        at_once: int,
        workers: int,
        progress: Callable[[int], object],
    ) -> Decision | None:
        """Score what is left of the photographs into the output, and complete it.

        names: what the output calls each. progress: called with the number of images of each batch.
        Returns the decision of a Tuned; None for a Setting, and where nothing was left.
        """
        order = shuffled(photographs, self.seed)
        batches = enumerate(cut(order, self.batch_size))
        todo = [(number, indices) for number, indices in batches if number not in output.batches]
        decision: Decision | None = None
        runner: Runner
        self.ynet.draw_head(self.seed)
        if isinstance(self.how, Setting):
            protocol, method = self.how
            runner = Adapter(self.ynet, protocol, method)
        else:
            protocol, method = self.how.protocol, METHODS["source"]
            runner = Streamed(self.ynet)
            if todo:
                decision, runner = decide_on(
                    self.ynet, photographs, self.how, order[: self.how.judge_on], self.seed, workers
                )
                if self.crops > 1:
                    runner.known = {}  # of one of the views alone
        views = [
            Views(
                photographs,
                self.seed + crop,
                protocol.view,
                method.types,
                protocol.severities,
                second_views=method.second_views,
            )
            for crop in range(self.crops)
        ]
        with output.opened():
            for scored in score_batches(
                runner, views, todo, guard=self.guard, at_once=at_once, workers=workers
            ):
                indices = sorted({*scored.source, *scored.faults})
                rows = {
                    i: row_of(names[i], photographs[i], i, scored, protocol.view, self.scale) for i in indices
                }
                output.add(scored, rows)
                progress(len(indices))
        output.complete()
        return decision
