"""Run E episodes as one program: batches side by side, each episode with its own parameters and statistics.

Everything that is not adapted sees one ordinary large batch. A normalisation layer that is adapted gets each
episode's rows in turn, with that episode's parameters and running statistics in place of the source's,
through its own forward: so any kind of layer works, and a single episode is exactly the ordinary forward
pass.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.system.errors import UserError
from common.y import Adaptable


@dataclass
class EpisodeState:
    """What E episodes adapt, stacked along dim 0."""

    sizes: list[int]  # number of images of each episode
    parameters: dict[str, Tensor]  # (E, *shape), by dotted name
    buffers: dict[str, Tensor]  # (E, *shape), by dotted name: running statistics

    @classmethod
    def from_source(cls, adaptable: Adaptable, sizes: Sequence[int]) -> "EpisodeState":
        """Start every episode at the source, in new tensors: nothing of an earlier one is left in them."""

        def stacked(tensor: Tensor) -> Tensor:
            return tensor.detach().expand(len(sizes), *tensor.shape).clone()

        parameters = {name: stacked(token).requires_grad_() for name, token in adaptable.tokens.items()}
        buffers: dict[str, Tensor] = {}
        for name, layer in adaptable.layers.items():
            for own, parameter in layer.named_parameters(recurse=False):
                parameters[f"{name}.{own}"] = stacked(parameter).requires_grad_()
            buffers |= {
                f"{name}.{own}": stacked(buffer) for own, buffer in layer.named_buffers(recurse=False)
            }
        return cls(list(sizes), parameters, buffers)


@contextmanager
def episode_parameters(
    network: nn.Module,
    adaptable: Adaptable,
    state: EpisodeState,
    batch_statistics: bool,
    momentum: Callable[[float | None], float],
) -> Iterator[None]:
    """Let `network` compute, while open, the episodes of `state` on their rows along dim 0.

    batch_statistics: normalise by the statistics of each episode's own rows, else by its running statistics.
    momentum: from a layer's own momentum to that of this pass; with 0 the running statistics stay.
    """
    touched, hooks = [], []
    try:
        for name, layer in adaptable.layers.items():
            touched.append(_saved(layer))
            parameters, buffers = (
                {n: stacked[f"{name}.{n}"].unbind() for n, tensor in own.items() if tensor is not None}
                for stacked, own in (
                    (state.parameters, layer._parameters),
                    (state.buffers, layer._buffers),
                )
            )
            if isinstance(layer, _BatchNorm):
                layer.training = batch_statistics
                layer.momentum = momentum(layer.momentum)
            forward = partial(_by_episode, layer, layer.forward, parameters, buffers, state.sizes)
            layer.__dict__["forward"] = forward
            # Without gradients nn.TransformerEncoderLayer reads the parameters of its layers past their
            # forward, unless hooked.
            hooks.append(layer.register_forward_pre_hook(lambda *_: None))
        for name in adaptable.tokens:
            path, _, token_name = name.rpartition(".")
            owner = network.get_submodule(path)
            touched.append(_saved(owner))
            tokens = zip(state.parameters[name], state.sizes)  # (1, ..., D) of each episode -> one per image
            rows = torch.cat([token.expand(n, *token.shape[1:]) for token, n in tokens])
            vars(owner)["_parameters"][token_name] = rows  # no Parameter: it has a history of gradients
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for saved in reversed(touched):
            saved.restore()


@dataclass(frozen=True)
class _Saved:
    """What a module was before episodes ran on it."""

    module: nn.Module
    attributes: dict[str, Any]
    parameters: dict[str, Any]
    buffers: dict[str, Any]

    def restore(self) -> None:
        vars(self.module).pop("forward", None)
        vars(self.module).update(self.attributes)
        self.module._parameters.update(self.parameters)
        self.module._buffers.update(self.buffers)


def _saved(module: nn.Module) -> _Saved:
    attributes: dict[str, Any] = {
        n: vars(module)[n] for n in ("forward", "training", "momentum") if n in vars(module)
    }
    return _Saved(module, attributes, dict(module._parameters), dict(module._buffers))


def _by_episode(
    layer: nn.Module,
    forward: Callable[[Tensor], Tensor],
    parameters: Mapping[str, Sequence[Tensor]],
    buffers: Mapping[str, Sequence[Tensor]],
    sizes: Sequence[int],
    x: Tensor,
) -> Tensor:
    # A network that cuts images into windows has more than one row per image.
    rows, rest = divmod(len(x), sum(sizes))
    if rest:
        raise UserError(
            f"a {type(layer).__name__} that adapts has {len(x)} rows for {sum(sizes)} images: images must "
            "lie along the first dimension (batch_first=True), or its kind cannot adapt"
        )
    outputs = []
    training = layer.training
    for episode, chunk in enumerate(x.split([rows * size for size in sizes])):
        vars(layer)["_parameters"].update({name: values[episode] for name, values in parameters.items()})
        vars(layer)["_buffers"].update({name: values[episode] for name, values in buffers.items()})
        # One value per channel has no spread: an image on a map of one pixel keeps the running statistics.
        layer.training = training and (not isinstance(layer, _BatchNorm) or chunk.numel() > chunk.shape[1])
        if isinstance(layer, nn.GroupNorm) and not chunk.requires_grad:
            # torch 2.6 and 2.7 crash in its backward on channels-last maps that ask for no gradient.
            chunk = chunk.contiguous()
        outputs.append(forward(chunk))
    layer.training = training
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def pass_momenta(
    order: Sequence[int], passes: int, fixed: float | None = None
) -> list[Callable[[float | None], float]]:
    """Return momenta with which `passes` passes leave the running statistics as if seen in `order`.

    The passes run as 0, 1, ...; one that `order` names twice counts twice, one that it leaves out not at all.
    Each entry maps a layer's momentum m, or `fixed` instead, to the pass's own. Exact for a layer that a pass
    visits once, since the statistics of a pass do not depend on the running ones.

    With n entries in `order`, statistics r end as (1 - m)^n r + sum_i w_i s_i, where s_i are those of pass i
    and w_i = sum of m (1 - m)^(n - 1 - k) over the positions k at which `order` names it. Momenta a_i, one a
    pass, give the same if after pass i the shares stand as (1 - m)^n : w_0 : ... : w_i, that is
    a_i = w_i / ((1 - m)^n + w_0 + ... + w_i); after the last pass that denominator is 1.
    """

    def share(index: int, m: float) -> float:  # of pass `index` in the final running statistics
        return sum(m * (1 - m) ** (len(order) - 1 - k) for k, seen in enumerate(order) if seen == index)

    def momentum(index: int, m: float | None) -> float:
        m = m if fixed is None else fixed
        m = 0.1 if m is None else m  # None would average over a lifetime, which an episode does not have
        own = share(index, m)  # 0 for a momentum of 1 where a later pass is seen
        earlier = (1 - m) ** len(order) + sum(share(i, m) for i in range(index + 1))
        return own / earlier if own else 0.0

    return [partial(momentum, index) for index in range(passes)]
