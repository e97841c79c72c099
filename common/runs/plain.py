"""Scores by the source alone, the same every time; this module imports little, so that it starts quickly."""

import math
from pathlib import Path

import numpy as np
import torch

from common.photographs import read_rgb
from common.system.errors import UserError
from common.views import View, grid
from common.y import YNetwork


@torch.no_grad()
def grid_score(ynet: YNetwork, path: Path, view: View) -> float:
    """Return the mean of the network's outputs over the grid of an image's views.

    Raises UserError where the image cannot be read, or its score is not finite.
    """
    image = read_rgb(path)
    crops = np.stack([place(image) for place in grid(view, *image.shape[:2])])
    clean = torch.from_numpy(crops).permute(0, 3, 1, 2)  # channels last in memory
    score = float(ynet.predict(ynet.normalised(clean)).double().mean())
    if not math.isfinite(score):
        raise UserError(f"{path}: the network's score is not finite")
    return score
