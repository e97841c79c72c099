"""Adaptation over a stream: from batch to batch without a reset, and one network that scores everything."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from common.adapter import Adapter, Outcome, Source, score_source, stack_batches
from common.batches import Batch
from common.episodes import EpisodeState
from common.protocols import PAPER, Setting
from common.y import YNetwork

CHUNK = 16  # images of a pass by the network that a stream ended with


class Streamed:
    """A network as a stream of batches left it; or the source, where no setting says how to adapt."""

    def __init__(
        self,
        ynet: YNetwork,
        setting: Setting | None = None,
        batches: Iterable[Batch] = (),
        spread: Tensor | None = None,
    ):
        """Adapt a network over the batches in their order, `niter` steps on each, from the source.

        setting: of a method without reset. spread: (), standard deviation of the source's scores over the
        stream; None: of each batch alone.
        """
        self.ynet = ynet
        self.adapter: Adapter | None = None
        self.state: EpisodeState | None = None
        self.known: Mapping[int, tuple[float, float]] = {}  # the source's score and its own, by index
        if setting is None:
            return
        protocol, method = setting
        adapter = self.adapter = Adapter(ynet, protocol, method)
        reads_source = spread is None or method.splits_groups or method.chooses
        for batch in batches:
            images = stack_batches(ynet, [batch])
            if reads_source:
                source = score_source(ynet, images, protocol, method.chooses)
            else:
                source = Source(ynet.mean.new_zeros(len(images.clean)))  # nothing reads these scores
            source = source._replace(spread=spread)
            *_, (self.state, _) = adapter.steps(images, source, adapter.groups(images, source), method.niter)

    @torch.no_grad()
    def predict(self, clean: Tensor) -> Tensor:
        """Return the scores of images, bytes or in [0, 1], (N, 3, S, S) -> (N,)."""
        return torch.cat([self._scores(part) for part in clean.split(CHUNK)])

    def _scores(self, clean: Tensor) -> Tensor:
        if self.adapter is None or self.state is None:
            return self.ynet.predict(
                self.ynet.normalised(clean).contiguous(memory_format=torch.channels_last)
            )
        one = EpisodeState([len(clean)], self.state.parameters, self.state.buffers)
        return self.adapter.answer(clean, one)

    def __call__(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Score batches, by the source too. Raises NotFinite where a score of the source is not finite.

        Batches of images that are all known are not scored again.
        """
        if self.known and all(index in self.known for batch in batches for index in batch.indices.tolist()):
            return [self._remembered(batch) for batch in batches]
        images = stack_batches(self.ynet, batches)
        source = score_source(self.ynet, images, PAPER, False).scores
        adapted = source if self.state is None else self.predict(images.clean)
        outcomes = []
        for before, after in zip(source.cpu().split(images.sizes), adapted.cpu().split(images.sizes)):
            broken = not bool(after.isfinite().all())
            outcomes.append(_outcome(before, before if broken else after, broken))
        return outcomes

    def _remembered(self, batch: Batch) -> Outcome:
        scores = torch.tensor([self.known[index] for index in batch.indices.tolist()], dtype=torch.float64)
        before, after = scores.to(self.ynet.mean.dtype).unbind(1)
        return _outcome(before, after, False)


def _outcome(source: Tensor, adapted: Tensor, fell_back: bool) -> Outcome:
    """Return the outcome of a batch without steps of its own."""
    return Outcome(source, adapted, torch.full((len(source),), -1), torch.zeros(0), False, fell_back)
