"""One cell of a table: a network adapted over a data set for several seeds, and its agreement with the human scores."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from common.adapter import Adapter, Outcome
from common.batches import Batch, Photograph, Views, load
from common.distortions import TYPES
from common.metrics import agreement, gain_interval
from common.protocols import Method, Protocol
from common.y import YNetwork


@dataclass
class Scores:
    """Of every photograph for every seed, (seeds, n). choice: index into TYPES of the distortion that the rank
    loss looked at, -1 where it looked at none or at all of them.

    episodes, group_left_out, fell_back, enlarged: counts over all seeds. seconds: wall time of the episodes and their loading.
    """

    seeds: Sequence[int]
    source: np.ndarray
    adapted: np.ndarray
    choice: np.ndarray
    episodes: int = 0
    group_left_out: int = 0
    fell_back: int = 0
    enlarged: int = 0
    seconds: float = 0.0

    @classmethod
    def empty(cls, seeds: Sequence[int], n: int) -> "Scores":
        shape = (len(seeds), n)
        return cls(seeds, np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, -1))

    def record(self, row: int, batch: Batch, outcome: Outcome, method: Method) -> None:
        self.source[row, batch.indices] = outcome.source
        self.adapted[row, batch.indices] = outcome.adapted
        if outcome.choice is not None:
            self.choice[row, batch.indices] = outcome.choice
        elif method.rank and method.distortion != "all":
            self.choice[row, batch.indices] = TYPES.index(method.distortion)
        self.episodes += 1
        self.group_left_out += outcome.group_left_out
        self.fell_back += outcome.fell_back
        self.enlarged += batch.enlarged

    def notes(self) -> list[str]:
        """What a reader of the result should know, one sentence each."""
        found = (
            (self.group_left_out, f"{self.group_left_out} of {self.episodes} episodes had too few images for the group loss"),
            (self.fell_back, f"{self.fell_back} of {self.episodes} episodes were not finite and keep the source's scores"),
            (self.enlarged, f"{self.enlarged} of {self.source.size} views are of images smaller than the crop, scaled up"),
        )
        return [note for count, note in found if count]


def run_cell(
    y: YNetwork,
    photographs: Sequence[Photograph],
    protocol: Protocol,
    method: Method,
    *,
    seeds: Sequence[int],
    batch_size: int = 8,
    episodes: int = 1,
    workers: int = 0,
    resize: tuple[int, int] | None = None,
    progress: bool = True,
) -> Scores:
    """Score every photograph by the source and by the adapted network, for every seed.

    episodes: how many run at once; no score depends on it beyond rounding, nor on workers. resize: (height, width) that the
    data set is brought to before the crop.
    """
    scores = Scores.empty(seeds, len(photographs))
    started = time.perf_counter()
    with tqdm(total=scores.source.size, unit="image", desc=method.name, smoothing=0.1, disable=None if progress else True) as bar:
        for row, seed in enumerate(seeds):
            y.draw_head(seed)
            adapter = Adapter(y, protocol, method)
            views = Views(photographs, seed, protocol.view, method.types, protocol.severities, resize)
            for batches in _at_a_time(load(views, batch_size, workers), episodes):
                for batch, outcome in zip(batches, adapter(batches)):
                    scores.record(row, batch, outcome, method)
                    bar.update(len(batch.indices))
    scores.seconds = time.perf_counter() - started
    return scores


def _at_a_time(batches: Iterator[Batch], count: int) -> Iterator[list[Batch]]:
    while several := list(itertools.islice(batches, count)):
        yield several


def summary(scores: Scores, photographs: Sequence[Photograph]) -> dict:
    """Metrics per seed, their mean and standard deviation (n - 1) over seeds, the gain in SROCC with its interval, counts."""
    mos = np.array([photograph.mos for photograph in photographs])
    per_seed = [
        {"seed": seed, "source": agreement(source, mos), "adapted": agreement(adapted, mos)}
        for seed, source, adapted in zip(scores.seeds, scores.source, scores.adapted)
    ]
    over_seeds = {
        which: {name: _mean_std([seed[which][name] for seed in per_seed]) for name in per_seed[0][which]}
        for which in ("source", "adapted")
    }
    source, adapted = over_seeds["source"]["srocc"]["mean"], over_seeds["adapted"]["srocc"]["mean"]
    chosen = np.bincount(scores.choice[scores.choice >= 0], minlength=len(TYPES))
    return {
        "n_images": len(photographs),
        **over_seeds,
        "srocc_gain": {
            "mean": None if None in (source, adapted) else adapted - source,
            "interval_95": gain_interval(scores.source, scores.adapted, mos),
        },
        "seeds": per_seed,
        "distortions_chosen": dict(zip(TYPES, chosen.tolist())),
        "episodes": {
            "total": scores.episodes,
            "group_loss_left_out": scores.group_left_out,
            "fell_back_to_source": scores.fell_back,
        },
        "views_scaled_up": scores.enlarged,
        "seconds": scores.seconds,
        "images_per_second": scores.source.size / scores.seconds,
    }


def _mean_std(values: Sequence[float | None]) -> dict[str, float | None]:
    if None in values:
        return {"mean": None, "std": None}
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}
