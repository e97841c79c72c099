"""Test-time adaptation of any blind quality network: the Y around a module that maps images to scores.

    ynet = wrap(network, "layer4")
    scores = run_cells(ynet, photographs, [Setting(PAPER, METHODS["rank+gc"])], seeds=range(5))

Where the extractor ends is a module's name. Which layers it holds is found by running the network, not by the
order in which they were registered.
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.episodes import EpisodeState, episode_parameters
from common.system.errors import UserError
from common.system.seeds import generator
from common.y import ADAPTABLE, CLASS_TOKENS, MEAN, STD, Adaptable, Cut, YNetwork, kind_of


def wrap(
    network: nn.Module,
    features: str,
    *,
    score: Callable[[Any], Tensor] | None = None,
    adapt: Sequence[str] | None = None,
    size: int = 224,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> YNetwork:
    """The Y around a network of (N, 3, S, S) -> scores, for every method and protocol; the network is tried
    on three images.

    The network itself is not changed, except that it is frozen and put in eval mode, as a source is.

    features: dotted name of the module where the extractor ends, visited once in a forward pass. Its output
    becomes the features: (N, C, H, W) or (N, H, W, C) averaged over H and W, (N, T, D) over all tokens, the
    class token among them, (N, D) as it is; and over crops, where the network takes several of an image. To
    read the class token alone, name a module that comes after its choice. The losses run the network no
    further than this. score: from the network's output to (N,), larger = better; needed unless the output is
    that, or (N, 1). adapt: kinds of what adapts, of "bn", "ln" (LayerNorm and RMSNorm), "gn", "cls" (the
    class token); a method may ask for fewer. By default batch normalisation; layer and group normalisation
    where the extractor has none. size: side of the images that it is tried on; for another than 224 the
    protocol needs a View of that size too. mean, std: of the three channels, which images in [0, 1] are
    normalised by; 0 and 1 for a network that does it itself.

    A metric of pyiqa.create_metric is taken for the network in it, whose names `features` gives, on images in
    [0, 1], with smaller = better turned round where the metric says so.

    Raises UserError, with what to do, where it cannot be adapted or gives no score that depends on the image
    alone.
    """
    if type(network).__module__ == "pyiqa.models.inference_model":
        network, score, mean, std = *_within_metric(network, score), (0, 0, 0), (1, 1, 1)
    _check_kind(network)
    cut = _module(network, features)
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UserError(
            f"mean {tuple(mean)} and std {tuple(std)} must be three numbers each, one per channel, and std above 0"
        )
    network.requires_grad_(False).eval()
    images = _trial_images(next(network.parameters()), size, mean, std)
    ran, width = _tried(network, cut, features, images, score)
    before = set(ran[: ran.index(_name(network, cut)) + 1])
    kinds = _kinds(network, features, before, adapt)
    layers = {n: m for n, m in network.named_modules() if n in before and kind_of(m) in kinds}
    tokens = _class_tokens(network) if "cls" in kinds else {}
    reached = _reached(network, features, Adaptable(layers, tokens), images)
    return YNetwork(
        network,
        Cut(partial(_extracted, features), width, reached, kinds),
        score=partial(_scores, score),
        mean=mean,
        std=std,
    )


def _within_metric(
    metric: nn.Module, score: Callable[[Any], Tensor] | None
) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    """The network of a pyiqa metric, which itself runs without gradients, and its score, larger = better."""
    if metric.metric_mode != "NR":
        raise UserError(
            f"the metric {metric.metric_name} compares with a reference: choose a no-reference one"
        )

    def directed(output: Any) -> Tensor:
        found = output[0] if isinstance(output, tuple) else output
        return -found if metric.lower_better else found

    return metric.net, score or directed


class _Reached(BaseException):
    """Ends a forward pass at the cut. No Exception, so that no network takes it for a failure of its own."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output


def _extracted(features: str, network: nn.Module, x: Tensor) -> Tensor:
    """Pooled output of the module `features`, (N, D); what comes after it does not run."""

    def stop(module: nn.Module, inputs: tuple, output: Any) -> None:
        raise _Reached(output)

    hook = network.get_submodule(features).register_forward_hook(stop)
    try:
        network(x)
    except _Reached as reached:
        return _pooled(reached.output, len(x))
    finally:
        hook.remove()
    raise UserError(
        f"{features!r} did not run on images of shape {tuple(x.shape)}: choose a module that always does"
    )


def _pooled(output: Tensor, n: int) -> Tensor:
    """(N, C, H, W), (N, H, W, C), (N, T, D) or (N, D) -> (n, D), the mean over crops where N is a multiple of
    n. Images are square, which tells the first two apart."""
    if output.ndim == 4:
        channels_last = output.shape[1] == output.shape[2] != output.shape[3]
        output = output.mean((1, 2) if channels_last else (2, 3))
    elif output.ndim == 3:
        output = output.mean(1)
    return output if len(output) == n else output.unflatten(0, (n, -1)).mean(1)


def _scores(score: Callable[[Any], Tensor] | None, output: Any) -> Tensor:
    """What a network returns -> (N,)."""
    found = output if score is None else score(output)
    if isinstance(found, Tensor) and found.is_floating_point() and set(found.shape[1:]) <= {1}:
        return found.reshape(-1)  # some squeeze the score of a single image to a scalar
    whose = "the network's output" if score is None else "what score() returns"
    raise UserError(
        f"{whose} is {_described(found)}, not one number per image: give score=, a function from the output to (N,)"
    )


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}" + (
            "" if output.is_floating_point() else f" of {output.dtype}"
        )
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} of {', '.join(map(repr, output))}"
    if isinstance(output, list | tuple):
        return f"a {type(output).__name__} of {', '.join(map(_described, output))}"
    return f"a {type(output).__name__}"


def _check_kind(network: nn.Module) -> None:
    if isinstance(network, YNetwork):
        raise UserError("the network is wrapped already: give the network inside, ynet.network")
    if not isinstance(network, nn.Module):
        raise UserError(f"a {type(network).__name__} is no torch.nn.Module: give the network itself")
    for module in network.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(
                "the network is compiled by torch.jit, and its layers cannot be exchanged: give the one it was made from"
            )
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise UserError(f"the network is inside a {type(module).__name__}: give its .module")
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            raise UserError(
                "the network is compiled by torch.compile, which would not see its layers change: give it uncompiled"
            )
    if next(network.parameters(), None) is None:
        raise UserError("the network has no parameters, so that there is nothing to adapt")


def _module(network: nn.Module, name: str) -> nn.Module:
    known = [known for known, _ in network.named_modules(remove_duplicate=False) if known]
    if name in known:
        return network.get_submodule(name)
    near = difflib.get_close_matches(name, known, n=3)
    raise UserError(
        f"the network has no module {name!r}: "
        + (f"did you mean {_or(near)}? " if near else "")
        + f"Its parts are {', '.join(child for child, _ in network.named_children())}"
    )


def _name(network: nn.Module, module: nn.Module) -> str:
    return next(name for name, found in network.named_modules() if found is module)


def _trial_images(like: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Noise of three levels of brightness, (3, 3, size, size), normalised."""
    noise = generator(0, "trial images").random((3, 3, size, size), dtype="float32")
    images = torch.from_numpy(noise) * torch.tensor([0.3, 0.6, 1.0]).view(3, 1, 1, 1)
    shift, scale = (torch.tensor(value, dtype=torch.float32).view(3, 1, 1) for value in (mean, std))
    return ((images - shift) / scale).to(like)


def _run(forward: Callable[[Tensor], Any], images: Tensor) -> Any:
    try:
        return forward(images)
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's network may raise
        fault = str(error).partition("\n")[0][:200]
        raise UserError(
            f"a forward pass on images {tuple(images.shape)} fails ({type(error).__name__}: {fault}): check size= and score="
        ) from error


@torch.no_grad()
def _tried(
    network: nn.Module, cut: nn.Module, features: str, images: Tensor, score: Callable[[Any], Tensor] | None
) -> tuple[list[str], int]:
    """Names of the modules in the order in which they finish, and the width of the features. Checks the
    scores."""
    ran, outputs = [], []

    def note(name: str, module: nn.Module, inputs: tuple, output: Any) -> None:
        ran.append(name)
        if module is cut:
            outputs.append(output)

    def scored(x: Tensor) -> Tensor:
        return _scores(score, network(x))

    hooks = [module.register_forward_hook(partial(note, name)) for name, module in network.named_modules()]
    try:
        scores = _run(scored, images)
    finally:
        for hook in hooks:
            hook.remove()
    _check_scores(scores, _run(scored, images[:1]), len(images))
    if len(outputs) != 1:
        raise UserError(_not_once(network, features, len(outputs), ran))
    (found,) = outputs
    if not (isinstance(found, Tensor) and 2 <= found.ndim <= 4 and len(found) % len(images) == 0):
        raise UserError(
            f"the output of {features!r} for {len(images)} images is {_described(found)}: choose a module that returns "
            "one tensor, (N, C, H, W), (N, H, W, C), (N, T, D) or (N, D)"
        )
    several, alone = _pooled(found, len(images)), _extracted(features, network, images[:1])
    if _mixed(several, alone):
        raise UserError(
            f"the output of {features!r} for an image changes with the others of its batch: choose another module"
        )
    return ran, several.shape[1]


def _check_scores(scores: Tensor, alone: Tensor, n: int) -> None:
    """scores: of all trial images. alone: of the first, given alone."""
    if len(scores) != n or len(alone) != 1:
        raise UserError(
            f"the network gives {len(scores)} scores for {n} images and {len(alone)} for one: it must give one for each"
        )
    if not scores.isfinite().all():
        raise UserError(
            "the network's scores of noise are not finite: its weights are damaged, or mean and std are not its own"
        )
    if (scores == scores[0]).all():
        raise UserError(
            f"the network gives {n} different images the same score, {float(scores[0]):g}: is its last layer trained?"
        )
    if _mixed(scores, alone):
        raise UserError(
            f"the network scores an image {float(alone[0]):.4g} alone and {float(scores[0]):.4g} among others: a score must "
            "depend on its image only; batch normalisation without running statistics or random crops may be why"
        )


def _mixed(several: Tensor, alone: Tensor) -> bool:
    """Whether the first of several results is another one than alone, beyond what rounding does: a thousandth
    on a GPU."""
    spread = (several.amax(0) - several.amin(0)).max()
    return bool((several[0] - alone[0]).abs().max() > 0.05 * spread + 1e-3 * several.abs().max())


def _not_once(network: nn.Module, features: str, times: int, ran: Sequence[str]) -> str:
    if times:
        return f"{features!r} runs {times} times in a forward pass: choose a module that runs once"
    inside = [name for name in ran if name.startswith(f"{features}.")]
    near = difflib.get_close_matches(features, ran, n=3)
    others = [name for name, _ in network.named_children() if name in ran]
    called = _or(inside[:-4:-1] or near or others)
    return f"{features!r} is not called in a forward pass: choose a module that is, such as {called}"


def _kinds(
    network: nn.Module, features: str, before: Collection[str], adapt: Sequence[str] | None
) -> tuple[str, ...]:
    """What adapts: what is asked for, or the default. Raises UserError where the extractor has none of it."""
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
                    f"no {kind} before {features!r}, where there is {_listed(inside)}; after it {_listed(outside)}"
                )
        if "cls" in adapt and not _class_tokens(network):
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


def _reached(network: nn.Module, features: str, adaptable: Adaptable, images: Tensor) -> tuple[str, ...]:
    """Names of the layers and tokens that the features depend on, as adaptation will see it: as two episodes,
    of which the first must not depend on what the second adapts."""
    state = EpisodeState.from_source(adaptable, [1, len(images) - 1])
    with torch.enable_grad(), episode_parameters(network, adaptable, state, False, lambda _: 0.0):
        found = _run(partial(_extracted, features, network), images)
        weights = generator(0, "trial weights").standard_normal(found.shape[1], dtype="float32")
        first = found[0] @ torch.from_numpy(weights).to(found)
    gradients = {}
    if first.requires_grad:
        of = torch.autograd.grad(first, list(state.parameters.values()), allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(state.parameters, of) if gradient is not None}
    if not gradients:
        raise UserError(
            f"no gradient flows from {features!r} back to {_listed(adaptable.layers)}: the network runs them under no_grad, "
            "detached, or not by calling them"
        )
    for name, gradient in gradients.items():
        if gradient[1].abs().max() > 0:
            raise UserError(
                f"the images of a batch mix in {name.rpartition('.')[0] or name}: what adapts must see one image after "
                "the other along its first dimension (batch_first=True); leave its kind out by adapt="
            )
    without_parameters = {
        name for name, layer in adaptable.layers.items() if not _own(layer.parameters(recurse=False))
    }
    reached = {name.rpartition(".")[0] for name in gradients} | gradients.keys() | without_parameters
    return tuple(name for name in (*adaptable.layers, *adaptable.tokens) if name in reached)


def _class_tokens(network: nn.Module) -> dict[str, nn.Parameter]:
    found = (
        (name, parameter) for name, parameter in network.named_parameters() if name.endswith(CLASS_TOKENS)
    )
    return {name: token for name, token in found if token.ndim > 1 and len(token) == 1}


def _own(tensors: Iterable[Tensor]) -> bool:
    return next(iter(tensors), None) is not None


def _listed(layers: Mapping[str, nn.Module]) -> str:
    """How many of each class, and where."""
    classes: dict[str, list[str]] = {}
    for name, layer in layers.items():
        classes.setdefault(type(layer).__name__, []).append(name)
    counted = [
        f"{len(n)} {kind} ({', '.join(n[:3])}{', ...' if len(n) > 3 else ''})" for kind, n in classes.items()
    ]
    return ", ".join(counted) or "none"


def _or(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))
