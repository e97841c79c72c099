"""What the training of a source network starts from."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from common.system.errors import UserError
from common.system.seeds import digest
from common.y import Backbone
from weights.loading import fill, read_state_dict
from weights.manifest import located
from weights.own_network import inner


def drawn(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return a network whose random weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest(seed, "initial weights")[:7], "big"))
        return make()


def initial_network(backbone: Backbone, init: str, seed: int) -> tuple[nn.Module, str]:
    """Return a network of the paper to train, and what it starts from, in words.

    init: "scratch", "auto" (ImageNet weights if torch.hub has them on this machine, else scratch), or a
        checkpoint, by name or file: of this network, or of a ResNet like its trunk.
    seed: of the weights that are drawn.
    """
    network = drawn(backbone.network, seed)
    if init == "scratch":
        return network, "random weights"
    trunk = getattr(network, backbone.trunk)
    if init == "auto":
        found = sorted((Path(torch.hub.get_dir()) / "checkpoints").glob(f"{backbone.imagenet}-*.pth"))
        if not found:
            return network, "random weights"
        path = found[-1]
    else:
        path = _checkpoint(init)
    state = read_state_dict(path)
    if "conv1.weight" in state and "layer4.0.conv1.weight" in state:  # a ResNet
        # Whatever else this trunk holds stays as drawn.
        own = trunk.state_dict()
        fill(trunk, {key: state.get(key, value) for key, value in own.items()}, path)
    else:
        fill(network, backbone.rename(state), path)
    return network, path.name


def initialise(network: nn.Module, init: str) -> str:
    """Give a network of the user's own what its training starts from; return that in words.

    init: "auto" (the weights that it was made with), or a checkpoint, by name or file, whose entries fit by
        name or else by their order; an output layer of another number of outputs keeps its weights.

    Raises UserError where the checkpoint does not fit.
    """
    if init == "auto":
        return "the weights it was made with"
    if init == "scratch":
        raise UserError(
            "--init scratch is for --backbone: a --model starts from the weights it was made with"
        )
    path = _checkpoint(init)
    network = inner(network)
    state = read_state_dict(path)
    own = network.state_dict()
    ordered = _in_order(own, state)
    fill(network, state if ordered is None else ordered, path)
    return path.name


def _checkpoint(name_or_file: str) -> Path:
    source = located(name_or_file)
    source.verify()
    return source.path


def _in_order(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the entries of a checkpoint under a network's own names, matched by their order of appearance.

    Projects that build one architecture name its layers differently and make them in one order. Weights, and
    then running statistics, must follow each other alike, in number, shape and the last part of the name; of
    the last layer, a weight and a bias, the number of outputs may differ, and then its own values are kept.
    None where they do not match.
    """
    if len(own) != len(state):
        return None
    found: dict[str, Tensor] = {}
    last = list(own)[-2:]
    for (name, value), (foreign, given) in zip(own.items(), state.items()):
        same_leaf = name.rpartition(".")[2] == foreign.rpartition(".")[2]
        other_outputs = name in last and value.shape[1:] == given.shape[1:]
        if not same_leaf or not (value.shape == given.shape or other_outputs):
            return None
        found[name] = given if value.shape == given.shape else value
    return found
