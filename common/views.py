"""From a photograph to what the network sees: one view per image and seed, shared by the image and its
distorted copies.

And second views, which the contrastive losses pair the first one with.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from common.distortions import unit
from common.system.seeds import generator

SECOND_VIEWS = ("crop", "contrique")
COLOURS = ("rgb", "lab", "hsv", "grey", "ms")


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
    crop: tuple[
        float, float
    ]  # where the crop lies between the first and the last possible row and column, in [0, 1]
    horizontal: bool
    vertical: bool

    @classmethod
    def draw(
        cls, view: View, resize: tuple[int, int] | None, seed: int, key: str, purpose: str = "view"
    ) -> "Placement":
        """The placement of one image, from (seed, purpose, key) alone. resize: the data set's (height,
        width), or None."""
        rng = generator(seed, purpose, key)
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


def second_view(
    kind: str, image: np.ndarray, size: int, resize: tuple[int, int] | None, seed: int, key: str
) -> np.ndarray:
    """image: (H, W, 3), uint8 RGB -> (size, size, 3), float32 in [0, 1], from (seed, kind, key) alone.

    A random crop with both flips, wherever the first view lies. "crop" is no more than that (SimCLR, Chen et
    al. 2020). "contrique" is taken at half scale and in a colour space drawn for the image (CONTRIQUE,
    Madhusudana et al. 2022). resize: the data set's (height, width), or None.
    """
    if kind == "contrique":
        resize = tuple(max(1, side // 2) for side in resize or image.shape[:2])
    crop = Placement.draw(View(size), resize, seed, key, f"{kind} view")(image)
    if kind == "crop":
        return unit(crop)
    return recoloured(crop, COLOURS[generator(seed, "contrique colours", key).integers(len(COLOURS))])


def recoloured(image: np.ndarray, colours: str) -> np.ndarray:
    """image: (H, W, 3), uint8 RGB -> the same in one of COLOURS, three channels, float32 in [0, 1].

    "ms" subtracts the local mean, a Gaussian of 7 x 7 and sigma 7/6, and stretches each channel to [0, 1].
    """
    if colours == "ms":
        detail = image.astype(np.float32) - cv2.GaussianBlur(image.astype(np.float32), (7, 7), 7 / 6)
        spread = np.maximum(
            np.ptp(detail, (0, 1)), 1
        )  # in grey levels: rounding is not stretched where a channel is flat
        return (detail - detail.min((0, 1))) / spread
    if colours == "grey":
        return unit(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))
    codes = {
        "lab": cv2.COLOR_RGB2LAB,
        "hsv": cv2.COLOR_RGB2HSV_FULL,
    }  # full: hue takes all of the eight bits, as the others do
    return unit(image if colours == "rgb" else cv2.cvtColor(image, codes[colours]))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
