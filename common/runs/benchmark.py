"""How fast plain inference and test-time adaptation by rank+gc are, on random weights and images.

The bound is 26 forward-equivalents per adapted image: 7 by the source (clean, and two levels of three
distortions), 3 steps x 3 passes x (forward and backward to the input), and the answer.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from common.adapter import Adapter
from common.batches import Batch
from common.distortions import LEVELS, TYPES
from common.protocols import METHODS
from common.system.device import default_episodes
from common.y import Backbone

FORMAT = 1  # of the file of scripts.benchmark
FORWARD_EQUIVALENTS = 1 + 2 * len(TYPES) + METHODS["rank+gc"].forwards


@dataclass(frozen=True)
class Rates:
    """How fast one network is; medians over the repeats."""

    backbone: str
    episodes: int  # at once
    inference_images_per_second: float
    adapted_images_per_second: float  # by rank+gc
    bound_reached: float  # the second rate over the first / 26

    @property
    def forward_seconds(self) -> float:
        """Seconds of a forward-equivalent of one image, as rank+gc mixes them."""
        return 1 / (self.adapted_images_per_second * FORWARD_EQUIVALENTS)


def random_batch(n: int) -> Batch:
    """Return a batch of n random images of the usual size."""
    clean, pairs = torch.rand(n, 3, 224, 224), torch.rand(len(TYPES), len(LEVELS), n, 3, 224, 224)
    return Batch(torch.arange(n), clean, TYPES, pairs, torch.zeros(n, dtype=torch.long))


def seconds(work: Callable[[list[Batch]], object], batches: list[Batch], device: torch.device) -> float:
    """Return the wall time of work on the batches, until the device has finished it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work(batches)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(
    name: str,
    backbone: Backbone,
    episodes: Sequence[int],
    batch_size: int,
    repeats: int,
    device: torch.device,
) -> list[Rates]:
    """Return the rates of one network for each number of episodes at once.

    All kinds of work take turns in every repeat.
    """
    protocol = backbone.protocols["paper"]
    ynet = backbone.wrap(backbone.network(), protocol).to(device).to(memory_format=torch.channels_last)
    infer, adapt = (Adapter(ynet, protocol, METHODS[method]) for method in ("source", "rank+gc"))
    batches = {e: [random_batch(batch_size) for _ in range(e)] for e in episodes}
    clean = {
        e: [batch._replace(pairs=batch.pairs[:0]) for batch in several] for e, several in batches.items()
    }
    times: dict[tuple[str, int], list[float]] = {
        (kind, e): [] for e in episodes for kind in ("infer", "adapt")
    }
    for repeat in range(repeats + 1):  # the first is the warm-up
        for e in episodes:
            taken = seconds(infer, clean[e], device), seconds(adapt, batches[e], device)
            if repeat:
                times["infer", e].append(taken[0])
                times["adapt", e].append(taken[1])
    rates = []
    for e in episodes:
        inference, adapted = (
            e * batch_size / statistics.median(times[kind, e]) for kind in ("infer", "adapt")
        )
        rates.append(Rates(name, e, inference, adapted, adapted * FORWARD_EQUIVALENTS / inference))
    return rates


def quick_forward_seconds(backbone: Backbone, device: torch.device) -> float:
    """Measure for about a second how long a forward-equivalent of one image takes, with random weights.

    It is the mean over rank+gc's, of which 8 are passes of the whole network, and the others of the extractor
    forward and back. Both kinds are had from a source pass, and an episode of the cheapest method that steps.
    """
    protocol, several = backbone.protocols["paper"], default_episodes(device)
    ynet = backbone.wrap(backbone.network(), protocol).to(device).to(memory_format=torch.channels_last)
    step = replace(METHODS["rotation"], niter=1)
    infer, adapt = (Adapter(ynet, protocol, method) for method in (METHODS["source"], step))
    size = 8 if device.type == "cuda" else 2  # a CPU is as fast, by image, with few
    batches = [random_batch(size) for _ in range(several)]
    clean = [batch._replace(pairs=batch.pairs[:0]) for batch in batches]
    seconds(adapt, [batch.only(torch.arange(size) == 0) for batch in clean], device)  # warms up
    whole, episode = math.inf, math.inf
    started = time.perf_counter()
    while time.perf_counter() < started + 1:
        whole = min(whole, seconds(infer, clean, device))
        episode = min(episode, seconds(adapt, clean, device))
    steps = METHODS["rank+gc"].forwards - 1
    both_ways = max(0.0, episode / 2 - whole)  # an episode: source, answer, and a pass that counts two
    mean = ((FORWARD_EQUIVALENTS - steps) * whole + steps * both_ways) / FORWARD_EQUIVALENTS
    return mean / (size * several)
