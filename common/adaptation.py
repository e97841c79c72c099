"""Test-time adaptation in a loop of your own: images in, scores out.

adapted = Adaptation(network, "layer4")
for images in loader:  # (N, 3, H, W), in [0, 1]
    scores = adapted(images)  # (N,)
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.adapter import Adapter, NotFinite
from common.batches import Batch, Views, collate, cut
from common.choice import Decision, decide
from common.photographs import Photograph
from common.protocols import METHODS, TUNED, Method, Protocol, Tuned
from common.stream import Streamed
from common.system.errors import UserError
from common.wrap import wrap
from common.y import YNetwork


class Adaptation:
    """A quality network that adapts to the images that it is called with. The network given is not changed.

    Under a Protocol each call is an episode of its own, on the images of that call. Under a Tuned the first
    `judge_on` images are kept in memory, at their own size in 8 bits, and scored by the source; the call that
    completes them decides by them how to adapt, and from then on the network that was decided on scores.

    An image is seen through one view, a crop and flips as the protocol says; one of exactly the view's size
    is not cropped. What is drawn depends on the seed and on how many images came before.
    """

    def __init__(
        self,
        network: nn.Module,
        features: str | None = None,
        *,
        protocol: Protocol | Tuned = TUNED,
        method: Method | str | None = None,
        seed: int = 0,
        size: int | None = None,
        **options: Any,
    ):
        """Wrap the network; it is tried on three images, frozen, and put in eval mode.

        network: (N, 3, S, S), normalised -> scores, larger = better; or one that is wrapped already.
        features: dotted name of the module where its extractor ends; None for one that is wrapped already.
        method: that runs under a Protocol, or its name in METHODS; by default rank+gc. A Tuned has its own.
        size: side of the view, pixels; by default the protocol's.
        options: score, adapt, mean and std of `common.wrap.wrap`.

        Raises UserError where the arguments contradict each other, and as `wrap` does.
        """
        tuned = protocol if isinstance(protocol, Tuned) else None
        own = protocol.protocol if isinstance(protocol, Tuned) else protocol
        own = replace(own, view=replace(own.view, size=size or own.view.size))
        self.tuned = None if tuned is None else tuned.on(own)
        self.protocol = own
        self.method = _method(method, tuned)
        self.seed = seed
        self.ynet = _wrapped(network, features, own.view.size, options)
        self.reset()

    def reset(self) -> None:
        """Forget all images, and the decision: the next call is as the first."""
        self.decision: Decision | None = None  # None before it is made, and under a Protocol
        self._seen = 0  # images
        self._gathered: list[np.ndarray] = []  # the first images, as long as nothing is decided
        self._network = Streamed(self.ynet)
        self._adapter = None if self.tuned else Adapter(self.ynet, self.protocol, self.method)

    def __call__(self, images: Tensor) -> Tensor:
        """Score images, (N, 3, H, W) in [0, 1] -> (N,), larger = better, on the device of the images.

        Raises UserError where they are not such images, and NotFinite where a score is not finite.
        """
        arrays = _eight_bits(images)
        first = self._seen
        self._seen += len(arrays)
        if self._adapter is not None:
            self.ynet.draw_head(self.seed)
            batch = self._batch(arrays, first, self.seed, self.method.types, self.method.second_views)
            (outcome,) = self._adapter([batch])
            return outcome.adapted.to(images.device)
        if self.tuned is not None and self.decision is None:
            self._gathered += arrays[: self.tuned.judge_on - len(self._gathered)]
            if len(self._gathered) == self.tuned.judge_on:
                self.decide()
        batch = self._batch(arrays, first, self.seed)
        scores = self._network.predict(batch.clean)
        if not (finite := scores.isfinite()).all():
            raise NotFinite(finite)
        return scores.to(images.device)

    def decide(self) -> Decision:
        """Decide by the images so far, and drop them; a decision that is made already stands.

        Raises UserError before the first image, and under a Protocol.
        """
        if self.tuned is None:
            raise UserError(f"the protocol {self.protocol.name} leaves nothing to decide: give a Tuned")
        if self.decision is None:
            if not self._gathered:
                raise UserError("no image has been seen that could be decided by")
            self.ynet.draw_head(self.seed)
            numbers = cut(range(len(self._gathered)), self.tuned.batch_size)
            parts = [(part[0], [self._gathered[n] for n in part]) for part in numbers]
            views = [
                self._batch(part, start, self.seed, self.tuned.types if start < self.tuned.adapt_on else ())
                for start, part in parts
            ]
            others = [self._batch(part, start, self.seed + 1) for start, part in parts]
            self.decision, self._network = decide(self.ynet, self.tuned, views, others)
            self._gathered = []
        return self.decision

    def _batch(
        self,
        arrays: Sequence[np.ndarray],
        first: int,
        seed: int,
        types: Sequence[str] = (),
        second_views: Sequence[str] = (),
    ) -> Batch:
        """Return the views of images; first: running number of the first one."""
        photographs = [Photograph(str(first + n), Path(str(n))) for n in range(len(arrays))]
        views = Views(
            photographs,
            seed,
            self.protocol.view,
            types,
            self.protocol.severities,
            read=lambda path: arrays[int(path.name)],
            second_views=second_views,
        )
        batch = collate([views[n] for n in range(len(arrays))])
        assert isinstance(batch, Batch)  # images in memory can all be read
        return batch


def _method(method: Method | str | None, tuned: Tuned | None) -> Method:
    if tuned is not None:
        if method is not None:
            raise UserError(f"{tuned.name} has methods of its own: leave out method, or give a Protocol")
        return METHODS["source"]
    if isinstance(method, Method):
        return method
    name = method or "rank+gc"
    if name not in METHODS:
        raise UserError(f"there is no method {name!r}: choose from {', '.join(METHODS)}")
    return METHODS[name]


def _wrapped(network: nn.Module, features: str | None, size: int, options: dict[str, Any]) -> YNetwork:
    if isinstance(network, YNetwork):
        if features is not None or options:
            given = ", ".join([*(["features"] if features is not None else []), *options])
            raise UserError(f"the network is wrapped already: leave out {given}")
        return network
    if features is None:
        parts = ", ".join(name for name, _ in network.named_children())
        raise UserError(f"no features: name the module where the extractor ends; the parts are {parts}")
    return wrap(network, features, size=size, **options)


def _eight_bits(images: Tensor) -> list[np.ndarray]:
    """Return images, (N, 3, H, W) in [0, 1], as N arrays of (H, W, 3), uint8."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.numel():
        raise UserError(f"images of shape {tuple(images.shape)}: give (N, 3, H, W)")
    if not images.is_floating_point():
        raise UserError(f"images of {images.dtype}: give floating point in [0, 1], as by images / 255")
    images = images.detach().float()
    low, high = (float(value) for value in images.aminmax())
    if not images.isfinite().all():
        raise UserError("images hold values that are not finite")
    if low < 0 or high > 1:
        raise UserError(
            f"images hold values from {low:g} to {high:g}: give them in [0, 1], not normalised; "
            "the network's mean and std are options"
        )
    return list((images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
