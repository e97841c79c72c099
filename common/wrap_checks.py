"""What wrap.py refuses, and what it says of it: networks that cannot be adapted, or give no scores.

What the checks find out on the way, such as the modules that run, they return.
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.episodes import EpisodeState, episode_parameters
from common.protocols import ADAPTABLE
from common.system.errors import UserError, shown
from common.system.seeds import generator
from common.y import CLASS_TOKENS, Adaptable, YNetwork, kind_of


def check_network(network: nn.Module) -> None:
    """Raise UserError for what is no network, or one whose layers cannot be exchanged."""
    if isinstance(network, YNetwork):
        raise UserError("the network is wrapped already: give the network inside, ynet.network")
    if not isinstance(network, nn.Module):
        raise UserError(f"a {type(network).__name__} is no torch.nn.Module: give the network itself")
    for module in network.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(
                "the network is compiled by torch.jit, and its layers cannot be exchanged: "
                "give the one it was made from"
            )
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise UserError(f"the network is inside a {type(module).__name__}: give its .module")
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            raise UserError(
                "the network is compiled by torch.compile, which would not see its layers change: "
                "give it uncompiled"
            )
    if next(network.parameters(), None) is None:
        raise UserError("the network has no parameters, so that there is nothing to adapt")


def check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise UserError for what cannot be the mean and standard deviation of three channels."""
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UserError(
            f"mean {tuple(mean)} and std {tuple(std)} must be three numbers each, one per channel, "
            "and std above 0"
        )


def module_called(network: nn.Module, name: str) -> nn.Module:
    """Return a module by its dotted name. Raises UserError with names that are near."""
    known = [known for known, _ in network.named_modules(remove_duplicate=False) if known]
    if name in known:
        return network.get_submodule(name)
    near = difflib.get_close_matches(name, known, n=3)
    raise UserError(
        f"the network has no module {name!r}: "
        + (f"did you mean {_or(near)}? " if near else "")
        + f"Its parts are {', '.join(child for child, _ in network.named_children())}"
    )


def name_of(network: nn.Module, module: nn.Module) -> str:
    """Return the dotted name of a module; the first one, where it has several."""
    return next(name for name, found in network.named_modules() if found is module)


@torch.no_grad()
def try_network(
    network: nn.Module,
    features: str,
    images: Tensor,
    scores_of: Callable[[Any], Tensor],
    extract: Callable[[nn.Module, Tensor], Tensor],
) -> tuple[list[str], int]:
    """Run the network on images and check its scores and its features.

    features: name of the module where the extractor ends.
    scores_of: from the network's output to (N,).
    extract: from the network and images to the features, (N, D).

    Returns the names of the modules in the order in which they finish, and the width of the features, D.
    Raises UserError where either of them is none, or depends on the other images.
    """
    cut = network.get_submodule(features)
    ran: list[str] = []
    outputs: list[Any] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        ran.append(name)
        if module is cut:
            outputs.append(output)

    def scored(x: Tensor) -> Tensor:
        return scores_of(network(x))

    hooks = [module.register_forward_hook(partial(note, name)) for name, module in network.named_modules()]
    try:
        scores = _try(scored, images)
    finally:
        for hook in hooks:
            hook.remove()
    _check_scores(scores, _try(scored, images[:1]), len(images))
    if len(outputs) != 1:
        raise UserError(_not_once(network, features, len(outputs), ran))
    (found,) = outputs
    if not (isinstance(found, Tensor) and 2 <= found.ndim <= 4 and len(found) % len(images) == 0):
        raise UserError(
            f"the output of {features!r} for {len(images)} images is {described(found)}: choose a module "
            "that returns one tensor, (N, C, H, W), (N, H, W, C), (N, T, D) or (N, D)"
        )
    several, alone = extract(network, images), extract(network, images[:1])
    if _mixed(several, alone):
        raise UserError(
            f"the output of {features!r} for an image changes with the others of its batch: "
            "choose another module"
        )
    return ran, several.shape[1]


def _try(forward: Callable[[Tensor], Any], images: Tensor) -> Any:
    try:
        return forward(images)
    except UserError:
        raise
    except Exception as error:  # whatever a network that is not of this project may raise
        fault = str(error).partition("\n")[0][:200]
        raise UserError(
            f"a forward pass on images {tuple(images.shape)} fails ({type(error).__name__}: {fault}): "
            "check size= and score="
        ) from error


def _check_scores(scores: Tensor, alone: Tensor, n: int) -> None:
    """Raise UserError where scores are none.

    scores: of all n trial images. alone: of the first, given alone.
    """
    if len(scores) != n or len(alone) != 1:
        raise UserError(
            f"the network gives {len(scores)} scores for {n} images and {len(alone)} for one: "
            "it must give one for each"
        )
    if not scores.isfinite().all():
        raise UserError(
            "the network's scores of noise are not finite: its weights are damaged, "
            "or mean and std are not its own"
        )
    if (scores == scores[0]).all():
        raise UserError(
            f"the network gives {n} different images the same score, {float(scores[0]):g}: "
            "is its last layer trained?"
        )
    if _mixed(scores, alone):
        raise UserError(
            f"the network scores an image {float(alone[0]):.4g} alone and {float(scores[0]):.4g} among "
            "others: a score must depend on its image only; batch normalisation without running statistics "
            "or random crops may be why"
        )


def _mixed(several: Tensor, alone: Tensor) -> bool:
    """Return whether the first of several results is another one than alone.

    Rounding does not count: it comes to a thousandth on a GPU.
    """
    spread = (several.amax(0) - several.amin(0)).max()
    return bool((several[0] - alone[0]).abs().max() > 0.05 * spread + 1e-3 * several.abs().max())


def _not_once(network: nn.Module, features: str, times: int, ran: Sequence[str]) -> str:
    """Return what to say of a module that does not run once in a forward pass."""
    if times:
        return f"{features!r} runs {times} times in a forward pass: choose a module that runs once"
    inside = [name for name in ran if name.startswith(f"{features}.")]
    near = difflib.get_close_matches(features, ran, n=3)
    others = [name for name, _ in network.named_children() if name in ran]
    called = _or(inside[:-4:-1] or near or others)
    return f"{features!r} is not called in a forward pass: choose a module that is, such as {called}"


def kinds_to_adapt(
    network: nn.Module, features: str, before: Collection[str], adapt: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the kinds that adapt: those asked for, or the default.

    before: names of the modules of the extractor. Raises UserError where it has none of a kind.
    """
    layers = {name: module for name, module in network.named_modules() if kind_of(module) is not None}
    inside = {name: module for name, module in layers.items() if name in before}
    outside = {name: module for name, module in layers.items() if name not in before}
    present = {kind_of(module) for module in inside.values() if _own(module.parameters(recurse=False))}
    if adapt is not None:
        if not adapt or set(adapt) - set(ADAPTABLE):
            raise UserError(
                f"cannot adapt {'+'.join(adapt) or 'nothing'}: choose from {', '.join(ADAPTABLE)}"
            )
        for kind in adapt:
            if kind != "cls" and kind not in present:
                raise UserError(
                    f"no {kind} before {features!r}, where there is {_listed(inside)}; "
                    f"after it {_listed(outside)}"
                )
        if "cls" in adapt and not class_tokens(network):
            raise UserError(
                f"the network has no class token, a parameter (1, ..., D) called {_or(CLASS_TOKENS)}"
            )
        return tuple(adapt)
    if not present:
        named = {
            n: m for n, m in network.named_modules() if n in before and "norm" in type(m).__name__.lower()
        }
        fixed = {name: module for name, module in named.items() if _own(module.buffers(recurse=False))}
        raise UserError(
            f"nothing to adapt before {features!r}: no batch, layer or group normalisation with parameters"
            + (f"; its {_listed(fixed)} cannot change" if fixed else "")
            + (
                f"; after it there is {_listed(outside)}: choose a later module"
                if outside
                else ", nor after it"
            )
        )
    return ("bn",) if "bn" in present else tuple(kind for kind in ("ln", "gn") if kind in present)


def parts_depended_on(
    network: nn.Module,
    features: str,
    adaptable: Adaptable,
    images: Tensor,
    extract: Callable[[nn.Module, Tensor], Tensor],
) -> tuple[str, ...]:
    """Return the names of the layers and tokens that the features depend on, as adaptation will see it.

    They are tried as two episodes, of which the first must not depend on what the second adapts. Raises
    UserError where it does, or where nothing of the adaptable is depended on.
    """
    state = EpisodeState.from_source(adaptable, [1, len(images) - 1])
    with torch.enable_grad(), episode_parameters(network, adaptable, state, False, lambda _: 0.0):
        found = _try(partial(extract, network), images)
        weights = generator(0, "trial weights").standard_normal(found.shape[1], dtype="float32")
        first = found[0] @ torch.from_numpy(weights).to(found)
    gradients = {}
    if first.requires_grad:
        of = torch.autograd.grad(first, list(state.parameters.values()), allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(state.parameters, of) if gradient is not None}
    if not gradients:
        raise UserError(
            f"no gradient flows from {features!r} back to {_listed(adaptable.layers)}: the network runs them "
            "under no_grad, detached, or not by calling them"
        )
    for name, gradient in gradients.items():
        if gradient[1].abs().max() > 0:
            raise UserError(
                f"the images of a batch mix in {name.rpartition('.')[0] or name}: what adapts must see one "
                "image after the other along its first dimension (batch_first=True); leave its kind out by "
                "adapt="
            )
    without_parameters = {
        name for name, layer in adaptable.layers.items() if not _own(layer.parameters(recurse=False))
    }
    names = {name.rpartition(".")[0] for name in gradients} | gradients.keys() | without_parameters
    return tuple(name for name in (*adaptable.layers, *adaptable.tokens) if name in names)


def class_tokens(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the class tokens of a network, (1, ..., D), by name."""
    found = (
        (name, parameter) for name, parameter in network.named_parameters() if name.endswith(CLASS_TOKENS)
    )
    return {name: token for name, token in found if token.ndim > 1 and len(token) == 1}


def _own(tensors: Iterable[Tensor]) -> bool:
    """Return whether there is any."""
    return next(iter(tensors), None) is not None


def described(output: Any) -> str:
    """Return what a network's output is, in words."""
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}" + (
            "" if output.is_floating_point() else f" of {output.dtype}"
        )
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} of {', '.join(map(repr, output))}"
    if isinstance(output, list | tuple):
        return f"a {type(output).__name__} of {', '.join(map(described, output))}"
    return f"a {type(output).__name__}"


def _listed(layers: Mapping[str, nn.Module]) -> str:
    """Return how many layers of each class there are, and where."""
    classes: dict[str, list[str]] = {}
    for name, layer in layers.items():
        classes.setdefault(type(layer).__name__, []).append(name)
    return ", ".join(f"{len(names)} {kind} ({shown(names)})" for kind, names in classes.items()) or "none"


def _or(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))
