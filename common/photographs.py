"""Photographs: what is known of one, and reading its file as users have it."""

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.system.errors import UserError

# What Pillow raises for files that are no images, damaged, or too large.
DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"}
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations


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


def read_rgb(path: Path) -> np.ndarray:
    """Read a photograph as (H, W, 3), uint8 RGB, upright by its EXIF orientation.

    Greyscale, palette, RGBA (alpha dropped), CMYK and 16-bit files are converted. Raises UserError for a file
    that is missing, no image, or truncated.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I") or image.mode == "F":
                return _from_deep_grey(np.asarray(image))
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except DAMAGED as error:
        raise UserError(
            f"{path}: cannot be read as an image ({error}); replace the file or leave it out"
        ) from None


def size_of(path: Path) -> tuple[int, int]:
    """Return (width, height) of a readable image, upright, from its header alone."""
    with Image.open(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(0x0112) in SIDEWAYS else (width, height)


def _from_deep_grey(grey: np.ndarray) -> np.ndarray:
    """Bring 16-bit greyscale (mode I or I;16 of Pillow; F is in [0, 1]) to three 8-bit channels."""
    top = 1.0 if grey.dtype.kind == "f" else 65535.0
    if not (grey.min() >= 0 and grey.max() <= top):  # NaN fails this too
        raise ValueError(f"grey values outside 0 to {top:g}")
    grey = np.clip(grey / top * 255, 0, 255).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
