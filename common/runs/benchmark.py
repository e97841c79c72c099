"""How fast networks score and adapt, end to end: photographs decoded, distorted, scored, adapted to.

Weights are random, which changes no time. `plain` are scores by the source alone, `rank+gc` the episodes of
the paper, `tuned` a stream that decides how to adapt and scores all its photographs.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from common.adapter import Adapter
from common.batches import Batch
from common.distortions import LEVELS, TYPES
from common.photographs import Photograph
from common.protocols import METHODS, TUNED, Setting
from common.runs.cell import episodes_of
from common.runs.release import Loop, running
from common.runs.timing import Timing, in_turns, timed
from common.runs.tuned import run_tuned
from common.system.device import default_episodes
from common.system.seeds import generator
from common.y import Backbone

FORMAT = 1  # of the file of scripts.benchmark
# Of an image by rank+gc: 7 by the source (clean, and two levels of three distortions), 3 steps x 3 passes x
# (forward and backward to the input), and the answer.
FORWARD_EQUIVALENTS = 1 + 2 * len(TYPES) + METHODS["rank+gc"].forwards
PLAIN, ADAPTED, STREAM, RELEASE = "plain", "rank+gc", "tuned", "release"


class Spread(NamedTuple):
    """A ratio over the rounds."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Measured:
    """What the rounds found of one network."""

    network: str
    episodes: int  # at once
    rounds: Mapping[str, Sequence[Timing]]  # by the kind of work, which take turns in every round

    def seconds(self, kind: str) -> float:
        """Return the median wall time of a photograph."""
        return statistics.median(timing.wall for timing in self.rounds[kind])

    def ratio(self, kind: str, other: str, clock: Literal["wall", "cpu"] = "wall") -> Spread:
        """Return how many times as long one kind of work takes as another, round by round."""
        pairs = zip(self.rounds[kind], self.rounds[other])
        found = [getattr(one, clock) / getattr(two, clock) for one, two in pairs]
        return Spread(statistics.median(found), min(found), max(found))

    def as_json(self) -> dict[str, Any]:
        """Return it with all rounds, and what `--rates` of a sweep reads."""
        return {
            "network": self.network,
            "episodes": self.episodes,
            "forward_seconds": self.seconds(ADAPTED) / FORWARD_EQUIVALENTS,
            "seconds_per_photograph": {
                kind: {"median": self.seconds(kind), "rounds": [timing._asdict() for timing in timings]}
                for kind, timings in self.rounds.items()
            },
        }


@dataclass(frozen=True)
class Load:
    """What the networks are given to do."""

    photographs: Sequence[Photograph]  # of a round
    stream: Sequence[Photograph]  # that tuned is measured on; none: it is not
    batch_size: int
    episodes: int  # at once
    workers: int  # loader processes
    rounds: int
    device: torch.device


def measure(name: str, backbone: Backbone, load: Load, release: tuple[Loop, Path] | None) -> Measured:
    """Measure one network, and beside it the authors' loop around it, where its checkout is given.

    The stream ends adapted whatever the agreement of its views: answers are then the dearer ones.
    """
    protocol, device = backbone.protocols["paper"], load.device
    network = random_network(backbone)
    state = network.state_dict()
    network = network.to(device).to(memory_format=torch.channels_last)

    def run(method: str) -> None:
        settings = [Setting(protocol, METHODS[method])]
        episodes = episodes_of(
            partial(backbone.wrap, network),
            load.photographs,
            settings,
            0,
            batch_size=load.batch_size,
            at_once=load.episodes,
            workers=load.workers,
        )
        for _ in episodes:
            pass

    def run_stream() -> None:
        tuned = replace(TUNED.on(protocol), margin=-2.0)
        run_tuned(backbone.wrap(network, protocol), load.stream, tuned, seeds=[0], workers=load.workers)

    count = len(load.photographs)
    works: dict[str, Callable[[], Timing]] = {
        PLAIN: partial(timed, partial(run, "source"), count, device),
        ADAPTED: partial(timed, partial(run, "rank+gc"), count, device),
    }
    if load.stream:
        works[STREAM] = partial(timed, run_stream, len(load.stream), device)
    with ExitStack() as stack:
        if release is not None:
            scratch = Path(stack.enter_context(TemporaryDirectory()))
            process = running(
                *release, state, load.photographs, scratch, batch_size=load.batch_size, device=device
            )
            works[RELEASE] = stack.enter_context(process)
        return Measured(name, load.episodes, in_turns(works, load.rounds, (STREAM,)))


def photographs_in(folder: Path, images: Sequence[Path], count: int) -> list[Photograph]:
    """Fill a folder with links to so many images, some twice where there are fewer; without any, make some.

    Those that are made are textures, JPEG files of 512 x 384.
    """
    found = []
    for number in range(count):
        key = f"{number:05d}{images[number % len(images)].suffix if images else '.jpg'}"
        path = folder / key
        if images:
            path.symlink_to(os.path.realpath(images[number % len(images)]))
        else:
            texture(key).save(path, quality=90)
        found.append(Photograph(key, path, float(number)))
    return found


def texture(name: str, size: tuple[int, int] = (512, 384), noise: float = 20) -> Image.Image:
    """Make something to see of this (width, height): shades of large and small extent, and noise."""
    rng = generator(0, "texture", name)
    picture = noise * rng.standard_normal((size[1], size[0], 3))
    for side in (4, 64):
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        picture += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=float) / 2
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def random_network(backbone: Backbone) -> nn.Module:
    """Return the network with random weights, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return backbone.network().eval()


def quick_forward_seconds(backbone: Backbone, device: torch.device) -> float:
    """Measure for about a second how long a forward-equivalent of one image takes, with random weights.

    It is the mean over rank+gc's, of which 8 are passes of the whole network, and the others of the extractor
    forward and back. Both kinds are had from a source pass, and an episode of the cheapest method that steps.
    """
    protocol, several = backbone.protocols["paper"], default_episodes(device)
    ynet = backbone.wrap(random_network(backbone), protocol).to(device).to(memory_format=torch.channels_last)
    step = replace(METHODS["rotation"], niter=1)
    infer, adapt = (Adapter(ynet, protocol, method) for method in (METHODS["source"], step))
    size = 8 if device.type == "cuda" else 2  # a CPU is as fast, by image, with few
    batches = [_random_batch(size) for _ in range(several)]
    adapt([batch.only(torch.arange(size) == 0) for batch in batches])  # warms up
    whole, episode = math.inf, math.inf
    started = time.perf_counter()
    while time.perf_counter() < started + 1:
        whole = min(whole, timed(lambda: infer(batches), size * several, device).wall)
        episode = min(episode, timed(lambda: adapt(batches), size * several, device).wall)
    steps = METHODS["rank+gc"].forwards - 1
    both_ways = max(0.0, episode / 2 - whole)  # an episode: source, answer, and a pass that counts two
    return ((FORWARD_EQUIVALENTS - steps) * whole + steps * both_ways) / FORWARD_EQUIVALENTS


def _random_batch(n: int) -> Batch:
    """Return a batch of n random images of the usual size, without distorted copies."""
    clean, pairs = torch.rand(n, 3, 224, 224), torch.rand(0, len(LEVELS), n, 3, 224, 224)
    return Batch(torch.arange(n), clean, (), pairs, torch.zeros(n, dtype=torch.long))
