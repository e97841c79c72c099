"""All that scripts.gpu_report measures, the most important first."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from common.batches import Batch
from common.distortions import TYPES
from common.protocols import Protocol
from common.runs.benchmark import FORWARD_EQUIVALENTS, random_network
from common.runs.device_check import AT_ONCE, checks, same_forward
from common.runs.device_rates import (
    compiled_rate,
    episode_rates,
    loading_rate,
    made_batch,
    step_rates,
    tuned_rates,
)
from common.runs.parts import Done, Part
from common.system.precision import PRECISIONS, precision
from common.y import Backbone, YNetwork

SIZES = ((512, 384), (1024, 768))  # of photographs that are loaded
LOADING = 3.0  # seconds of each kind
COMPILING = 90.0  # seconds without which nothing is compiled
GRAPHED = (1, 4)  # episodes of a step that is recorded


@dataclass
class Measured:
    """A network with random weights, on the device once it was asked for."""

    name: str
    backbone: Backbone
    device: torch.device
    batch_size: int

    @property
    def protocol(self) -> Protocol:
        """The protocol that it is measured under."""
        return self.backbone.protocols["paper"]

    @cached_property
    def on_cpu(self) -> YNetwork:
        """The network, wrapped."""
        ynet = self.backbone.wrap(random_network(self.backbone), self.protocol)
        ynet.draw_head(0)
        return ynet.to(memory_format=torch.channels_last)

    @cached_property
    def ynet(self) -> YNetwork:
        """The network on the device, and no longer on the CPU."""
        return self.on_cpu.to(self.device)

    @cached_property
    def batch(self) -> Batch:
        """One batch of views, with their distorted copies."""
        return made_batch(self.protocol, TYPES, range(self.batch_size))

    def check(self) -> list[dict[str, Any]]:
        """Compare its plain scores with the CPU's; the first part of all."""
        return [check.as_json() for check in same_forward(self.on_cpu, self.batch, self.device)]

    def rates(self, how: str, episodes: int) -> dict[str, Any]:
        """Measure plain scores and rank+gc."""
        with precision(how, self.device):
            return episode_rates(self.ynet, self.protocol, self.batch, episodes)

    def tuned(self, how: str, episodes: Sequence[int]) -> dict[str, Any]:
        """Measure tuned."""
        with precision(how, self.device):
            return tuned_rates(self.ynet, self.protocol, self.batch_size, episodes)

    def step(self, episodes: int) -> dict[str, Any]:
        """Measure a step as a CUDA graph."""
        with precision("tf32", self.device):
            return step_rates(self.ynet, self.protocol, self.batch, episodes)

    def compiled(self) -> dict[str, Any]:
        """Measure plain scores by torch.compile."""
        with precision("tf32", self.device):
            return compiled_rate(self.ynet, self.batch, 4)


@dataclass(frozen=True)
class Load:
    """What is measured, and on what."""

    networks: Sequence[Measured]
    trained: Callable[[], tuple[YNetwork, Protocol]]  # that the checks are of, on the CPU
    device: torch.device
    batch_size: int
    episodes: Sequence[int]  # at once, the most important first
    workers: int  # loader processes
    folder: Path  # for photographs

    def parts(self) -> Iterator[Part]:
        """Yield the parts."""
        cuda = self.device.type == "cuda"
        kinds = PRECISIONS if cuda else ("float32", "bfloat16")
        yield Part({"kind": "check", "what": "episodes"}, self.check)
        for one in self.networks:
            yield Part({"kind": "check", "what": one.name}, one.check)
        first, *others = self.episodes
        yield from self._rates(kinds, first)
        for protocol in ("paper", "released"):
            for width, height in SIZES:
                about = {"kind": "loaders", "protocol": protocol, "size": f"{width}x{height}"}
                yield Part(about, partial(self._loading, protocol, (width, height)))
        for one in self.networks:
            for episodes in GRAPHED if cuda else ():
                about = {"kind": "graph", "network": one.name, "episodes": str(episodes)}
                yield Part(about, partial(one.step, episodes))
        for how in kinds:
            for one in self.networks:
                about = {"kind": "tuned", "network": one.name, "precision": how}
                yield Part(about, partial(one.tuned, how, self.episodes))
        for episodes in others:
            yield from self._rates(kinds, episodes)
        for one in self.networks[-1:] if cuda else ():
            yield Part({"kind": "compile", "network": one.name}, one.compiled, least=COMPILING)

    def check(self) -> list[dict[str, Any]]:
        """Compare episodes on the device with each other, and with the CPU's."""
        ynet, protocol = self.trained()
        starts = range(0, max(AT_ONCE) * self.batch_size, self.batch_size)
        batches = [made_batch(protocol, TYPES, range(start, start + self.batch_size)) for start in starts]
        return [check.as_json() for check in checks(ynet, protocol, batches, self.device)]

    def _rates(self, kinds: Iterable[str], episodes: int) -> Iterator[Part]:
        for how in kinds:
            for one in self.networks:
                about = {"kind": "rates", "network": one.name, "precision": how, "episodes": episodes}
                yield Part(about, partial(one.rates, how, episodes), f"{one.name} {how}", episodes)

    def _loading(self, protocol: str, size: tuple[int, int]) -> dict[str, Any]:
        chosen = self.networks[0].backbone.protocols[protocol]
        return loading_rate(self.folder, chosen, size, self.workers, self.batch_size, LOADING)


def forward_seconds(done: Iterable[Done], how: str) -> dict[str, float]:
    """Return the time of a forward-equivalent of one image by rank+gc, of the best number of episodes.

    how: one of PRECISIONS. By network.
    """
    found: dict[str, float] = {}
    for part in done:
        if part.about["kind"] == "rates" and part.about["precision"] == how and part.result is not None:
            seconds = 1 / part.result["rank+gc"]["images_per_second"] / FORWARD_EQUIVALENTS
            name = str(part.about["network"])
            found[name] = min(found.get(name, seconds), seconds)
    return found


def passed(done: Iterable[Done]) -> bool:
    """Return whether every check was made, and passed."""
    made: list[Mapping[str, Any]] = []
    for part in done:
        if part.about["kind"] == "check":
            if part.result is None:
                return False
            made += part.result
    return all(check["ok"] for check in made)
