"""Test-time adaptation (Sec. 3): episodes from the source, each one batch; then the answer, and nothing is
left behind."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.batches import Batch
from common.distortions import TYPES
from common.episodes import EpisodeState, episode_parameters, pass_momenta
from common.losses import group_contrastive_loss, nt_xent_loss, rank_loss, rotate, split_groups
from common.protocols import Method, Protocol, Setting
from common.system.errors import UserError
from common.y import YNetwork

CPU_CHUNK = 8  # images of a pass by the source on a CPU


class StackedBatches(NamedTuple):
    """E batches side by side on the device, normalised. sizes: images of each batch, sum M. clean: (M, 3, S,
    S). pairs: (T, 2, M, 3, S, S), high and low of each of `types`. quarter_turns: (M,). second_views: of each
    kind (M, 3, S, S)."""

    sizes: list[int]
    types: Sequence[str]
    clean: Tensor
    pairs: Tensor
    quarter_turns: Tensor
    second_views: Mapping[str, Tensor] = MappingProxyType({})


class Source(NamedTuple):
    """What the source says of them. scores: (M,), the pseudo-labels. gaps: (M, T), |q(x_low) - q(x_high)| of
    each type, or None if no choice hangs on it. choice: (M,), index of the largest."""

    scores: Tensor
    gaps: Tensor | None
    choice: Tensor | None


@dataclass(frozen=True)
class Outcome:
    """One episode. source, adapted: (N,). choice: (N,), index into TYPES of the distortion that the rank loss
    looked at, -1 where it looked at none or at all of them. losses: (niter,). group_left_out: the batch was
    too small for the group loss. fell_back: a loss or score was not finite, so that `adapted` is the
    source's."""

    source: Tensor
    adapted: Tensor
    choice: Tensor
    losses: Tensor
    group_left_out: bool
    fell_back: bool


class NotFinite(UserError):
    """The source's own scores are not finite. finite: (M,), which are."""

    def __init__(self, finite: Tensor):
        super().__init__(
            "the source's own scores are not finite: the weights are damaged or belong to another network"
        )
        self.finite = finite


def stack_batches(ynet: YNetwork, batches: Sequence[Batch], types: Sequence[str] = TYPES) -> StackedBatches:
    """The batches side by side, on the device, normalised. types: those that their pairs are of."""
    return StackedBatches(
        [len(batch.clean) for batch in batches],
        types,
        ynet.normalised(torch.cat([batch.clean for batch in batches])),
        ynet.normalised(torch.cat([batch.pairs for batch in batches], dim=2)),
        torch.cat([batch.quarter_turns for batch in batches]).to(ynet.mean.device),
        {
            kind: ynet.normalised(torch.cat([batch.second_views[kind] for batch in batches]))
            for kind in batches[0].second_views
        },
    )


@torch.no_grad()
def score_source(ynet: YNetwork, images: StackedBatches, protocol: Protocol, choose: bool) -> Source:
    """Steps 2 and 4 of an episode: pseudo-labels and, if asked to, choice of distortion, from the scores of
    all distorted copies. Raises NotFinite where a score is not."""
    scores = ynet.predict(
        _laid_out(images.clean)
    )  # a pass of its own, so that no score hangs on whether a choice is asked for
    source = Source(scores, None, None)
    if choose:
        others = None
        if protocol.blur_first_scale_only:
            others = images.pairs.clone()
            others[images.types.index("blur")] = images.clean
            others = _laid_out(others.flatten(0, 2))
        versions = _predict_versions(ynet, _laid_out(images.pairs.flatten(0, 2)), others)
        high, low = versions.view(len(images.types), 2, -1).unbind(1)
        gaps = (low - high).abs().T
        source = Source(scores, gaps, gaps.argmax(1))
    if not (finite := source.scores.isfinite()).all():
        raise NotFinite(finite)
    return source


def _predict_versions(ynet: YNetwork, x: Tensor, others: Tensor | None) -> Tensor:
    # On a CPU the activations of so many images at once cost more in page faults than the larger batch saves.
    step = CPU_CHUNK if x.device.type == "cpu" else len(x)
    parts = zip(x.split(step), [None] * len(x) if others is None else others.split(step))
    return torch.cat([ynet.predict(part, other) for part, other in parts])


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(
        memory_format=torch.channels_last
    )  # clearly faster convolutions, on CPU and with tensor cores


class Adapter:
    """Adapts a network by one method under one protocol; what it may touch is looked up once, here."""

    def __init__(self, ynet: YNetwork, protocol: Protocol, method: Method):
        self.ynet = ynet
        self.protocol = protocol
        self.method = method = ynet.cut.with_default_adapt(method)
        if method.statistics_only and "bn" not in method.adapt:
            raise UserError(
                f"{method.name} moves the statistics of BN, which is not among what adapts: {'+'.join(method.adapt)}"
            )
        self.adaptable = ynet.adaptable(method.adapt) if method.adapts else None
        parameter = next(ynet.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.stateful = Setting(protocol, method).stateful
        self.carried: tuple[EpisodeState, torch.optim.Adam] | None = (
            None  # from the last episode to the next, if stateful
        )

    def __call__(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Run one episode per batch, all at once. The pairs of the batches are of the method's own types."""
        images = stack_batches(self.ynet, batches, self.method.types)
        (outcomes,) = self.run(images, score_source(self.ynet, images, self.protocol, self.method.chooses))
        return outcomes

    def run(
        self, images: StackedBatches, source: Source, stops: Sequence[int] | None = None
    ) -> list[list[Outcome]]:
        """Run the episodes on images that other methods may share, and on what the source says of them.

        stops: numbers of steps, rising, to answer after each; the method's own niter if None. A run passes
        through all of them. Returns the outcomes of the episodes for each stop.
        """
        if self.stateful and len(images.sizes) > 1:
            raise ValueError("state passes from one episode to the next: they cannot run at once")
        stops = [self.method.niter] if stops is None else list(stops)
        groups = self.groups(images, source)
        only_groups = self.method.group and not (self.method.rank or self.method.second_views)
        driven = [self.method.adapts and not (only_groups and group is None) for group in groups]
        if not any(driven):
            nothing = source.scores.new_zeros(0, len(images.sizes))
            return [self._outcomes(images, source, groups, driven, source.scores, nothing) for _ in stops]
        outcomes = []
        for step, (state, losses) in enumerate(self.steps(images, source, groups, stops[-1])):
            for _ in range(stops.count(step)):
                answers = self.answer(images, state)
                outcomes.append(self._outcomes(images, source, groups, driven, answers, losses))
        return outcomes

    def groups(self, images: StackedBatches, source: Source) -> list[list[Tensor] | None]:
        """Step 3: the groups of each episode, or None where the method has no group loss or the batch is too
        small for it."""
        if not self.method.group:
            return [None] * len(images.sizes)
        return [split_groups(q, self.method.p, self.method.groups) for q in source.scores.split(images.sizes)]

    def steps(
        self, images: StackedBatches, source: Source, groups: Sequence[list[Tensor] | None], niter: int
    ) -> Iterator[tuple[EpisodeState, Tensor]]:
        """Steps 1 and 5: the episodes at the source and after each of `niter` steps, with the losses so far,
        (steps, E).

        The state is the live one: the next step changes it.
        """
        protocol = self.protocol
        state, optimiser = self._start(images.sizes)
        passes, order = self._passes(images, source)
        momenta = pass_momenta(order, len(passes))
        losses = torch.zeros(niter, len(images.sizes), device=self.device, dtype=self.dtype)
        yield state, losses[:0]
        for step in range(niter):
            features = []
            with torch.set_grad_enabled(not self.method.statistics_only):
                for x, momentum in zip(passes, momenta):
                    with episode_parameters(
                        self.ynet, self.adaptable, state, batch_statistics=True, momentum=momentum
                    ):
                        features.append(self.ynet.features(x))
            if not self.method.statistics_only:
                loss = self._losses(features, images, groups)
                if not protocol.accumulate_gradients:
                    optimiser.zero_grad()
                loss.sum().backward()  # episodes share no parameter: each gets the gradient of its own loss
                optimiser.step()
                losses[step] = loss.detach()
            yield state, losses[: step + 1]

    def _start(self, sizes: list[int]) -> tuple[EpisodeState, torch.optim.Adam]:
        source = EpisodeState.from_source(self.adaptable, sizes)
        if self.carried is None:
            state, optimiser = source, torch.optim.Adam(source.parameters.values(), lr=self.protocol.lr)
        else:  # the tensors of the last episode, and with them Adam's moments
            state, optimiser = self.carried
            state.sizes = source.sizes
            if self.method.reset:
                state.buffers = source.buffers
                with torch.no_grad():
                    for name, parameter in state.parameters.items():
                        parameter.copy_(source.parameters[name])
            if not self.protocol.leak_state:
                optimiser.zero_grad()
        if self.stateful:
            self.carried = state, optimiser
        return state, optimiser

    def _passes(self, images: StackedBatches, source: Source) -> tuple[list[Tensor], list[int]]:
        """The images of each forward pass of a step, and the order in which the running statistics see the
        passes."""
        method, protocol = self.method, self.protocol
        if method.rotation:
            return [_laid_out(rotate(images.clean, images.quarter_turns))], [
                0
            ] if protocol.running_from == "all" else []
        passes = [_laid_out(images.second_views[kind]) for kind in method.second_views]
        for pair in self._pairs(images, source) if method.rank else ():
            high, low = pair
            passes += [_laid_out(low), _laid_out(high)]
        passes.append(_laid_out(images.clean))
        clean = len(passes) - 1
        order = list(range(len(passes)))
        if method.rank and method.group and protocol.own_group_pass:
            order = order + [clean] if protocol.own_group_pass == "after" else [clean] + order
        moving = {"all": order, "clean": [clean], "none": []}[protocol.running_from]
        return passes, [index for index in order if index in moving]

    def _pairs(self, images: StackedBatches, source: Source) -> Tensor:
        """The pairs that the rank loss looks at: (P, 2, M, 3, S, S), high and low."""
        if not self.method.chooses:
            wanted = [images.types.index(kind) for kind in self.method.types]
            return images.pairs if len(wanted) == len(images.types) else images.pairs[wanted]
        chosen = images.pairs[
            source.choice, :, torch.arange(len(source.choice), device=self.device)
        ]  # (M, 2, 3, S, S)
        return chosen.transpose(0, 1)[None]

    def _losses(
        self, features: Sequence[Tensor], images: StackedBatches, groups: Sequence[list[Tensor] | None]
    ) -> Tensor:
        """The loss of each episode (Eq. 7), (E,). features: of each pass, (M, D)."""
        if self.method.rotation:
            logits = self.ynet.turns(features[0]).split(images.sizes)
            turns = images.quarter_turns.split(images.sizes)
            return torch.stack([F.cross_entropy(x, turn) for x, turn in zip(logits, turns)])
        projected = [self.ynet.project(f).split(images.sizes) for f in features]
        return torch.stack([self._loss(z, group) for z, group in zip(zip(*projected), groups)])

    def _loss(self, projected: Sequence[Tensor], groups: list[Tensor] | None) -> Tensor:
        """Eq. 7 for one episode. projected: each second view, low and high of each pair, then clean, each (N,
        256)."""
        method, protocol = self.method, self.protocol
        *others, clean = projected
        distorted = others[len(method.second_views) :]
        loss = clean.new_zeros(())
        for _, second in zip(method.second_views, others):
            loss = loss + nt_xent_loss(second, clean, protocol.temperature)
        if method.rank:
            for low, high in zip(distorted[::2], distorted[1::2]):
                loss = loss + rank_loss(clean, high, low, protocol.rank_eps)
        if groups is not None:
            group = group_contrastive_loss(clean, groups, protocol.temperature, protocol.group_form)
            loss = loss + protocol.weight * group
        return loss

    @torch.no_grad()
    def answer(self, images: StackedBatches, state: EpisodeState) -> Tensor:
        """Step 6: scores of the clean batches by the adapted networks, (M,)."""
        batch_statistics = self.protocol.answer_from == "batch"
        with episode_parameters(self.ynet, self.adaptable, state, batch_statistics, lambda _: 0.0):
            return self.ynet.predict(_laid_out(images.clean))

    def _choice(self, source: Source) -> Tensor:
        method = self.method
        if method.chooses:
            return source.choice
        single = method.rank and method.distortion != "all"
        return torch.full((len(source.scores),), TYPES.index(method.distortion) if single else -1)

    def _outcomes(
        self,
        images: StackedBatches,
        source: Source,
        groups: Sequence[list[Tensor] | None],
        driven: Sequence[bool],
        answers: Tensor,
        losses: Tensor,
    ) -> list[Outcome]:
        scores, answers, losses = source.scores.cpu(), answers.cpu(), losses.cpu()
        choices = self._choice(source).cpu().split(images.sizes)
        outcomes = []
        for e, (own, adapted) in enumerate(zip(scores.split(images.sizes), answers.split(images.sizes))):
            broken = driven[e] and not (losses[:, e].isfinite().all() and adapted.isfinite().all())
            if broken:
                self.carried = None
            outcomes.append(
                Outcome(
                    own,
                    adapted if driven[e] and not broken else own,
                    choices[e],
                    losses[:, e],
                    self.method.group and groups[e] is None,
                    broken,
                )
            )
        return outcomes
