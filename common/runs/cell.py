"""One cell of a table: a network adapted over a data set for several seeds, and its agreement with the human
scores."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common.adapter import Adapter, Outcome, score_source, stack_batches
from common.batches import Batch, Views, batch_order, load
from common.distortions import TYPES
from common.photographs import Photograph
from common.protocols import Protocol, Setting
from common.runs.metrics import agreement, gain_interval
from common.views import SECOND_VIEWS
from common.y import YNetwork


@dataclass
class Scores:
    """Of every photograph for every seed, (seeds, n). choice: index into TYPES of the distortion that the
    rank loss looked at, -1 where it looked at none or at all of them. losses: (seeds, n, niter), of the
    photograph's episode at each step.

    episodes, group_left_out, fell_back, enlarged: counts over all seeds. seconds: wall time of the episodes,
    of their loading and of what they ask of the source.
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
        return cls(
            seeds,
            np.full(shape, np.nan),
            np.full(shape, np.nan),
            np.full(shape, -1),
            np.full((*shape, niter), np.nan),
        )

    def record(
        self, row: int, indices: Sequence[int], outcome: Outcome, enlarged: int, seconds: float
    ) -> None:
        """One episode of the seed at `row`. indices: of its photographs. enlarged: how many of them were
        scaled up."""
        self.source[row, indices] = outcome.source
        self.adapted[row, indices] = outcome.adapted
        self.choice[row, indices] = outcome.choice
        self.losses[row, indices, : len(outcome.losses)] = outcome.losses
        self.episodes += 1
        self.group_left_out += outcome.group_left_out
        self.fell_back += outcome.fell_back
        self.enlarged += enlarged
        self.seconds += seconds

    def notes(self) -> list[str]:
        """What a reader of the result should know, one sentence each."""
        found = (
            (
                self.group_left_out,
                f"{self.group_left_out} of {self.episodes} episodes had too few images for the group loss",
            ),
            (
                self.fell_back,
                f"{self.fell_back} of {self.episodes} episodes were not finite and keep the source's scores",
            ),
            (
                self.enlarged,
                f"{self.enlarged} of {self.source.size} views are of images smaller than the crop, scaled up",
            ),
        )
        return [note for count, note in found if count]


class FinishedEpisode(NamedTuple):
    """One episode of one setting. number: of the batch within its seed. seconds: wall time, with its share of
    the loading and of what it asks of the source."""

    setting: int
    number: int
    batch: Batch
    outcome: Outcome
    seconds: float


def episodes_of(
    network: YNetwork | Callable[[Protocol], YNetwork],
    photographs: Sequence[Photograph],
    settings: Sequence[Setting],
    seed: int,
    *,
    batch_size: int = 8,
    at_once: int = 1,
    workers: int = 0,
    resize: tuple[int, int] | None = None,
    finished: Callable[[int, int], bool] = lambda setting, number: False,
    tell: Callable[[str, int, int], object] = lambda name, images, forwards: None,
) -> Iterator[FinishedEpisode]:
    """The episodes of several settings on one network, for one seed.

    What the settings have in common is done once: an image is decoded, distorted and scored by the source
    once, and of settings that differ in the number of steps alone the longer run passes through the shorter.
    So they must agree on what views and source scores are made by: ValueError otherwise.

    network: a Y, or what makes the one that a protocol asks for, all around the same network. at_once: how
    many episodes run at once; no score depends on it beyond rounding, nor on workers, nor on the other
    settings. resize: (height, width) that the data set is brought to before the crop. finished: (setting,
    number of the batch) that need not be run. tell: is told the name of what was done, and for how many
    images how many forward-equivalents each.
    """
    first = settings[0].protocol
    if any(shared_inputs(setting.protocol) != shared_inputs(first) for setting in settings):
        raise ValueError("settings that share views and source scores must agree on what these are made by")
    runs = _runs(settings)
    types = tuple(kind for kind in TYPES if any(kind in setting.method.types for setting in settings))
    chooses = any(setting.method.chooses for setting in settings)
    adapters = _adapters(network, [settings[run[-1]] for run in runs], seed)
    order = batch_order(photographs, seed, batch_size)
    numbers = [n for n in range(len(order)) if not all(finished(index, n) for index in range(len(settings)))]
    second_views = tuple(
        kind for kind in SECOND_VIEWS if any(kind in setting.method.second_views for setting in settings)
    )
    views = Views(photographs, seed, first.view, types, first.severities, resize, second_views=second_views)
    started = time.perf_counter()
    loaded = zip(numbers, load(views, [order[n] for n in numbers], workers))
    for several in _at_a_time(loaded, at_once):
        now, batches = zip(*several)
        size = sum(len(batch.clean) for batch in batches)
        images = stack_batches(adapters[0].ynet, batches, types)
        source = score_source(adapters[0].ynet, images, first, chooses)
        tell("source", size, source_forwards(chooses))
        shared = (time.perf_counter() - started) / len(settings)
        for run, adapter in zip(runs, adapters):
            if all(finished(index, n) for index in run for n in now):
                continue
            started = time.perf_counter()
            outcomes = adapter.run(images, source, [settings[index].method.niter for index in run])
            taken = (time.perf_counter() - started) / len(run)
            for index, found in zip(run, outcomes):
                for n, batch, outcome in zip(now, batches, found):
                    if not finished(index, n):
                        yield FinishedEpisode(index, n, batch, outcome, (shared + taken) / len(now))
            tell(adapter.method.name, size, adapter.method.forwards)
        started = time.perf_counter()


def run_cells(
    network: YNetwork | Callable[[Protocol], YNetwork],
    photographs: Sequence[Photograph],
    settings: Sequence[Setting],
    *,
    seeds: Sequence[int],
    progress: bool = True,
    **options,
) -> list[Scores]:
    """The scores of every photograph by the source and as each setting adapts it, for every seed. options: of
    `episodes_of`."""
    found = [Scores.empty(seeds, len(photographs), setting.method.niter) for setting in settings]
    with tqdm(
        total=float(len(seeds) * len(photographs)),
        unit="image",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} images, {elapsed} gone, {remaining} left",
        smoothing=0.05,
        disable=None if progress else True,
    ) as bar:
        bar.set_description("source")
        per_image = forwards(settings)

        def tell(name: str, images: int, work: int) -> None:
            bar.set_description(name, refresh=False)
            bar.update(images * work / per_image)

        for row, seed in enumerate(seeds):
            for done in episodes_of(network, photographs, settings, seed, tell=tell, **options):
                found[done.setting].record(
                    row, done.batch.indices, done.outcome, done.batch.enlarged, done.seconds
                )
    return found


def shared_inputs(protocol: Protocol) -> tuple:
    """What views and source scores are made by."""
    return protocol.view, protocol.severities, protocol.blur_first_scale_only


def forwards(settings: Sequence[Setting]) -> int:
    """Forward-equivalents per image of all of them together."""
    longest = [settings[run[-1]].method.forwards for run in _runs(settings)]
    return source_forwards(any(setting.method.chooses for setting in settings)) + sum(longest)


def source_forwards(chooses: bool) -> int:
    """Passes of an image by the source: clean, and two levels of every type if a choice hangs on them."""
    return 1 + 2 * len(TYPES) * chooses


def _runs(settings: Sequence[Setting]) -> list[list[int]]:
    """Indices of the settings that one run of episodes serves, in the order of their steps."""
    alike: dict[object, list[int]] = {}
    for index, (protocol, method) in enumerate(settings):
        alone = (
            index if settings[index].stateful else None
        )  # what is passed on depends on how many steps were taken
        alike.setdefault((protocol, replace(method, name="", niter=0), alone), []).append(index)
    return [sorted(run, key=lambda index: settings[index].method.niter) for run in alike.values()]


def _adapters(
    network: YNetwork | Callable[[Protocol], YNetwork], settings: Sequence[Setting], seed: int
) -> list[Adapter]:
    """One for each setting; those whose heads are alike share a Y."""
    wrapped: dict[tuple, YNetwork] = {}
    adapters = []
    for protocol, method in settings:
        head = protocol.cut, protocol.projection, protocol.rotation_classifier
        if head not in wrapped:
            wrapped[head] = network if isinstance(network, YNetwork) else network(protocol)
            wrapped[head].draw_head(seed)
        adapters.append(Adapter(wrapped[head], protocol, method))
    return adapters


def _at_a_time(items: Iterator, count: int) -> Iterator[list]:
    while several := list(itertools.islice(items, count)):
        yield several


def summary(scores: Scores, photographs: Sequence[Photograph]) -> dict:
    """Metrics per seed, with mean and standard deviation (n - 1) over seeds; the gain in SROCC with its
    interval; counts."""
    mos = np.array([photograph.mos for photograph in photographs])
    per_seed = [
        {"seed": seed, "source": agreement(source, mos), "adapted": agreement(adapted, mos)}
        for seed, source, adapted in zip(scores.seeds, scores.source, scores.adapted)
    ]
    over_seeds = {
        which: {name: mean_std([seed[which][name] for seed in per_seed]) for name in per_seed[0][which]}
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
    return f"{value['mean']:.{digits}f}" + (
        "" if value["std"] is None else f" {plus_minus} {value['std']:.{digits}f}"
    )


def mean_std(values: Sequence[float | None]) -> dict:
    """Of one value per seed, n - 1; None where one of them is not defined. std: None for a single seed."""
    if None in values:
        return {"mean": None, "std": None, "values": list(values)}
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "values": list(values)}


def score_table(scores: Scores, photographs: Sequence[Photograph]) -> tuple[list[str], list[list]]:
    """Header and rows of the CSV file of a cell: one row per image and seed. type: of the image's own
    distortion, where the data set tells; distortion: the one that the rank loss looked at."""
    steps = [f"loss_{step + 1}" for step in range(scores.losses.shape[-1])]
    rows = [
        [
            photograph.key,
            photograph.kind,
            photograph.mos,
            seed,
            float(scores.source[s, i]),
            float(scores.adapted[s, i]),
            TYPES[scores.choice[s, i]] if scores.choice[s, i] >= 0 else "",
            *scores.losses[s, i].tolist(),
        ]
        for s, seed in enumerate(scores.seeds)
        for i, photograph in enumerate(photographs)
    ]
    return ["image", "type", "mos", "seed", "source_score", "adapted_score", "distortion", *steps], rows
