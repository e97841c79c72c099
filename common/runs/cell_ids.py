"""The ids of cells, by which results are stored. They outlive new options.

An id is a hash of the fields of a cell that differ from `FROZEN`. So an option that is added later, at a
default under which the cell computes what it always did, moves no id, once its default stands in the table.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

NAMES = ("method.name", "protocol.name")  # what is computed does not depend on them

# The value of every field that an id does not tell. Literal, and never changed: an entry for each new field,
# even where the default of a field changes later.
FROZEN: dict[str, object] = {
    "target.subset": None,
    "target.between": None,
    "method.losses": (),
    "method.reset": True,
    "method.distortion": "best",
    "method.p": 0.25,
    "method.groups": 2,
    "method.niter": 3,
    "method.adapt": None,
    "protocol.cut": "resnet",
    "protocol.projection": 256,
    "protocol.rotation_classifier": True,
    "protocol.view.size": 224,
    "protocol.view.crop": "random",
    "protocol.view.flips": ("horizontal", "vertical"),
    "protocol.severities.blur_high": (40, 60),
    "protocol.severities.blur_low": (5, 20),
    "protocol.severities.blur_taps": 5,
    "protocol.severities.compression_high": (40, 60),
    "protocol.severities.compression_low": (80, 90),
    "protocol.severities.noise_high": (0.05, 0.1),
    "protocol.severities.noise_low": (0.005, 0.01),
    "protocol.severities.reduction_high": (3, 5),
    "protocol.severities.reduction_low": (1.5, 2.2),
    "protocol.severities.whole_image": False,
    "protocol.temperature": 0.1,
    "protocol.group_form": "pairs",
    "protocol.weight": 1.0,
    "protocol.lr": 0.001,
    "protocol.rank_eps": 0.0,
    "protocol.ladder_scale": 0.3,
    "protocol.accumulate_gradients": False,
    "protocol.own_group_pass": None,
    "protocol.steps_from": "batch",
    "protocol.running_from": "all",
    "protocol.momentum": None,
    "protocol.alpha": 1.0,
    "protocol.answer_from": "running",
    "protocol.blur_first_scale_only": False,
    "protocol.leak_state": False,
    "seeds": (0, 1, 2, 3, 4),
    "batch_size": 8,
    "limit": None,
}


def cell_id(cell: Any) -> str:
    """Return 16 hexadecimal digits that depend on what a cell computes, not on what it is called.

    cell: a `common.runs.grid.Cell`.
    """
    return hashlib.sha256(json.dumps(told(cell), sort_keys=True).encode()).hexdigest()[:16]


def told(cell: Any) -> dict[str, Any]:
    """Return what an id tells of a cell: its fields, by dotted name, that differ from `FROZEN`."""
    return {
        name: value
        for name, value in dotted(asdict(cell))
        if name not in NAMES and not (name in FROZEN and value == FROZEN[name])
    }


def dotted(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of nested dicts with their dotted names: ("protocol.view.size", 224)."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
