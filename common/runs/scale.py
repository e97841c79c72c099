"""The scale of a network's scores: what its output says in the unit of the human scores it learnt from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.system.text import printable, shortened

HUMAN = "the human scores that it was trained on"  # where nothing tells which


@dataclass(frozen=True)
class Scale:
    """score = mean + scale x output of the network; larger = better."""

    mean: float = 0.0
    scale: float = 1.0  # above 0, so that scores and outputs have one order
    title: str = "the network's own output"  # what the scores are, in words

    @classmethod
    def of(cls, mos: np.ndarray, output: tuple[float, float]) -> "Scale":
        """Return the scale on which the mean score has the first output.

        One standard deviation above it has the second more.
        """
        scale = float(mos.std()) / output[1]
        return cls(float(mos.mean()) - scale * output[0], scale, HUMAN)

    def score(self, output: float) -> float:
        """Return the score that an output stands for."""
        return self.mean + self.scale * output

    def metadata(self) -> dict[str, str]:
        """Return what a file of weights says of it."""
        return {"score_mean": repr(self.mean), "score_scale": repr(self.scale), "scale": self.title}

    @classmethod
    def from_metadata(cls, known: Mapping[str, str]) -> "Scale | None":
        """Return what a file of weights says; None where it says nothing of the scale."""
        try:
            mean, scale = float(known["score_mean"]), float(known["score_scale"])
        except (KeyError, ValueError):
            return None
        if not (math.isfinite(mean) and 0 < scale < math.inf):
            return None
        return cls(mean, scale, shortened(printable(known.get("scale", HUMAN)), 200))
