"""The three distortions of the rank loss (Sec. 3.2.2, Sec. 4.2), at severities from (seed, image key)."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from common.system.seeds import generator

TYPES = ("compression", "noise", "blur")
LEVELS = ("high", "low")
Range = tuple[float, float]


@dataclass(frozen=True)
class Severities:
    """Ranges from which the severity of each level is drawn, uniformly: `high` distorts more.

    Five taps are a box filter for any sigma >= 5, so the two blurs are nearly alike: kept, because paper and
    release say so.
    """

    blur_high: Range = (40, 60)  # standard deviation in pixels, of a 5 x 5 Gaussian
    blur_low: Range = (5, 20)
    compression_high: Range = (40, 60)  # JPEG quality, both ends included
    compression_low: Range = (80, 90)
    noise_high: Range = (0.05, 0.1)  # variance, for an image in [0, 1]
    noise_low: Range = (0.005, 0.01)
    whole_image: bool = (
        False  # compress and add noise before resizing and cropping; blur is always on the crop
    )


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur an image, (H, W, C), floating point, by a 5 x 5 Gaussian, mirrored at the border."""
    return cv2.GaussianBlur(image, (5, 5), sigma, borderType=cv2.BORDER_REFLECT_101)


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress an image, (H, W, 3), uint8 RGB, as JPEG at this quality, and decode it again."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def add_noise(image: np.ndarray, variance: float, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise to an image, (H, W, C), float32 in [0, 1], and clip it to [0, 1]."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + np.float32(variance**0.5) * noise, 0, 1)


def distort(
    image: np.ndarray, kind: str, level: str, severities: Severities, seed: int, key: str
) -> np.ndarray:
    """Distort an image: (H, W, 3), uint8 RGB -> float32 in [0, 1].

    The severity and the noise depend on (seed, kind, level, key) alone.
    """
    rng = generator(seed, f"{kind} {level}", key)
    low, high = getattr(severities, f"{kind}_{level}")
    if kind == "compression":
        return unit(compress(image, int(rng.integers(low, high, endpoint=True))))
    severity = rng.uniform(low, high)
    return add_noise(unit(image), severity, rng) if kind == "noise" else blur(unit(image), severity)


def unit(image: np.ndarray) -> np.ndarray:
    """Bring uint8 to float32 in [0, 1]."""
    return image.astype(np.float32) / 255
