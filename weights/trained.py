"""Sources that were trained here: a file that says itself what network it is of, and on which scale."""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from common.protocols import PAPER, Protocol
from common.runs.scale import Scale
from common.system.errors import UserError, fault
from common.system.files import need_file
from common.wrap import as_it_is
from common.y import YNetwork
from weights.loading import load_weights, network_with
from weights.manifest import SourceFile
from weights.networks import BACKBONES
from weights.own_network import TIMM, made, wrapped

SHIPPED = Path(__file__).parent / "demo" / "efficientnet_lite0.safetensors"  # taken where none is named


class TrainedSource(NamedTuple):
    """A network with trained weights, wrapped."""

    name: str  # of the network: one of the paper, or timm:ARCHITECTURE
    ynet: YNetwork
    protocol: Protocol  # under which it was tested
    output: tuple[float, float]  # what a mean score comes out as, and one deviation above it, less that
    scale: Scale  # of its scores


def metadata_of(path: Path) -> dict[str, str]:
    """Return what a safetensors file says of itself; nothing for other files.

    Raises UserError for a file that cannot be read.
    """
    if path.suffix != ".safetensors":
        return {}
    need_file(path, "checkpoint")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except Exception as error:  # of the file system, or of safetensors
        raise UserError(f"{path}: cannot be read as a checkpoint ({fault(error)})") from None


def trained_source(path: Path, plain: bool = False) -> TrainedSource:
    """Return the network that a file of train_source holds, on the CPU, laid out for fast convolutions.

    plain: whether it only scores, and need not be tried; it cannot adapt then, unless it is of the paper.

    Its name is looked up among the networks of the paper and of timm: no code is run that the file names.
    Raises UserError where it does not say what it is of, or is of the user's own code.
    """
    known = metadata_of(path)
    name, scale = known.get("backbone"), Scale.from_metadata(known)
    if name is None or scale is None:
        raise UserError(
            f"{path} does not say what network it is of: give --backbone, or --model and --features"
        )
    if name in BACKBONES:
        backbone = BACKBONES[name]
        network = network_with(name, SourceFile(path), torch.device("cpu"))
        protocol = backbone.protocols["paper"]
        return TrainedSource(name, backbone.wrap(network, protocol), protocol, backbone.output, scale)
    if not name.startswith(f"{TIMM}:"):
        raise UserError(f"{path} is of {name}: give that as --model, and --features")
    import timm  # as long to import as torch: only where it is asked for

    if not timm.is_model(name.removeprefix(f"{TIMM}:")):  # but a folder, or a page whose address it names
        raise UserError(f"{path} is of {name}, which is no architecture of timm: give --model and --features")
    network = made(name)
    load_weights(network, path)
    if plain:
        ynet = as_it_is(network.to(memory_format=torch.channels_last))
    else:
        ynet = wrapped(network, name, known.get("features"), PAPER.view.size)
    return TrainedSource(name, ynet, PAPER, (0.0, 1.0), scale)
