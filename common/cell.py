"""One cell of a table: a network adapted over a data set for several seeds, and its agreement with the human scores."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common.adapter import Adapter, Outcome, consult, together
from common.batches import Batch, Photograph, Views, batch_order, load
from common.distortions import TYPES
from common.metrics import agreement, gain_interval
from common.protocols import Method, Protocol, stateful
from common.views import SECOND_VIEWS
from common.y import YNetwork


class Setting(NamedTuple):
    """How one row of results is come by."""

    protocol: Protocol
    method: Method

    @property
    def stateful(self) -> bool:
        """Whether an episode depends on the ones before it: then only one runs at a time."""
        return stateful(self.protocol, self.method)


@dataclass
class Scores:
    """Of every photograph for every seed, (seeds, n). choice: index into TYPES of the distortion that the rank loss looked at, -1
    where it looked at none or at all of them. losses: (seeds, n, niter), of the photograph's episode at each step.

    episodes, group_left_out, fell_back, enlarged: counts over all seeds. seconds: wall time of the episodes, of their loading and
    of what they ask of the source.
    """

    seeds: Sequence[int]
    source: np.ndarray
    adapted: np.ndarray
    choice: np.ndarray
    losses: np.ndarray
    episodes: int = 0
    group_left_out: int = 0
    fell_back: int = 0
    enlarged: int = 0
    seconds: float = 0.0

    @classmethod
    def empty(cls, seeds: Sequence[int], n: int, niter: int) -> "Scores":
        shape = (len(seeds), n)
        return cls(seeds, np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, -1), np.full((*shape, niter), np.nan))

    def record(self, row: int, batch: Batch, outcome: Outcome) -> None:
        self.source[row, batch.indices] = outcome.source
        self.adapted[row, batch.indices] = outcome.adapted
        self.choice[row, batch.indices] = outcome.choice
        self.losses[row, batch.indices, : len(outcome.losses)] = outcome.losses
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


def run_cells(
    y: YNetwork,
    photographs: Sequence[Photograph],
    settings: Sequence[Setting],
    *,
    seeds: Sequence[int],
    batch_size: int = 8,
    episodes: int = 1,
    workers: int = 0,
    resize: tuple[int, int] | None = None,
    progress: bool = True,
) -> list[Scores]:
    """Score every photograph by the source and by the network as each setting adapts it, for every seed.

    What the settings have in common is done once: an image is decoded, distorted and scored by the source once per seed, and of
    settings that differ in the number of steps alone the longer run passes through the shorter. So they must agree on everything
    that comes before an episode: ValueError otherwise.

    episodes: how many run at once; no score depends on it beyond rounding, nor on workers, nor on the other settings. resize:
    (height, width) that the data set is brought to before the crop.
    """
    first = settings[0].protocol
    if any(_before_episodes(setting.protocol) != _before_episodes(first) for setting in settings):
        raise ValueError("settings that share views and source scores must agree on what these are made by")
    found = [Scores.empty(seeds, len(photographs), setting.method.niter) for setting in settings]
    runs = _runs(settings)
    types = tuple(kind for kind in TYPES if any(kind in setting.method.types for setting in settings))
    second_views = tuple(kind for kind in SECOND_VIEWS if any(kind in setting.method.second_views for setting in settings))
    chooses = any(setting.method.chooses for setting in settings)
    work = _Work(len(seeds) * len(photographs), chooses, [settings[run[-1]] for run in runs], progress)
    with work.bar:
        for row, seed in enumerate(seeds):
            y.draw_head(seed)
            adapters = [Adapter(y, *settings[run[-1]]) for run in runs]
            views = Views(photographs, seed, first.view, types, first.severities, resize, second_views=second_views)
            started = time.perf_counter()
            for batches in _at_a_time(load(views, batch_order(photographs, seed, batch_size), workers), episodes):
                size = sum(len(batch.clean) for batch in batches)
                images = together(y, batches, types)
                source = consult(y, images, first, chooses)
                shared = time.perf_counter() - started
                work.source(size)
                for run, adapter in zip(runs, adapters):
                    started = time.perf_counter()
                    outcomes = adapter.run(images, source, [settings[index].method.niter for index in run])
                    taken = shared + time.perf_counter() - started
                    for index, several in zip(run, outcomes):
                        for batch, outcome in zip(batches, several):
                            found[index].record(row, batch, outcome)
                        found[index].seconds += taken
                    work.episode(adapter.method, size)
                started = time.perf_counter()
    return found


def _before_episodes(protocol: Protocol) -> tuple:
    network = protocol.cut, protocol.projection, protocol.rotation_classifier
    return *network, protocol.view, protocol.severities, protocol.blur_first_scale_only


def _runs(settings: Sequence[Setting]) -> list[list[int]]:
    """Indices of the settings that one run of episodes serves, in the order of their steps."""
    alike: dict[object, list[int]] = {}
    for index, (protocol, method) in enumerate(settings):
        alone = index if settings[index].stateful else None  # what is passed on depends on how many steps were taken
        alike.setdefault((protocol, replace(method, name="", niter=0), alone), []).append(index)
    return [sorted(run, key=lambda index: settings[index].method.niter) for run in alike.values()]


class _Work:
    """A bar over images that advances by the share of an image's work that is done, so that its remaining time can be trusted."""

    def __init__(self, images: int, chooses: bool, longest: Sequence[Setting], progress: bool):
        self.pseudo_labels = 1 + 2 * len(TYPES) * chooses
        self.per_image = self.pseudo_labels + sum(setting.method.forwards for setting in longest)
        self.bar = tqdm(
            total=float(images),
            unit="image",
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} images, {elapsed} gone, {remaining} left",
            smoothing=0.05,
            disable=None if progress else True,
        )
        self.bar.set_description("source")

    def source(self, size: int) -> None:
        self.bar.update(size * self.pseudo_labels / self.per_image)

    def episode(self, method: Method, size: int) -> None:
        self.bar.set_description(method.name, refresh=False)
        self.bar.update(size * method.forwards / self.per_image)


def _at_a_time(batches: Iterator[Batch], count: int) -> Iterator[list[Batch]]:
    while several := list(itertools.islice(batches, count)):
        yield several


def summary(scores: Scores, photographs: Sequence[Photograph]) -> dict:
    """Metrics per seed, with mean and standard deviation (n - 1) over seeds; the gain in SROCC with its interval; counts."""
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


def with_std(value: Mapping[str, float | None], digits: int = 3, plus_minus: str = "±") -> str:
    """Mean and standard deviation of a metric, as people read it."""
    if value["mean"] is None:
        return "undefined"
    return f"{value['mean']:.{digits}f}" + ("" if value["std"] is None else f" {plus_minus} {value['std']:.{digits}f}")


def _mean_std(values: Sequence[float | None]) -> dict:
    if None in values:
        return {"mean": None, "std": None, "values": list(values)}
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "values": list(values)}
