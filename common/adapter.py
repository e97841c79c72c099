"""Test-time adaptation (Sec. 3): episodes from the source, each one batch; then the answer, and nothing is left behind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.batches import Batch
from common.episodes import EpisodeState, inhabit, pass_momenta
from common.errors import UserError
from common.losses import group_contrastive_loss, rank_loss, rotate, split_groups
from common.protocols import Method, Protocol
from common.y import YNetwork

MEAN = (0.485, 0.456, 0.406)  # ImageNet
STD = (0.229, 0.224, 0.225)
CPU_CHUNK = 8  # images of a pass by the source on a CPU


class Images(NamedTuple):
    """E batches side by side on the device, normalised. sizes: images of each batch, sum M. clean: (M, 3, S, S).
    pairs: (T, 2, M, 3, S, S), high and low of each distortion type. quarter_turns: (M,)."""

    sizes: list[int]
    clean: Tensor
    pairs: Tensor
    quarter_turns: Tensor


class Source(NamedTuple):
    """What the source says of them. scores: (M,), the pseudo-labels. gaps: (M, T), |q(x_low) - q(x_high)| of each type, or None
    if no choice hangs on it. choice: (M,), index of the largest."""

    scores: Tensor
    gaps: Tensor | None
    choice: Tensor | None


@dataclass(frozen=True)
class Outcome:
    """One episode. source, adapted: (N,). choice: (N,), index of the chosen distortion type, or None. losses: (niter,).
    group_left_out: the batch was too small for the group loss. fell_back: a loss or score was not finite, so that `adapted`
    is the source's."""

    source: Tensor
    adapted: Tensor
    choice: Tensor | None
    losses: Tensor
    group_left_out: bool
    fell_back: bool


class Adapter:
    """Adapts a network by one method under one protocol; what it may touch is looked up once, here."""

    def __init__(self, y: YNetwork, protocol: Protocol, method: Method):
        self.y = y
        self.protocol = protocol
        self.method = method
        if method.statistics_only and "bn" not in method.adapt:
            raise UserError(f"{method.name} moves the statistics of BN, which is not among what adapts: {'+'.join(method.adapt)}")
        self.adaptable = y.adaptable(method.adapt) if method.adapts else None
        parameter = next(y.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.mean, self.std = (torch.tensor(v, device=self.device, dtype=self.dtype).view(3, 1, 1) for v in (MEAN, STD))
        self.leaked: tuple[dict[str, Tensor], torch.optim.Adam] | None = None  # only under `leak_state`

    def __call__(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Run one episode per batch, all at once."""
        if self.protocol.leak_state and len(batches) > 1:
            raise ValueError("state leaks from one episode to the next: they cannot run at once")
        images = self.images(batches)
        source = self.source(images)
        if not source.scores.isfinite().all():
            raise UserError("the source's own scores are not finite: the weights are damaged or belong to another network")
        groups = self.groups(images, source)
        driven = [self.method.adapts and (not self.method.group or self.method.rank or g is not None) for g in groups]
        if any(driven):
            state, losses = self.adapt(images, source, groups)
            answers = self.answer(images, state)
        else:
            losses, answers = source.scores.new_zeros(0, len(batches)), source.scores
        return self._outcomes(images, source, groups, driven, answers, losses)

    def images(self, batches: Sequence[Batch]) -> Images:
        """The batches side by side, on the device, normalised."""
        return Images(
            [len(batch.clean) for batch in batches],
            self._normalised(torch.cat([batch.clean for batch in batches])),
            self._normalised(torch.cat([batch.pairs for batch in batches], dim=2)),
            torch.cat([batch.quarter_turns for batch in batches]).to(self.device),
        )

    def _normalised(self, x: Tensor) -> Tensor:
        return (x.to(self.device, self.dtype) - self.mean) / self.std

    @torch.no_grad()
    def source(self, images: Images) -> Source:
        """Steps 2 and 4 of an episode: pseudo-labels and choice of distortion, one pass over all versions of the images."""
        if not self.method.rank or self.method.distortion != "best":
            return Source(self.y.predict(self._laid_out(images.clean)), None, None)
        versions = torch.cat((images.clean[None], images.pairs.flatten(0, 1)))  # clean, then high and low of each type
        others = None
        if self.protocol.blur_first_scale_only:
            others = versions.clone()
            others[1 + 2 * self.method.types.index("blur") :][:2] = images.clean
            others = self._laid_out(others.flatten(0, 1))
        scores = self._predict_versions(self._laid_out(versions.flatten(0, 1)), others).view(len(versions), -1)
        high, low = scores[1:].unflatten(0, (-1, 2)).unbind(1)
        gaps = (low - high).abs().T
        return Source(scores[0], gaps, gaps.argmax(1))

    def _predict_versions(self, x: Tensor, others: Tensor | None) -> Tensor:
        # On a CPU the activations of so many images at once cost more in page faults than the larger batch saves.
        step = CPU_CHUNK if self.device.type == "cpu" else len(x)
        parts = zip(x.split(step), [None] * len(x) if others is None else others.split(step))
        return torch.cat([self.y.predict(part, other) for part, other in parts])

    def groups(self, images: Images, source: Source) -> list[list[Tensor] | None]:
        """Step 3: the groups of each episode, or None where the method has no group loss or the batch is too small for it."""
        if not self.method.group:
            return [None] * len(images.sizes)
        return [split_groups(q, self.method.p, self.method.groups) for q in source.scores.split(images.sizes)]

    def adapt(self, images: Images, source: Source, groups: Sequence[list[Tensor] | None]) -> tuple[EpisodeState, Tensor]:
        """Steps 1 and 5: the adapted episodes, and the loss of each step and episode, (niter, E)."""
        protocol = self.protocol
        state, optimiser = self._start(images.sizes)
        passes, order = self._passes(images, source)
        momenta = pass_momenta(order, len(passes))
        losses = torch.zeros(self.method.niter, len(images.sizes), device=self.device, dtype=self.dtype)
        for step in range(self.method.niter):
            features = []
            with torch.set_grad_enabled(not self.method.statistics_only):
                for x, momentum in zip(passes, momenta):
                    with inhabit(self.y, self.adaptable, state, batch_statistics=True, momentum=momentum):
                        features.append(self.y.features(x))
            if self.method.statistics_only:
                continue
            loss = self._losses(features, images, groups)
            if not protocol.accumulate_gradients:
                optimiser.zero_grad()
            loss.sum().backward()  # episodes share no parameter: each gets the gradient of its own loss
            optimiser.step()
            losses[step] = loss.detach()
        return state, losses

    def _start(self, sizes: list[int]) -> tuple[EpisodeState, torch.optim.Adam]:
        state = EpisodeState.from_source(self.adaptable, sizes)
        if self.leaked is None:
            optimiser = torch.optim.Adam(state.parameters.values(), lr=self.protocol.lr)
        else:  # the source's values in the tensors of the last episode, which still carry gradients and moments
            parameters, optimiser = self.leaked
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(state.parameters[name])
            state.parameters = parameters
        if self.protocol.leak_state:
            self.leaked = state.parameters, optimiser
        return state, optimiser

    def _passes(self, images: Images, source: Source) -> tuple[list[Tensor], list[int]]:
        """The images of each forward pass of a step, and the order in which the running statistics see the passes."""
        method, protocol = self.method, self.protocol
        if method.rotation:
            return [self._laid_out(rotate(images.clean, images.quarter_turns))], [0] if protocol.running_from == "all" else []
        passes = []
        for pair in self._pairs(images, source) if method.rank else ():
            high, low = pair
            passes += [self._laid_out(low), self._laid_out(high)]
        passes.append(self._laid_out(images.clean))
        clean = len(passes) - 1
        order = list(range(len(passes)))
        if method.rank and method.group and protocol.own_group_pass:
            order = order + [clean] if protocol.own_group_pass == "after" else [clean] + order
        moving = {"all": order, "clean": [clean], "none": []}[protocol.running_from]
        return passes, [index for index in order if index in moving]

    def _pairs(self, images: Images, source: Source) -> Tensor:
        """The pairs that the rank loss looks at: (P, 2, M, 3, S, S), high and low."""
        if source.choice is None:
            return images.pairs
        chosen = images.pairs[source.choice, :, torch.arange(len(source.choice), device=self.device)]  # (M, 2, 3, S, S)
        return chosen.transpose(0, 1)[None]

    def _losses(self, features: Sequence[Tensor], images: Images, groups: Sequence[list[Tensor] | None]) -> Tensor:
        """The loss of each episode (Eq. 7), (E,). features: of each pass, (M, D)."""
        if self.method.rotation:
            logits = self.y.turns(features[0]).split(images.sizes)
            turns = images.quarter_turns.split(images.sizes)
            return torch.stack([F.cross_entropy(x, turn) for x, turn in zip(logits, turns)])
        projected = [self.y.project(f).split(images.sizes) for f in features]
        return torch.stack([self._loss(z, group) for z, group in zip(zip(*projected), groups)])

    def _loss(self, projected: Sequence[Tensor], groups: list[Tensor] | None) -> Tensor:
        """Eq. 7 for one episode. projected: low and high of each pair, then clean, each (N, 256)."""
        method, protocol = self.method, self.protocol
        *distorted, clean = projected
        loss = clean.new_zeros(())
        if method.rank:
            for low, high in zip(distorted[::2], distorted[1::2]):
                loss = loss + rank_loss(clean, high, low, protocol.rank_eps)
        if groups is not None:
            group = group_contrastive_loss(clean, groups, protocol.temperature, protocol.group_form)
            loss = loss + protocol.weight * group
        return loss

    @torch.no_grad()
    def answer(self, images: Images, state: EpisodeState) -> Tensor:
        """Step 6: scores of the clean batches by the adapted networks, (M,)."""
        batch_statistics = self.protocol.answer_from == "batch"
        with inhabit(self.y, self.adaptable, state, batch_statistics, lambda _: 0.0):
            return self.y.predict(self._laid_out(images.clean))

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)  # clearly faster convolutions, on CPU and with tensor cores

    def _outcomes(
        self,
        images: Images,
        source: Source,
        groups: Sequence[list[Tensor] | None],
        driven: Sequence[bool],
        answers: Tensor,
        losses: Tensor,
    ) -> list[Outcome]:
        scores, answers, losses = source.scores.cpu(), answers.cpu(), losses.cpu()
        choices = [None] * len(groups) if source.choice is None else source.choice.cpu().split(images.sizes)
        outcomes = []
        for e, (own, adapted) in enumerate(zip(scores.split(images.sizes), answers.split(images.sizes))):
            broken = driven[e] and not (losses[:, e].isfinite().all() and adapted.isfinite().all())
            if broken:
                self.leaked = None
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
