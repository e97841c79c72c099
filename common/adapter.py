"""Test-time adaptation (Sec. 3): an episode for each batch, from the source and back to it.

The six steps of an episode:

1. Start: what adapts and BN's running statistics are those of the source, and Adam is fresh.
2. Pseudo-labels: the source scores the clean batch.
3. Groups: the images with the lowest and with the highest of these scores (Sec. 3.2.1).
4. Distortion: for each image the type, of blur, JPEG and noise, whose strong and weak copies the source
   scores most differently (Sec. 3.2.2).
5. `niter` times: the passes go through extractor and head, L = L_rank + lambda L_GC (Eq. 7), a step of Adam.
6. Answer: the adapted network scores the clean batch. Then what was adapted is thrown away.

examples/one_episode.py has the same for a single batch in plain lines; here E episodes run as one program.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from common.batches import Batch
from common.distortions import LEVELS, TYPES
from common.episodes import EpisodeState, episode_parameters, pass_momenta
from common.losses import Episode, rotate, split_groups
from common.protocols import Method, Protocol, Setting
from common.system.errors import UserError
from common.y import Adaptable, YNetwork, unit_tensor

CPU_CHUNK = 8  # images of a pass by the source on a CPU


class StackedBatches(NamedTuple):
    """E batches side by side, on the device: M images, bytes or in [0, 1], which a pass normalises."""

    sizes: list[int]  # images of each batch, sum M
    types: tuple[str, ...]  # of the T pairs
    clean: Tensor  # (M, 3, S, S)
    pairs: Sequence[Tensor] | Tensor  # as of a Batch
    quarter_turns: Tensor  # (M,)
    second_views: Mapping[str, Tensor] = MappingProxyType({})  # kind -> (M, 3, S, S)


class Source(NamedTuple):
    """What the source says of M images."""

    scores: Tensor  # (M,), the pseudo-labels
    gaps: Tensor | None = (
        None  # (M, T), |q(x_low) - q(x_high)| of each type; None if the method does not choose
    )
    choice: Tensor | None = None  # (M,), index into TYPES of the largest gap
    spread: Tensor | None = None  # (), standard deviation of its scores of a stream; None: each batch's own


@dataclass(frozen=True)
class Outcome:
    """What came out of one episode, on N images."""

    source: Tensor  # (N,)
    adapted: Tensor  # (N,)
    choice: Tensor  # (N,), index into TYPES of what the rank loss looked at; -1: at none, or at all
    losses: Tensor  # (niter,); empty where no loss drove the episode
    group_left_out: bool  # the batch was too small for the group loss
    fell_back: bool  # a loss or score was not finite, so that `adapted` is the source's


class NotFinite(UserError):
    """The source's own scores are not finite."""

    def __init__(self, finite: Tensor):
        super().__init__(
            "the source's own scores are not finite: the weights are damaged or belong to another network"
        )
        self.finite = finite  # (M,), which scores are


def stack_batches(ynet: YNetwork, batches: Sequence[Batch]) -> StackedBatches:
    """Put batches of the same types of distortion side by side, on the device; a single one is not copied."""
    first, device = batches[0], ynet.mean.device
    return StackedBatches(
        [len(batch.clean) for batch in batches],
        first.types,
        _joined([batch.clean for batch in batches]).to(device),
        [_joined(pairs, dim=1).to(device) for pairs in zip(*(batch.pairs for batch in batches))],
        torch.cat([batch.quarter_turns for batch in batches]).to(device),
        {
            kind: _joined([batch.second_views[kind] for batch in batches]).to(device)
            for kind in first.second_views
        },
    )


def _joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    alike = len({part.dtype for part in parts}) == 1
    return torch.cat([part if alike else unit_tensor(part) for part in parts], dim)


@torch.no_grad()
def score_source(ynet: YNetwork, images: StackedBatches, protocol: Protocol, choose: bool) -> Source:
    """Take step 2, and step 4 if asked to choose: score the clean images, and all distorted copies.

    Raises NotFinite where a score is not finite, and ValueError where a choice is asked for and copies of one
    of the types are missing.
    """
    scores = ynet.predict(
        _entering(ynet, images.clean)
    )  # a pass of its own: no score hangs on whether a choice is made
    if not (finite := scores.isfinite()).all():
        raise NotFinite(finite)
    if not choose:
        return Source(scores)
    if images.types[: len(TYPES)] != TYPES:
        raise ValueError(
            f"a choice is among {', '.join(TYPES)}, and there are pairs of {', '.join(images.types)}"
        )
    copies = [copy for pair in images.pairs[: len(TYPES)] for copy in pair]
    further_scales = None
    if protocol.blur_first_scale_only:
        blurred = [kind == "blur" for kind in TYPES for _ in LEVELS]
        further_scales = [images.clean if blur else copy for blur, copy in zip(blurred, copies)]
    high, low = _predict_copies(ynet, copies, further_scales).view(len(TYPES), len(LEVELS), -1).unbind(1)
    gaps = (low - high).abs().T
    return Source(scores, gaps, gaps.argmax(1))


def _predict_copies(ynet: YNetwork, copies: Sequence[Tensor], further: Sequence[Tensor] | None) -> Tensor:
    """Return the scores of all copies; further: what their further scales are made from."""
    total = sum(map(len, copies))
    # On a CPU the activations of so many images at once cost more in page faults than the larger batch saves.
    step = CPU_CHUNK if copies[0].device.type == "cpu" else total
    scores = []
    for start in range(0, total, step):
        x, other = (None if of is None else _rows(ynet, of, start, start + step) for of in (copies, further))
        assert x is not None
        scores.append(ynet.predict(x, other))
    return torch.cat(scores)


def _rows(ynet: YNetwork, parts: Sequence[Tensor], start: int, stop: int) -> Tensor:
    """Return images `start` to `stop`, entering, of parts that are counted as if they were one tensor."""
    found = []
    for part in parts:
        if (own := part[max(0, start) : max(0, stop)]).numel():
            found.append(_entering(ynet, own))
        start, stop = start - len(part), stop - len(part)
    return found[0] if len(found) == 1 else torch.cat(found)


def _entering(ynet: YNetwork, x: Tensor) -> Tensor:
    """Return images as they enter the network: normalised and laid out."""
    return _laid_out(ynet.normalised(x))


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(
        memory_format=torch.channels_last
    )  # clearly faster convolutions, on CPU and tensor cores


def _still(momentum: float | None) -> float:
    return 0.0  # the running statistics stay


class Adapter:
    """Adapts a network by one method under one protocol; what it may touch is looked up once, here."""

    def __init__(self, ynet: YNetwork, protocol: Protocol, method: Method):
        self.ynet = ynet
        self.protocol = protocol
        self.method = method = ynet.cut.with_default_adapt(method)
        kinds = method.adapt or ()
        if method.adapts and not method.takes_steps and "bn" not in kinds:
            raise UserError(
                f"{method.name} moves the statistics of BN, which is not among what adapts: {'+'.join(kinds)}"
            )
        self.adaptable = ynet.adaptable(kinds) if method.adapts else Adaptable()
        self.terms = method.terms
        self.momenta = pass_momenta(self._order_for_statistics(), len(method.passes), protocol.momentum)
        self.heads = {"projection": ynet.project, "rotation": ynet.turns}  # by Term.reads
        self.reads: dict[str, set[str]] = {}  # by pass, what the terms read of it
        for term, served in self.terms:
            for name in served.values():
                self.reads.setdefault(name, set()).add(term.reads)
        parameter = next(ynet.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.stateful = Setting(protocol, method).stateful
        self.carried: tuple[EpisodeState, torch.optim.Adam] | None = (
            None  # from episode to episode, if stateful
        )

    def __call__(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Run one episode per batch, all at once."""
        images = stack_batches(self.ynet, batches)
        (outcomes,) = self.run(images, score_source(self.ynet, images, self.protocol, self.method.chooses))
        return outcomes

    def run(
        self, images: StackedBatches, source: Source, stops: Sequence[int] | None = None
    ) -> list[list[Outcome]]:
        """Run the episodes on images that other methods may share, and on what the source says of them.

        stops: numbers of steps, rising, to answer after each; the method's own niter if None. One run passes
        through all of them. Returns the outcomes of the episodes for each stop.
        """
        if self.stateful and len(images.sizes) > 1:
            raise ValueError("state passes from one episode to the next: they cannot run at once")
        stops = [self.method.niter] if stops is None else list(stops)
        groups = self.groups(images, source)
        driven = [self.method.adapts and not (self.method.groups_only and own is None) for own in groups]
        if not any(driven):
            no_losses = source.scores.new_zeros(0, len(images.sizes))
            return [self._outcomes(images, source, groups, driven, source.scores, no_losses)] * len(stops)
        outcomes = []
        for step, (state, losses) in enumerate(self.steps(images, source, groups, stops[-1])):
            if step in stops:
                answers = self.answer(images.clean, state)
                found = self._outcomes(images, source, groups, driven, answers, losses)
                outcomes += [found] * stops.count(step)
        return outcomes

    def groups(self, images: StackedBatches, source: Source) -> list[list[Tensor] | None]:
        """Take step 3: the groups of each episode.

        They are None without a group loss, and where the batch is too small for it.
        """
        if not self.method.splits_groups:
            return [None] * len(images.sizes)
        return [split_groups(q, self.method.p, self.method.groups) for q in source.scores.split(images.sizes)]

    def steps(
        self,
        images: StackedBatches,
        source: Source,
        groups: Sequence[list[Tensor] | None],
        niter: int,
    ) -> Iterator[tuple[EpisodeState, Tensor]]:
        """Take steps 1 and 5: yield the episodes at the source and after each of `niter` steps.

        With them come the losses so far, (steps, E). The state is the live one: the next step changes it.
        """
        state, optimiser = self._start(images.sizes)
        passes = self.passes(images, source)
        episodes = self._episodes(images, source, groups)
        losses = torch.zeros(niter, len(images.sizes), device=self.device, dtype=self.dtype)
        yield state, losses[:0]
        for step in range(niter):
            read: dict[tuple[str, str], Tensor] = {}
            with torch.set_grad_enabled(self.method.takes_steps):
                for (name, x), momentum in zip(passes.items(), self.momenta):
                    read |= self._pass(name, x, state, momentum)
            if self.method.takes_steps:
                loss = self._losses(read, episodes, images.sizes)
                if not self.protocol.accumulate_gradients:
                    optimiser.zero_grad()
                loss.sum().backward()  # episodes share no parameter: each gets the gradient of its own loss
                optimiser.step()
                losses[step] = loss.detach()
            yield state, losses[: step + 1]

    def _episodes(
        self, images: StackedBatches, source: Source, groups: Sequence[list[Tensor] | None]
    ) -> list[Episode]:
        scores = source.scores.split(images.sizes)
        spreads = [own.std(correction=0) if source.spread is None else source.spread for own in scores]
        return [Episode(*own) for own in zip(groups, images.quarter_turns.split(images.sizes), spreads)]

    def _pass(
        self, name: str, x: Tensor, state: EpisodeState, momentum: Callable[[float | None], float]
    ) -> dict[tuple[str, str], Tensor]:
        """Run a pass of a step; return what the terms read of it, by (Term.reads, name of the pass).

        Only where scores are all that is read, the network runs further than the extractor, and only where
        both are read, it runs twice.
        """
        reads = self.reads[name]
        batch_statistics = self.protocol.steps_from == "batch"
        found: dict[tuple[str, str], Tensor] = {}
        if reads != {"score"}:
            with episode_parameters(self.ynet, self.adaptable, state, batch_statistics, momentum):
                features = self.ynet.features(x)
            if self.method.takes_steps:
                found |= {(kind, name): self.heads[kind](features) for kind in reads - {"score"}}
            momentum = _still
        if "score" in reads:
            with episode_parameters(self.ynet, self.adaptable, state, batch_statistics, momentum):
                found["score", name] = self.ynet.predict(x)
        return found

    def _start(self, sizes: list[int]) -> tuple[EpisodeState, torch.optim.Adam]:
        """Take step 1, from what the last episode passes on where one does."""
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

    def passes(self, images: StackedBatches, source: Source) -> dict[str, Tensor]:
        """Return the images of each forward pass of step 5, by name, in the order in which they run."""
        named = {"clean": images.clean, **images.second_views}
        if "turned" in self.method.passes:
            named["turned"] = rotate(images.clean, images.quarter_turns)
        found = {name: self.ynet.normalised(x) for name, x in named.items() if name in self.method.passes}
        for suffix, pair in self._pairs(images, source).items():
            found |= {level + suffix: copy for level, copy in zip(LEVELS, pair)}
        return {name: _laid_out(found[name]) for name in self.method.passes}

    def _pairs(self, images: StackedBatches, source: Source) -> dict[str, Tensor]:
        """Return the pairs that are compared, each (2, M, 3, S, S), normalised.

        A key is what follows "low" and "high" in the names of their passes.
        """
        pairs = (
            (kind, self.ynet.normalised(images.pairs[images.types.index(kind)])) for kind in self.method.types
        )
        if self.method.chooses:
            assert source.choice is not None
            _, chosen = next(pairs)
            for number, (_, pair) in enumerate(pairs, 1):
                chosen = torch.where((source.choice == number).view(-1, 1, 1, 1), pair, chosen)
            return {"": chosen}
        several = self.method.distortion == "all"
        return {f" {kind}" if several else "": pair for kind, pair in pairs}

    def _order_for_statistics(self) -> list[int]:
        """Return indices of the passes in the order in which BN's running statistics see them."""
        names, protocol = list(self.method.passes), self.protocol
        order = list(range(len(names)))
        if {"rank", "group"} <= set(self.method.losses) and protocol.own_group_pass is not None:
            clean = [names.index("clean")]
            order = order + clean if protocol.own_group_pass == "after" else clean + order
        if protocol.running_from == "none":
            return []
        return (
            order if protocol.running_from == "all" else [index for index in order if names[index] == "clean"]
        )

    def _losses(
        self, read: Mapping[tuple[str, str], Tensor], episodes: Sequence[Episode], sizes: list[int]
    ) -> Tensor:
        """Return the loss of each episode (Eq. 7), (E,).

        read: by (Term.reads, name of the pass), of the M images of all episodes.
        """
        by_episode = {key: tensor.split(sizes) for key, tensor in read.items()}
        like = next(iter(read.values()))
        losses = []
        for number, episode in enumerate(episodes):
            loss = like.new_zeros(())
            for term, served in self.terms:
                if term.value is not None and not (term.needs_groups and episode.groups is None):
                    own = {need: by_episode[term.reads, name][number] for need, name in served.items()}
                    loss = loss + term.value(own, episode, self.protocol)
            losses.append(loss)
        return torch.stack(losses)

    @torch.no_grad()
    def answer(self, clean: Tensor, state: EpisodeState) -> Tensor:
        """Take step 6: scores of clean batches, as stacked, (M, 3, S, S), by the adapted networks, (M,)."""
        batch_statistics = self.protocol.answer_from == "batch"
        with episode_parameters(self.ynet, self.adaptable, self._anchored(state), batch_statistics, _still):
            return self.ynet.predict(_entering(self.ynet, clean))

    def _anchored(self, state: EpisodeState) -> EpisodeState:
        """Return the state with running statistics between the source's and its own, as `alpha` says."""
        if self.protocol.alpha == 1:
            return state
        source = EpisodeState.from_source(self.adaptable, state.sizes).buffers
        share = self.protocol.alpha
        buffers = {
            name: own.lerp(moved, share) if own.is_floating_point() else own
            for (name, own), moved in zip(source.items(), state.buffers.values())
        }
        return EpisodeState(state.sizes, state.parameters, buffers)

    def _choice(self, source: Source) -> Tensor:
        if source.choice is not None and self.method.chooses:
            return source.choice
        types = self.method.types
        alone = TYPES.index(types[0]) if len(types) == 1 and types[0] in TYPES else -1
        return torch.full((len(source.scores),), alone)

    def _outcomes(
        self,
        images: StackedBatches,
        source: Source,
        groups: Sequence[list[Tensor] | None],
        driven: Sequence[bool],
        answers: Tensor,
        losses: Tensor,
    ) -> list[Outcome]:
        """Return what came out of each episode, on the CPU.

        One that is not finite falls back to the source.
        """
        by_episode = zip(
            *(x.cpu().split(images.sizes) for x in (source.scores, answers, self._choice(source))),
            losses.cpu().unbind(1),
            groups,
            driven,
        )
        outcomes = []
        for scores, adapted, choice, loss, own, moved in by_episode:
            broken = moved and not (loss.isfinite().all() and adapted.isfinite().all())
            if broken:
                self.carried = None
            kept = adapted if moved and not broken else scores
            left_out = self.method.splits_groups and own is None
            if not (moved and self.method.takes_steps):
                loss = loss[:0]
            outcomes.append(Outcome(scores, kept, choice, loss, left_out, broken))
        return outcomes
