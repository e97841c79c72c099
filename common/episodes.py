"""E episodes as one program: the batches side by side, every episode with its own adapted parameters and
statistics.

Everything that is not adapted sees one ordinary large batch. A normalisation layer that is adapted gets each
episode's rows in turn, with that episode's parameters and running statistics in place of the source's,
through its own forward: so any kind of layer works, and a single episode is exactly the ordinary forward
pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.system.errors import UserError
from common.y import Adaptable


@dataclass
class EpisodeState:
    """What E episodes adapt, stacked: tensors of shape (E, *shape) by dotted name, and the number of images
    of each."""

    sizes: list[int]
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    @classmethod
    def from_source(cls, adaptable: Adaptable, sizes: Sequence[int]) -> "EpisodeState":
        """Every episode at the source: new tensors, so nothing of an earlier episode can be left in them."""

        def stacked(tensor: Tensor) -> Tensor:
            return tensor.detach().expand(len(sizes), *tensor.shape).clone()

        parameters = {name: stacked(token).requires_grad_() for name, token in adaptable.tokens.items()}
        buffers = {}
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
    momentum: Callable[[float], float],
) -> Iterator[None]:
    """While open, `network` computes the episodes of `state` on their rows, one episode after the other along
    dim 0.

    batch_statistics: normalise by the statistics of each episode's own rows, else by its running statistics.
    momentum: from a layer's own momentum to that of this pass; with 0 the running statistics stay.
    """
    touched, hooks = [], []
    try:
        for name, layer in adaptable.layers.items():
            touched.append(_saved(layer))
            parameters = {
                n: state.parameters[f"{name}.{n}"].unbind()
                for n in layer._parameters
                if layer._parameters[n] is not None
            }
            buffers = {
                n: state.buffers[f"{name}.{n}"].unbind()
                for n in layer._buffers
                if layer._buffers[n] is not None
            }
            if hasattr(layer, "momentum"):  # batch normalisation
                layer.training = batch_statistics
                layer.momentum = momentum(layer.momentum)
            layer.forward = partial(_by_episode, layer, layer.forward, parameters, buffers, state.sizes)
            # Without gradients nn.TransformerEncoderLayer reads the parameters of its layers past their
            # forward, unless hooked.
            hooks.append(layer.register_forward_pre_hook(lambda *_: None))
        for name in adaptable.tokens:
            owner, own = network.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
            touched.append(_saved(owner))
            tokens = zip(state.parameters[name], state.sizes)  # (1, ..., D) of each episode -> one per image
            owner._parameters[own] = torch.cat([token.expand(n, *token.shape[1:]) for token, n in tokens])
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, attributes, parameters, buffers in reversed(touched):
            module.__dict__.pop("forward", None)
            module.__dict__.update(attributes)
            module._parameters.update(parameters)
            module._buffers.update(buffers)


def _saved(module: nn.Module) -> tuple[nn.Module, dict, dict, dict]:
    attributes = {n: module.__dict__[n] for n in ("forward", "training", "momentum") if n in module.__dict__}
    return module, attributes, dict(module._parameters), dict(module._buffers)


def _by_episode(
    layer: nn.Module,
    forward: Callable[[Tensor], Tensor],
    parameters: dict[str, Sequence[Tensor]],
    buffers: dict[str, Sequence[Tensor]],
    sizes: Sequence[int],
    x: Tensor,
) -> Tensor:
    rows, rest = divmod(
        len(x), sum(sizes)
    )  # more than one per image where the network cuts images into windows
    if rest:
        raise UserError(
            f"a {type(layer).__name__} that adapts has {len(x)} rows for {sum(sizes)} images: images must lie along the first "
            "dimension (batch_first=True), or its kind cannot adapt"
        )
    outputs = []
    training = layer.training
    for episode, chunk in enumerate(x.split([rows * size for size in sizes])):
        layer._parameters.update({name: values[episode] for name, values in parameters.items()})
        layer._buffers.update({name: values[episode] for name, values in buffers.items()})
        # One value per channel has no spread: a single image on a map of one pixel keeps the running
        # statistics.
        layer.training = training and (not isinstance(layer, _BatchNorm) or chunk.numel() > chunk.shape[1])
        outputs.append(forward(chunk))
    layer.training = training
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def pass_momenta(order: Sequence[int], passes: int) -> list[Callable[[float], float]]:
    """Momenta with which `passes` passes, run as 0, 1, ..., leave the running statistics as if seen in
    `order`.

    A pass that `order` names twice counts twice, one that it leaves out not at all. Each entry maps a layer's
    momentum m to the pass's own. Exact for a layer that a pass visits once, since the statistics of a pass do
    not depend on the running ones.
    """

    def share(index: int, m: float) -> float:  # of pass `index` in the final running statistics
        return sum(m * (1 - m) ** (len(order) - 1 - k) for k, seen in enumerate(order) if seen == index)

    def momentum(index: int, m: float | None) -> float:
        m = 0.1 if m is None else m  # None would average over a lifetime, which an episode does not have
        earlier = (1 - m) ** len(order) + sum(share(i, m) for i in range(index + 1))
        return share(index, m) / earlier if index in order else 0.0

    return [partial(momentum, index) for index in range(passes)]
