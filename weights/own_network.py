"""Networks that are none of the paper's: made by a function of the user's, or by timm."""

import importlib

import torch
from torch import nn

from common.system.errors import UserError
from common.system.text import shortened
from common.wrap import wrap
from common.y import YNetwork

TIMM = "timm"  # as the module of a name: an architecture of timm follows, and is given one output


def made(name: str) -> nn.Module:
    """Return the network that a name stands for, with the weights it is made with.

    name: `package.module:function`, a function without arguments that returns a network or one that is
        wrapped already, or `timm:ARCHITECTURE`, which gets one output and random weights.

    Raises UserError where it returns none.
    """
    module, _, function = name.partition(":")
    if not module or not function or module.startswith("."):
        raise UserError(f"--model {name}: give it as package.module:function, or timm:ARCHITECTURE")
    try:
        if module == TIMM:
            import timm  # as long to import as torch: only where it is asked for

            return timm.create_model(function, num_classes=1)
        network = getattr(importlib.import_module(module), function)()
    except Exception as error:  # whatever a stranger's code may raise
        fault = shortened(f"{type(error).__name__}: {error}".partition("\n")[0], 200)
        form = (
            "timm.list_models() has the architectures"
            if module == TIMM
            else "it must be a function without arguments that returns the network"
        )
        raise UserError(f"--model {name}: {fault}; {form}") from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"--model {name} returned a {type(network).__name__}: it must return a torch.nn.Module"
        )
    return network


def inner(network: nn.Module) -> nn.Module:
    """Return the network whose weights a checkpoint holds: that within, where it is wrapped already."""
    return network.network if isinstance(network, YNetwork) else network


def wrapped(network: nn.Module, name: str, features: str | None, size: int) -> YNetwork:
    """Return the Y of the network that a name stands for, laid out for fast convolutions.

    features: where its extractor ends; None for one that is wrapped already.
    size: side of the images that it takes.

    Raises UserError where features are missing or given in vain, and as `wrap` does.
    """
    network.to(memory_format=torch.channels_last)
    if isinstance(network, YNetwork):
        if features is not None:
            raise UserError(
                f"--model {name} is wrapped already, and its features are settled: leave out --features"
            )
        return network
    if features is None:
        parts = ", ".join(part for part, _ in network.named_children())
        raise UserError(
            f"no --features: name the module of {name} where the extractor ends; its parts are {parts}"
        )
    return wrap(network, features, size=size)
