"""Episodes of several settings on one network: what they have in common is done once."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tqdm import tqdm

from common.adapter import Adapter, Outcome, score_source, stack_batches
from common.batches import Batch, Order, Views, cut, load, shuffled
from common.distortions import TYPES
from common.photographs import Photograph
from common.protocols import Method, Protocol, Setting
from common.runs.results import Scores
from common.views import SECOND_VIEWS
from common.y import YNetwork

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} images, {elapsed} gone, {remaining} left"
Network = YNetwork | Callable[[Protocol], YNetwork]  # a Y, or what makes the one that a protocol asks for


class FinishedEpisode(NamedTuple):
    """One episode of one setting."""

    setting: int  # index of the setting
    number: int  # of the batch within its seed
    batch: Batch
    outcome: Outcome
    seconds: float  # wall time, with its share of the loading and of what it asks of the source


@dataclass(frozen=True)
class Plan:
    """What several settings on one network share, and which runs of episodes serve them."""

    settings: Sequence[Setting]
    runs: list[list[int]]  # indices of the settings that one run serves, by rising number of steps
    types: tuple[str, ...]  # of distortion, whose copies are made
    second_views: tuple[str, ...]  # kinds that are made
    chooses: bool  # whether the source scores the distorted copies

    @classmethod
    def of(cls, settings: Sequence[Setting]) -> "Plan":
        """Plan the settings.

        Raises ValueError where they do not agree on what views and source scores are made by.
        """
        if any(shared_inputs(s.protocol) != shared_inputs(settings[0].protocol) for s in settings):
            raise ValueError(
                "settings that share views and source scores must agree on what these are made by"
            )
        methods = [setting.method for setting in settings]
        chooses = any(method.chooses for method in methods)
        return cls(
            settings,
            _runs(settings),
            _types(methods),
            tuple(kind for kind in SECOND_VIEWS if any(kind in method.second_views for method in methods)),
            chooses,
        )

    @property
    def source_forwards(self) -> int:
        """Passes of an image by the source: clean, and two levels of every type if a choice hangs on them."""
        return 1 + 2 * len(TYPES) * self.chooses

    @property
    def forwards(self) -> int:
        """Forward-equivalents per image of all settings together."""
        return self.source_forwards + sum(self.settings[run[-1]].method.forwards for run in self.runs)

    def views(self, photographs: Sequence[Photograph], seed: int) -> Views:
        """Return what every run looks at."""
        protocol = self.settings[0].protocol
        return Views(
            photographs, seed, protocol.view, self.types, protocol.severities, second_views=self.second_views
        )

    def adapters(self, network: Network, seed: int) -> list[Adapter]:
        """Make an adapter for each run; those whose heads are alike share a Y."""
        wrapped: dict[tuple, YNetwork] = {}
        adapters = []
        for protocol, method in (self.settings[run[-1]] for run in self.runs):
            head = protocol.cut, protocol.projection, protocol.rotation_classifier
            if head not in wrapped:
                wrapped[head] = network if isinstance(network, YNetwork) else network(protocol)
                wrapped[head].draw_head(seed)
            adapters.append(Adapter(wrapped[head], protocol, method))
        return adapters


def _types(methods: Sequence[Method]) -> tuple[str, ...]:
    """Return the types of distortion that the methods look at: the paper's first, in its order."""
    wanted = dict.fromkeys(kind for method in methods for kind in method.types)
    return tuple(sorted(wanted, key=lambda kind: TYPES.index(kind) if kind in TYPES else len(TYPES)))


def _runs(settings: Sequence[Setting]) -> list[list[int]]:
    """Group settings that differ in the number of steps alone: the longest run passes through the shorter."""
    alike: dict[object, list[int]] = {}
    for index, setting in enumerate(settings):
        alone = index if setting.stateful else None  # what is passed on depends on how many steps were taken
        method = replace(setting.method, name="", niter=0)
        alike.setdefault((setting.protocol, method, alone), []).append(index)
    return [sorted(run, key=lambda index: settings[index].method.niter) for run in alike.values()]


def shared_inputs(protocol: Protocol) -> tuple:
    """Return what views and source scores are made by."""
    return protocol.view, protocol.severities, protocol.blur_first_scale_only


def episodes_of(
    network: Network,
    photographs: Sequence[Photograph],
    settings: Sequence[Setting],
    seed: int,
    *,
    batch_size: int = 8,
    order: Order = shuffled,
    at_once: int = 1,
    workers: int = 0,
    finished: Callable[[int, int], bool] = lambda setting, number: False,
    tell: Callable[[str, int, int], object] = lambda name, images, forwards: None,
) -> Iterator[FinishedEpisode]:
    """Run the episodes of several settings on one network, for one seed.

    An image is decoded, distorted and scored by the source once for all of them. Raises ValueError where the
    settings do not agree on what views and source scores are made by.

    order: in which the photographs come.
    at_once: how many episodes run as one program. No score depends on it beyond rounding, nor on `workers`,
        the loader processes, nor on the other settings.
    finished: whether (index of the setting, number of the batch) need not be run.
    tell: is told the name of what was done, for how many images, and how many forward-equivalents each.
    """
    plan = Plan.of(settings)
    adapters = plan.adapters(network, seed)
    batches_of = cut(order(photographs, seed), batch_size)
    numbers = [n for n in range(len(batches_of)) if not all(finished(i, n) for i in range(len(settings)))]
    batches = load(plan.views(photographs, seed), [batches_of[n] for n in numbers], workers)
    loaded = zip(numbers, batches)
    started = time.perf_counter()
    while several := list(itertools.islice(loaded, at_once)):
        images = stack_batches(adapters[0].ynet, [batch for _, batch in several])
        source = score_source(adapters[0].ynet, images, settings[0].protocol, plan.chooses)
        tell("source", sum(images.sizes), plan.source_forwards)
        shared = (time.perf_counter() - started) / len(settings)
        for run, adapter in zip(plan.runs, adapters):
            if all(finished(index, n) for index in run for n, _ in several):
                continue
            started = time.perf_counter()
            outcomes = adapter.run(images, source, [settings[index].method.niter for index in run])
            taken = (time.perf_counter() - started) / len(run)
            for index, of_setting in zip(run, outcomes):
                for (n, batch), outcome in zip(several, of_setting):
                    if not finished(index, n):
                        seconds = (shared + taken) / len(several)
                        yield FinishedEpisode(index, n, batch, outcome, seconds)
            tell(adapter.method.name, sum(images.sizes), adapter.method.forwards)
        started = time.perf_counter()


def run_cells(
    network: Network,
    photographs: Sequence[Photograph],
    settings: Sequence[Setting],
    *,
    seeds: Sequence[int],
    batch_size: int = 8,
    order: Order = shuffled,
    at_once: int = 1,
    workers: int = 0,
    progress: bool = True,
) -> list[Scores]:
    """Score every photograph by the source and as each setting adapts it, for every seed.

    batch_size, order, at_once, workers: as of `episodes_of`.
    progress: whether a bar shows how far it is, where there is a terminal.
    """
    scores = [Scores.empty(seeds, len(photographs), setting.method.niter) for setting in settings]
    per_image = Plan.of(settings).forwards
    with tqdm(
        total=float(len(seeds) * len(photographs)),
        unit="image",
        bar_format=BAR,
        smoothing=0.05,
        disable=None if progress else True,
    ) as bar:
        bar.set_description("source")

        def tell(name: str, images: int, forwards: int) -> None:
            bar.set_description(name, refresh=False)
            bar.update(images * forwards / per_image)

        for row, seed in enumerate(seeds):
            episodes = episodes_of(
                network,
                photographs,
                settings,
                seed,
                batch_size=batch_size,
                order=order,
                at_once=at_once,
                workers=workers,
                tell=tell,
            )
            for episode in episodes:
                indices = episode.batch.indices.tolist()
                scores[episode.setting].record(
                    row, indices, episode.outcome, episode.batch.enlarged, episode.seconds
                )
    return scores
