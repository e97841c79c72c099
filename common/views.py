"""From a photograph to what the network sees.

There is one view per image and seed, which the image shares with its distorted copies, and there are second
views, with which the contrastive losses pair the first one.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from common.distortions import Part
from common.system.seeds import generator

SECOND_VIEWS = ("crop", "contrique")
GRID = 3  # places in a row, and in a column
COLOURS = ("rgb", "lab", "hsv", "grey", "ms")


@dataclass(frozen=True)
class View:
    """How views are taken."""

    size: int = 224  # pixels of the side
    crop: Literal["random", "center", "whole"] = "random"  # whole: the image squeezed to the side (bicubic)
    flips: tuple[str, ...] = ("horizontal", "vertical")  # that are drawn, each with probability 1/2


@dataclass(frozen=True)
class Placement:
    """The view of one image, drawn: it is applied alike to every version of that image."""

    view: View
    resize: tuple[int, int] | None  # (height, width) before the crop
    crop: tuple[float, float]  # between the first (0) and the last (1) possible row and column
    horizontal: bool  # flipped
    vertical: bool

    @classmethod
    def draw(
        cls, view: View, resize: tuple[int, int] | None, seed: int, key: str, purpose: str = "view"
    ) -> "Placement":
        """Draw the placement of one image, from (seed, purpose, key) alone."""
        rng = generator(seed, purpose, key)
        row, column = rng.uniform(size=2).tolist()
        horizontal, vertical = (rng.random(2) < 0.5).tolist()
        return cls(
            view,
            resize,
            (row, column) if view.crop == "random" else (0.5, 0.5),
            horizontal and "horizontal" in view.flips,
            vertical and "vertical" in view.flips,
        )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Take the view of an image: (H, W, 3), uint8 -> (size, size, 3), uint8."""
        size = self.view.size
        if self.view.crop == "whole":
            return self.flipped(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC))
        if self.resize is not None:
            image = _resize(image, *self.resize)
        image = image[self._square(*image.shape[:2])]
        if len(image) < size:
            image = _resize(image, size, size)
        return self.flipped(image)

    def part(self, image: np.ndarray) -> Part | None:
        """Return what of the image the view is, before it is flipped; None where anything is scaled."""
        if self.view.crop == "whole" or self.resize is not None or self.enlarges(image):
            return None
        return self._square(*image.shape[:2])

    def _square(self, height: int, width: int) -> Part:
        side = min(self.view.size, height, width)
        top, left = (round(at * (length - side)) for at, length in zip(self.crop, (height, width)))
        return slice(top, top + side), slice(left, left + side)

    def flipped(self, image: np.ndarray) -> np.ndarray:
        """Flip what is otherwise the view, in memory of its own."""
        if self.horizontal:
            image = image[:, ::-1]
        if self.vertical:
            image = image[::-1]
        return np.ascontiguousarray(image)

    def enlarges(self, image: np.ndarray) -> bool:
        """Whether the image is smaller than the view, so that it is scaled up."""
        before = image.shape[:2] if self.resize is None or self.view.crop == "whole" else self.resize
        return min(before) < self.view.size


def grid(view: View, height: int, width: int) -> list[Placement]:
    """Return places that cover an image of this size evenly, always the same, and without flips.

    There are at most GRID x GRID, and fewer where so many would overlap by more than they need to; one where
    the view is the whole image.
    """
    if view.crop == "whole":
        return [Placement(view, None, (0.5, 0.5), False, False)]
    rows, columns = (_spread(min(GRID, -(-side // view.size))) for side in (height, width))
    return [Placement(view, None, (row, column), False, False) for row in rows for column in columns]


def _spread(count: int) -> list[float]:
    return [0.5] if count == 1 else [n / (count - 1) for n in range(count)]


def second_view(
    kind: str, image: np.ndarray, size: int, resize: tuple[int, int] | None, seed: int, key: str
) -> np.ndarray:
    """Take a second view: (H, W, 3), uint8 RGB -> (size, size, 3), as `recoloured` leaves it.

    It is drawn from (seed, kind, key) alone: a random crop with both flips, wherever the first view lies.
    "crop" is no more than that (SimCLR, Chen et al. 2020). "contrique" is taken at half scale and in a colour
    space drawn for the image (CONTRIQUE, Madhusudana et al. 2022).

    resize: (height, width) before the crop, or None.
    """
    if kind == "contrique":
        height, width = resize or image.shape[:2]
        resize = max(1, height // 2), max(1, width // 2)
    crop = Placement.draw(View(size), resize, seed, key, f"{kind} view")(image)
    if kind == "crop":
        return crop
    return recoloured(crop, COLOURS[generator(seed, "contrique colours", key).integers(len(COLOURS))])


def recoloured(image: np.ndarray, colours: str) -> np.ndarray:
    """Bring (H, W, 3), uint8 RGB, into one of COLOURS: three channels, uint8; of "ms" float32 in [0, 1].

    "ms" subtracts the local mean, a Gaussian of 7 x 7 and sigma 7/6, and stretches each channel to [0, 1].
    """
    if colours == "ms":
        detail = image.astype(np.float32) - cv2.GaussianBlur(image.astype(np.float32), (7, 7), 7 / 6)
        spread = np.maximum(
            np.ptp(detail, (0, 1)), 1
        )  # in grey levels: rounding is not stretched where a channel is flat
        return (detail - detail.min((0, 1))) / spread
    if colours == "grey":
        return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    codes = {
        "lab": cv2.COLOR_RGB2LAB,
        "hsv": cv2.COLOR_RGB2HSV_FULL,
    }  # full: hue takes all of the eight bits, as the others do
    return image if colours == "rgb" else cv2.cvtColor(image, codes[colours])


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
