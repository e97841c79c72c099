"""What the training of a source network starts from."""

from pathlib import Path

import torch
from torch import nn

from common.system.seeds import digest
from common.y import Backbone
from weights.loading import fill, read_state_dict
from weights.manifest import located


def initial_network(backbone: Backbone, init: str, seed: int) -> tuple[nn.Module, str]:
    """Return a network to train, and what it starts from, in words.

    init: "scratch", "auto" (ImageNet weights if torch.hub has them on this machine, else scratch), or a
        checkpoint, by name or file: of this network, or of a ResNet like its trunk.
    seed: of the weights that are drawn.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest(seed, "initial weights")[:7], "big"))
        network = backbone.network()
    if init == "scratch":
        return network, "random weights"
    trunk = getattr(network, backbone.trunk)
    if init == "auto":
        found = sorted((Path(torch.hub.get_dir()) / "checkpoints").glob(f"{backbone.imagenet}-*.pth"))
        if not found:
            return network, "random weights"
        path = found[-1]
    else:
        source = located(init)
        source.verify()
        path = source.path
    state = read_state_dict(path)
    if "conv1.weight" in state and "layer4.0.conv1.weight" in state:  # a ResNet
        # Whatever else this trunk holds stays as drawn.
        own = trunk.state_dict()
        fill(trunk, {key: state.get(key, value) for key, value in own.items()}, path)
    else:
        fill(network, backbone.rename(state), path)
    return network, path.name
