"""Photographs: what is known of one, and reading its file as users have it."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.system.errors import UserError, fault
from common.system.files import need_file

# Names of Pillow's decoders of the formats that photographs come in. Left to itself it takes whatever a file
# says it is, whose name may be photo.png: PostScript, which is handed to another program, and dozens of
# formats that nobody has tested against malice.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"}
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations

# Up to twice this size an image is decoded all the same, and beyond that it is refused: no word is needed.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Photograph:
    """One image to score."""

    key: str  # its name in the data set, from which its randomness is derived
    path: Path
    mos: float = math.nan  # larger = better; NaN where it is not known
    group: str = ""  # its reference or scene, for splits without shared content; else the image itself
    kind: str = ""  # its type of distortion, where the data set tells
    resize: tuple[int, int] | None = None  # (height, width) before the crop, where the data set has one
    split: str = ""  # official part of its data set, where it has one: train, validation or test

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.key)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a photograph; nothing is decoded yet.

    Raises UserError for a file that is missing or no image of FORMATS, and for whatever a decoder raises in
    the block.
    """
    need_file(path, "image")
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except Exception as error:  # of dozens of kinds, by decoder and version
        raise UserError(
            f"{path}: cannot be read as an image ({fault(error)}); replace the file or leave it out"
        ) from None


def read_rgb(path: Path) -> np.ndarray:
    """Read a photograph as (H, W, 3), uint8 RGB, upright by its EXIF orientation.

    Greyscale, palette, RGBA (alpha dropped), CMYK and 16-bit files are converted. Raises UserError for a file
    that is missing, no image, or truncated.
    """
    with opened(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I") or image.mode == "F":
            return _from_deep_grey(np.asarray(image))
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def size_of(path: Path) -> tuple[int, int]:
    """Return (width, height) of an image, upright, from its header alone. Raises UserError as `opened`."""
    with opened(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(0x0112) in SIDEWAYS else (width, height)


def _from_deep_grey(grey: np.ndarray) -> np.ndarray:
    """Bring 16-bit greyscale (mode I or I;16 of Pillow; F is in [0, 1]) to three 8-bit channels."""
    top = 1.0 if grey.dtype.kind == "f" else 65535.0
    if not (grey.min() >= 0 and grey.max() <= top):  # NaN fails this too
        raise ValueError(f"grey values outside 0 to {top:g}")
    grey = np.clip(grey / top * 255, 0, 255).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
