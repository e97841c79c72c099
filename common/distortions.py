"""The three distortions of the rank loss (Sec. 3.2.2, Sec. 4.2), at severities from (seed, image key).

A ladder is a pair of copies of one kind, like those of the rank loss; `reduction` is for ladders alone.
"""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from common.system.seeds import generator

TYPES = ("compression", "noise", "blur")  # of the paper
LEVELS = ("high", "low")
Range = tuple[float, float]
Part = tuple[slice, slice]  # rows and columns of an image
WHOLE = (slice(None), slice(None))


@dataclass(frozen=True)
class Severities:
    """Ranges from which the severity of each level is drawn, uniformly: `high` distorts more.

    Five taps are a box filter for any sigma >= 5, so the two blurs are nearly alike: kept, because paper and
    release say so.
    """

    blur_high: Range = (40, 60)  # standard deviation in pixels
    blur_low: Range = (5, 20)
    blur_taps: int = 5  # of the Gaussian, on a side; 0: as many as it needs
    compression_high: Range = (40, 60)  # JPEG quality, both ends included
    compression_low: Range = (80, 90)
    noise_high: Range = (0.05, 0.1)  # variance, for an image in [0, 1]
    noise_low: Range = (0.005, 0.01)
    reduction_high: Range = (3, 5)  # factor by which it is shrunk, and enlarged again
    reduction_low: Range = (1.5, 2.2)
    whole_image: bool = (
        False  # compress and add noise before resizing and cropping; blur is always on the crop
    )


# What a viewer sees as weak and as strong faults, where the paper's are strong and stronger.
LADDERS = Severities(
    blur_high=(1.8, 4),
    blur_low=(0.6, 1.3),
    blur_taps=0,
    compression_high=(6, 20),
    compression_low=(30, 60),
    noise_high=(0.0064, 0.0625),
    noise_low=(0.0004, 0.0036),
)


def blur(image: np.ndarray, sigma: float, taps: int = 5) -> np.ndarray:
    """Blur an image, (H, W, C), floating point, by a Gaussian of taps x taps, mirrored at the border.

    taps: 0 for as many as sigma needs.
    """
    return cv2.GaussianBlur(image, (taps, taps), sigma, borderType=cv2.BORDER_REFLECT_101)


def reduce(image: np.ndarray, factor: float) -> np.ndarray:
    """Shrink an image, (H, W, 3), uint8 RGB, by a factor, and enlarge it again."""
    height, width = image.shape[:2]
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress an image, (H, W, 3), uint8 RGB, as JPEG at this quality, and decode it again."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def add_noise(image: np.ndarray, variance: float, rng: np.random.Generator, part: Part = WHOLE) -> np.ndarray:
    """Add white Gaussian noise to an image, (H, W, 3), uint8 RGB -> float32, clipped to [0, 1].

    part: what is wanted of it; the noise is that of the whole image.
    """
    noise = rng.standard_normal(image.shape, dtype=np.float32)[part]
    return np.clip(unit(image[part]) + np.float32(variance**0.5) * noise, 0, 1)


def distort(
    image: np.ndarray,
    kind: str,
    level: str,
    severities: Severities,
    seed: int,
    key: str,
    part: Part = WHOLE,
) -> np.ndarray:
    """Distort an image, (H, W, 3), uint8 RGB: to uint8 again by JPEG and reduction, else to [0, 1], float32.

    kind: one of TYPES, "reduction", or several joined by "+", of which the image draws one.
    part: what is wanted of the distorted image.

    What is drawn depends on (seed, kind, level, key) alone, and the kind of an image not on the level.
    """
    if "+" in kind:
        kinds = kind.split("+")
        kind = kinds[generator(seed, f"kind of {kind}", key).integers(len(kinds))]
    rng = generator(seed, f"{kind} {level}", key)
    low, high = getattr(severities, f"{kind}_{level}")
    if kind == "compression":
        return compress(image, int(rng.integers(low, high, endpoint=True)))[part]
    severity = rng.uniform(low, high)
    if kind == "reduction":
        return reduce(image, severity)[part]
    if kind == "noise":
        return add_noise(image, severity, rng, part)
    return blur(unit(image), severity, severities.blur_taps)[part]


def unit(image: np.ndarray) -> np.ndarray:
    """Bring uint8 to float32 in [0, 1]; floating point is there already."""
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image
