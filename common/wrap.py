"""Test-time adaptation of any blind quality network: the Y around a module that maps images to scores.

    ynet = wrap(network, "layer4")
    scores = run_cells(ynet, photographs, [Setting(PAPER, METHODS["rank+gc"])], seeds=range(5))

Where the extractor ends is a module's name. Which layers it holds is found by running the network, not by the
order in which they were registered. wrap_checks.py refuses networks that cannot be adapted.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.system.errors import UserError
from common.system.seeds import generator
from common.wrap_checks import (
    check_network,
    check_normalisation,
    class_tokens,
    described,
    kinds_to_adapt,
    module_called,
    name_of,
    parts_depended_on,
    try_network,
)
from common.y import MEAN, STD, Adaptable, Cut, YNetwork, kind_of


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
    """Return the Y around a network of (N, 3, S, S) -> scores, for every method and protocol.

    The network is tried on three images. It is not changed, except that it is frozen and put in eval mode, as
    a source is.

    network: also a metric of pyiqa.create_metric; it is taken for the network in it, whose names `features`
        gives, on images in [0, 1], with smaller = better turned round where the metric says so.
    features: dotted name of the module where the extractor ends, visited once in a forward pass. Its output
        becomes the features: (N, C, H, W) or (N, H, W, C) averaged over H and W, (N, T, D) over all tokens,
        the class token among them, (N, D) as it is; and over crops, where the network takes several of an
        image. To read the class token alone, name a module that comes after its choice. The losses run the
        network no further than this.
    score: from the network's output to (N,), larger = better; needed unless the output is that, or (N, 1).
    adapt: kinds of what adapts, of "bn", "ln" (LayerNorm and RMSNorm), "gn", "cls" (the class token); a
        method may ask for fewer. By default batch normalisation; layer and group normalisation where the
        extractor has none.
    size: side of the images that it is tried on; for another than 224 the protocol needs a View of that size
        too.
    mean, std: of the three channels, which images in [0, 1] are normalised by; 0 and 1 for a network that
        does it itself.

    Raises UserError, with what to do, where the network cannot be adapted or gives no score that depends on
    the image alone.
    """
    if type(network).__module__ == "pyiqa.models.inference_model":
        network, score, mean, std = *_within_metric(network, score), (0, 0, 0), (1, 1, 1)
    check_network(network)
    check_normalisation(mean, std)
    cut = module_called(network, features)
    network.requires_grad_(False).eval()
    images = _trial_images(next(network.parameters()), size, mean, std)
    extract = partial(_extracted, features)
    ran, width = try_network(network, features, images, partial(_scores, score), extract)
    before = set(ran[: ran.index(name_of(network, cut)) + 1])
    kinds = kinds_to_adapt(network, features, before, adapt)
    layers = {n: m for n, m in network.named_modules() if n in before and kind_of(m) in kinds}
    tokens = class_tokens(network) if "cls" in kinds else {}
    extractor = parts_depended_on(network, features, Adaptable(layers, tokens), images, extract)
    return YNetwork(
        network, Cut(extract, width, extractor, kinds), score=partial(_scores, score), mean=mean, std=std
    )


def as_it_is(network: nn.Module, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> YNetwork:
    """Return the Y around a network that only scores: nothing is tried, which takes longer than one image."""
    network.requires_grad_(False).eval()
    return YNetwork(network, Cut(_no_features, 1, ()), score=partial(_scores, None), mean=mean, std=std)


def _no_features(network: nn.Module, x: Tensor) -> Tensor:
    raise ValueError("a network that only scores has no extractor: wrap it")


def _within_metric(
    metric: Any, score: Callable[[Any], Tensor] | None
) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    """Return the network of a pyiqa metric, and its score, larger = better.

    The metric itself runs without gradients.
    """
    if metric.metric_mode != "NR":
        raise UserError(
            f"the metric {metric.metric_name} compares with a reference: choose a no-reference one"
        )

    def directed(output: Any) -> Tensor:
        found = output[0] if isinstance(output, tuple) else output
        return -found if metric.lower_better else found

    return metric.net, score or directed


class _FeaturesReached(BaseException):
    """Ends a forward pass at the cut. No Exception, so that no network takes it for a failure of its own."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output


def _extracted(features: str, network: nn.Module, x: Tensor) -> Tensor:
    """Return the pooled output of the module `features`, (N, D); what comes after it does not run."""

    def stop(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        raise _FeaturesReached(output)

    hook = network.get_submodule(features).register_forward_hook(stop)
    try:
        network(x)
    except _FeaturesReached as end:
        return _pooled(end.output, len(x))
    finally:
        hook.remove()
    raise UserError(
        f"{features!r} did not run on images of shape {tuple(x.shape)}: choose a module that always does"
    )


def _pooled(output: Tensor, n: int) -> Tensor:
    """Pool (N, C, H, W), (N, H, W, C), (N, T, D) or (N, D) to (n, D).

    It is the mean over crops where N is a multiple of n. Images are square, which tells the first two apart.
    """
    if output.ndim == 4:
        channels_last = output.shape[1] == output.shape[2] != output.shape[3]
        output = output.mean((1, 2) if channels_last else (2, 3))
    elif output.ndim == 3:
        output = output.mean(1)
    return output if len(output) == n else output.unflatten(0, (n, -1)).mean(1)


def _scores(score: Callable[[Any], Tensor] | None, output: Any) -> Tensor:
    """Return the scores, (N,), in what a network returns. Raises UserError where there are none."""
    found = output if score is None else score(output)
    if isinstance(found, Tensor) and found.is_floating_point() and set(found.shape[1:]) <= {1}:
        return found.reshape(-1)  # some squeeze the score of a single image to a scalar
    whose = "the network's output" if score is None else "what score() returns"
    raise UserError(
        f"{whose} is {described(found)}, not one number per image: "
        "give score=, a function from the output to (N,)"
    )


def _trial_images(like: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return noise of three levels of brightness, (3, 3, size, size), normalised."""
    noise = generator(0, "trial images").random((3, 3, size, size), dtype="float32")
    images = torch.from_numpy(noise) * torch.tensor([0.3, 0.6, 1.0]).view(3, 1, 1, 1)
    shift, scale = (torch.tensor(value, dtype=torch.float32).view(3, 1, 1) for value in (mean, std))
    return ((images - shift) / scale).to(like)
