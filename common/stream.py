"""Adaptation over a stream: from batch to batch without a reset, then one network scores everything."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from common.adapter import Adapter, StackedBatches, score_source, stack_batches
from common.batches import Batch
from common.episodes import EpisodeState
from common.protocols import Setting
from common.y import YNetwork


def adapt_over(
    ynet: YNetwork, setting: Setting, batches: Iterable[Batch], spread: Tensor | None = None
) -> EpisodeState:
    """Adapt over the batches in their order, `niter` steps on each, and return where that ends.

    spread: (), standard deviation of the source's scores over the stream; None: of each batch alone.
    """
    method = replace(setting.method, reset=False)
    adapter = Adapter(ynet, setting.protocol, method)
    state = EpisodeState.from_source(adapter.adaptable, [1])
    for batch in batches:
        images = stack_batches(ynet, [batch])
        source = score_source(ynet, images, setting.protocol, method.chooses)._replace(spread=spread)
        groups = adapter.groups(images, source)
        *_, (state, _) = adapter.steps(images, source, groups, method.niter)
    return state


@torch.no_grad()
def score_by(adapter: Adapter, state: EpisodeState, images: StackedBatches) -> Tensor:
    """Return the scores of images by the network that a stream ended with, (M,)."""
    one = EpisodeState([sum(images.sizes)], state.parameters, state.buffers)
    return adapter.answer(images, one)
