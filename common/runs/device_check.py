"""Whether a device computes what the CPU does, and the same each time, however many episodes run at once."""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor

from common.adapter import Adapter, Outcome
from common.batches import Batch
from common.protocols import METHODS, Protocol
from common.system.precision import PRECISIONS, precision
from common.y import YNetwork

AT_ONCE = (2, 4, 8)
# Of the spread of the scores. A step of Adam follows the sign of a gradient, however small that is, so that
# rounding grows where scores adapt.
SAME, ADAPTED = 1e-3, 5e-2
RANKS = {"float32": 1e-2, "tf32": 2e-2, "bfloat16": 1e-1}  # of 1 - SROCC


class Check(NamedTuple):
    """One comparison."""

    name: str
    found: float
    limit: float  # up to which it is passed

    @property
    def ok(self) -> bool:
        """Whether it is passed."""
        return self.found <= self.limit  # NaN is not

    def as_json(self) -> dict[str, Any]:
        """Return it for the file; NaN is None."""
        found = self.found if math.isfinite(self.found) else None
        return {"name": self.name, "found": found, "limit": self.limit, "ok": self.ok}


def checks(ynet: YNetwork, protocol: Protocol, batches: Sequence[Batch], device: torch.device) -> list[Check]:
    """Compare episodes of rank+gc on the device with each other, and with those on the CPU, which come first.

    ynet: with trained weights, on the CPU, with its head drawn; it stays there.
    """
    method = METHODS["rank+gc"]
    with precision("float32", device):
        expected = [Adapter(ynet, protocol, method)([batch])[0] for batch in batches]
        there = copy.deepcopy(ynet).to(device)
        before = {name: value.clone() for name, value in there.state_dict().items()}
        adapter = Adapter(there, protocol, method)
        alone = [adapter([batch])[0] for batch in batches]
        again = adapter([batches[0]])[0]
        fresh = Adapter(there, protocol, method)([batches[0]])[0]
        found = [
            Check("an episode after others is as it was", _difference([again], alone[:1]), SAME),
            Check("an episode of a new adapter is the same", _difference([fresh], alone[:1]), SAME),
        ]
        for e in (e for e in AT_ONCE if e <= len(batches)):
            together = [one for n in range(0, len(batches), e) for one in adapter(batches[n : n + e])]
            found.append(Check(f"{e} episodes at once", _difference(together, alone), ADAPTED))
    own = there.state_dict()
    changed = sum(not torch.equal(own[name], value) for name, value in before.items())
    found.append(Check("tensors of the source that changed", changed, 0))
    for name in PRECISIONS if device.type == "cuda" else PRECISIONS[:1]:
        with precision(name, device):
            outcomes = alone if name == "float32" else [adapter([batch])[0] for batch in batches]
        if name == "float32":
            found.append(Check("source against the CPU", _difference(outcomes, expected, "source"), SAME))
            found.append(Check("adapted against the CPU", _difference(outcomes, expected), ADAPTED))
        for field in ("source", "adapted"):
            apart = 1 - _srocc(_all(outcomes, field), _all(expected, field))
            found.append(Check(f"ranks of {field} scores in {name} against the CPU", apart, RANKS[name]))
    return found


def same_forward(ynet: YNetwork, batch: Batch, device: torch.device) -> list[Check]:
    """Compare plain scores on the device with those on the CPU, relative to the largest."""
    there = copy.deepcopy(ynet).to(device)
    with torch.no_grad(), precision("float32", device):
        expected, found = (one.predict(one.normalised(batch.clean)).double().cpu() for one in (ynet, there))
    difference = float((found - expected).abs().max() / expected.abs().max())
    return [Check("plain scores against the CPU, relative", difference, 1e-4)]


def _all(outcomes: Sequence[Outcome], field: str) -> Tensor:
    return torch.cat([getattr(outcome, field).double() for outcome in outcomes])


def _difference(found: Sequence[Outcome], expected: Sequence[Outcome], field: str = "adapted") -> float:
    """Return the largest difference between scores, in standard deviations of the expected ones."""
    one, other = _all(found, field), _all(expected, field)
    return float((one - other).abs().max() / other.std())


def _srocc(one: Tensor, other: Tensor) -> float:
    return float(stats.spearmanr(one.numpy(), other.numpy())[0])
