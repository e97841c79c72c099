"""The three distortions of the rank loss (Sec. 3.2.2, Sec. 4.2), in memory, at severities that depend on
(seed, image key)."""

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
    """Ranges that the severity of each level is drawn from, uniformly: `high` distorts more.

    blur: standard deviation in pixels of a 5 x 5 Gaussian. compression: JPEG quality, both ends included.
    noise: variance, for an image in [0, 1].

    Five taps are a box filter for any sigma >= 5, so the two blurs are nearly alike: kept, because paper and
    release say so.
    """

    blur_high: Range = (40, 60)
    blur_low: Range = (5, 20)
    compression_high: Range = (40, 60)
    compression_low: Range = (80, 90)
    noise_high: Range = (0.05, 0.1)
    noise_low: Range = (0.005, 0.01)
    whole_image: bool = (
        False  # compress and add noise before the image is resized and cropped; blur is always on the crop
    )


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """image: (H, W, C), floating point. 5 x 5 Gaussian, mirrored at the border."""
    return cv2.GaussianBlur(image, (5, 5), sigma, borderType=cv2.BORDER_REFLECT_101)


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """image: (H, W, 3), uint8 RGB. JPEG at this quality, encoded and decoded in memory."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def add_noise(image: np.ndarray, variance: float, rng: np.random.Generator) -> np.ndarray:
    """image: (H, W, C), float32 in [0, 1]. White Gaussian noise, clipped to [0, 1]."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + np.float32(variance**0.5) * noise, 0, 1)


def distort(
    image: np.ndarray, kind: str, level: str, severities: Severities, seed: int, key: str
) -> np.ndarray:
    """image: (H, W, 3), uint8 RGB. Returns float32 in [0, 1]; the severity and the noise depend on (seed,
    key) alone."""
    rng = generator(seed, f"{kind} {level}", key)
    low, high = getattr(severities, f"{kind}_{level}")
    if kind == "compression":
        return unit(compress(image, int(rng.integers(low, high, endpoint=True))))
    severity = rng.uniform(low, high)
    return add_noise(unit(image), severity, rng) if kind == "noise" else blur(unit(image), severity)


def unit(image: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [0, 1]."""
    return image.astype(np.float32) / 255
