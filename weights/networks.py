"""The four networks of the paper, by name. The modules of a network are imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from common.runs.grid import Experiment

if TYPE_CHECKING:
    from common.runs.release import Loop
    from common.y import Backbone

CPU_SECONDS = {  # by name: of a forward pass of one image on 2 cores, for estimates (docs/speed.md)
    "tres": 0.0414,
    "musiq": 0.0772,
    "hyperiqa": 0.0280,
    "metaiqa": 0.0096,
}
NAMES = tuple(CPU_SECONDS)


class _Backbones(MutableMapping[str, "Backbone"]):
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


def experiments(names: Iterable[str] = NAMES) -> dict[str, tuple[Backbone, Sequence[Experiment]]]:
    """Return each network with its list of the paper's experiments, `<name>.all_expt.EXPERIMENTS`."""
    return {name: (BACKBONES[name], import_module(f"{name}.all_expt").EXPERIMENTS) for name in names}


def authors_loop(name: str) -> Loop | None:
    """Return how the authors' own loop around a network is called, `<name>.release.LOOP`, where it can be."""
    found = f"{name}.release"
    return import_module(found).LOOP if find_spec(found) else None
