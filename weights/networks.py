"""The four networks of the paper, by name. The modules of a network are imported when it is asked for."""

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import nn

from common.runs.grid import Experiment
from common.runs.release import Loop
from common.y import Backbone
from weights.loading import load_weights
from weights.manifest import SourceFile

CPU_SECONDS = {  # by name: of a forward pass of one image on 4 cores, for estimates (docs/speed.md)
    "tres": 0.099,
    "musiq": 0.133,
    "hyperiqa": 0.049,
    "metaiqa": 0.020,
}
NAMES = tuple(CPU_SECONDS)


class _Backbones(MutableMapping[str, Backbone]):
    """`<name>.wrapper.BACKBONE` by name; names can be listed and looked up without importing anything."""

    def __init__(self, names: Iterable[str]):
        self._known: dict[str, Backbone | None] = dict.fromkeys(names)  # None: not imported yet

    def __getitem__(self, name: str) -> Backbone:
        backbone = self._known[name]
        if backbone is None:
            backbone = self._known[name] = import_module(f"{name}.wrapper").BACKBONE
        return backbone

    def __setitem__(self, name: str, backbone: Backbone) -> None:
        self._known[name] = backbone

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, name: object) -> bool:
        return name in self._known


BACKBONES = _Backbones(NAMES)


def network_with(name: str, source: SourceFile, device: torch.device) -> nn.Module:
    """Return the named network with the weights of a checkpoint, on the device.

    Raises UserError where the checkpoint is of another network, damaged, or not the file that was downloaded.
    """
    source.verify(name)
    network = BACKBONES[name].network()
    load_weights(network, source.path, BACKBONES[name].rename)
    return network.to(device).to(memory_format=torch.channels_last)


def experiments(names: Iterable[str] = NAMES) -> dict[str, tuple[Backbone, Sequence[Experiment]]]:
    """Return each network with its list of the paper's experiments, `<name>.all_expt.EXPERIMENTS`."""
    return {name: (BACKBONES[name], import_module(f"{name}.all_expt").EXPERIMENTS) for name in names}


def authors_loop(name: str) -> Loop | None:
    """Return how the authors' own loop around a network is called, `<name>.release.LOOP`, where it can be."""
    found = f"{name}.release"
    return import_module(found).LOOP if find_spec(found) else None
