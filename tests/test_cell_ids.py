"""Ids of cells last: no result of the paper is orphaned by an option that comes later.

`python -m tests.test_cell_ids` writes the ids to tests/golden/cell_ids.txt. Only before results exist.
"""

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from common.distortions import Severities
from common.protocols import METHODS, Method, Protocol
from common.runs import cell_ids
from common.runs.grid import PAPER_PLACES, Cell, Target, paper_grid
from common.views import View
from weights.networks import experiments

EXPECTED = Path(__file__).parent / "golden/cell_ids.txt"
PREFIXES = {
    Cell: "",
    Target: "target.",
    Method: "method.",
    Protocol: "protocol.",
    View: "protocol.view.",
    Severities: "protocol.severities.",
}


def listed():
    """A line for each of the paper's cells, by its first place."""
    lines = {}
    for entry in paper_grid(experiments(), "paper", range(5)):
        if entry.place in PAPER_PLACES:
            where = f"{entry.place}, {entry.backbone}, {entry.weights} on {entry.target}: {entry.setting}"
            lines.setdefault(entry.cell.id, f"{entry.cell.id}  {where}\n")
    return list(lines.values())


def test_the_ids_of_the_paper_have_not_moved():
    expected = EXPECTED.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(expected) == 181 and listed() == expected


def test_every_default_is_frozen():
    """Else a new field would move every id: give it an entry in common/runs/cell_ids.py."""
    for kind, prefix in PREFIXES.items():
        for field in dataclasses.fields(kind):
            nested = field.name in ("view", "severities")
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if not (nested or required or prefix + field.name in cell_ids.NAMES):
                assert prefix + field.name in cell_ids.FROZEN, prefix + field.name


@dataclass(frozen=True)
class LaterProtocol(Protocol):
    """The protocol of a later version."""

    option: int = 7


def test_a_new_option_at_its_default_moves_no_id(monkeypatch):
    cell = Cell("tres", "tres-live_fb", Target("pipal"), METHODS["rank+gc"], Protocol())
    later = replace(cell, protocol=LaterProtocol())
    monkeypatch.setitem(cell_ids.FROZEN, "protocol.option", 7)
    assert later.id == cell.id
    assert replace(cell, protocol=LaterProtocol(option=8)).id != cell.id


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "musiq"},
        {"seeds": (0,)},
        {"limit": 100},
        {"target": Target("pipal", between=(40.0, 50.0))},
        {"protocol": Protocol(view=View(size=32))},
        {"method": replace(METHODS["rank+gc"], niter=4)},
    ],
)
def test_what_is_computed_has_an_id_of_its_own(change):
    cell = Cell("tres", "tres-live_fb", Target("pipal"), METHODS["rank+gc"], Protocol())
    renamed = replace(cell, method=replace(cell.method, name="x"), protocol=replace(cell.protocol, name="y"))
    assert replace(cell, **change).id != cell.id == renamed.id


if __name__ == "__main__":
    EXPECTED.write_text("".join(listed()), encoding="utf-8")
