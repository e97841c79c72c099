"""From a photograph to what the network sees: one view per image and seed, shared by the image and its distorted copies."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from common.seeds import generator


@dataclass(frozen=True)
class View:
    """crop: a random or the central square of `size` pixels, or the whole image squeezed to it (bicubic).
    flips: which of the random flips are drawn, each with probability 1/2."""

    size: int = 224
    crop: Literal["random", "center", "whole"] = "random"
    flips: tuple[str, ...] = ("horizontal", "vertical")


@dataclass(frozen=True)
class Placement:
    """The view of one image, decided: it applies to any version of that image alike."""

    view: View
    resize: tuple[int, int] | None  # (height, width) before the crop
    crop: tuple[float, float]  # where the crop lies between the first and the last possible row and column, in [0, 1]
    horizontal: bool
    vertical: bool

    @classmethod
    def draw(cls, view: View, resize: tuple[int, int] | None, seed: int, key: str) -> "Placement":
        """The placement of one image, from (seed, key) alone. resize: the data set's (height, width), or None."""
        rng = generator(seed, "view", key)
        crop, (horizontal, vertical) = rng.uniform(size=2), rng.random(2) < 0.5
        return cls(
            view,
            resize,
            tuple(crop) if view.crop == "random" else (0.5, 0.5),
            bool(horizontal) and "horizontal" in view.flips,
            bool(vertical) and "vertical" in view.flips,
        )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """image: (H, W, 3), uint8 -> (size, size, 3), uint8."""
        size = self.view.size
        if self.view.crop == "whole":
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
        else:
            if self.resize is not None:
                image = _resize(image, *self.resize)
            square = min(size, *image.shape[:2])
            top, left = (round(at * (side - square)) for at, side in zip(self.crop, image.shape))
            image = image[top : top + square, left : left + square]
            if square < size:
                image = _resize(image, size, size)
        if self.horizontal:
            image = image[:, ::-1]
        if self.vertical:
            image = image[::-1]
        return np.ascontiguousarray(image)

    def enlarges(self, image: np.ndarray) -> bool:
        """Whether the image is smaller than the view, so that it is scaled up."""
        before = image.shape[:2] if self.resize is None or self.view.crop == "whole" else self.resize
        return min(before) < self.view.size


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
