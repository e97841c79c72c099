"""Two small data sets to learn and try things on, made from photographs that ship inside installed packages.

source: eight photographs, each in four renditions (other colours, tones and sizes, so that there is more to
learn from than eight pictures), of each rendition four kinds of degradation at five levels; MOS = 100 for
none, and 85 to 0 from the weakest severity to the strongest. Not a full-reference metric: the strongest blur
here has an SSIM of 0.51 on `china` and 0.77 on `rocket`, so it would grade the photograph more than its
degradation.

target: three other photographs that lost light, step by step, and were denoised and brightened again:
exposure, shot and read noise, 8 bits, non-local means, gain, local contrast. No part of that chain but the
noise is in the source. MOS = -stops of light lost, the known severity.

All randomness derives from the names.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_image

from common.distortions import add_noise, compress, unit
from common.photographs import read_rgb
from common.system.output import write_csv
from common.system.seeds import generator

SOURCE: dict[str, Callable[[], np.ndarray]] = {
    "astronaut": skimage.data.astronaut,
    "china": partial(load_sample_image, "china.jpg"),
    "coffee": skimage.data.coffee,
    "hubble": skimage.data.hubble_deep_field,
    "motorcycle": lambda: skimage.data.stereo_motorcycle()[0],
    "retina": skimage.data.retina,
    "rocket": skimage.data.rocket,
    "tissue": skimage.data.immunohistochemistry,
}
TARGET: dict[str, Callable[[], np.ndarray]] = {
    "cat": skimage.data.chelsea,
    "flower": partial(load_sample_image, "flower.jpg"),
    "hopper": lambda: read_rgb(Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"),
}
# From the weakest to the strongest: JPEG quality, noise variance, standard deviation in pixels, factor.
RANGES = {"compression": (60, 4), "noise": (6e-4, 0.08), "blur": (0.8, 6), "reduction": (1.6, 9)}
LEVELS = 5
RENDITIONS = 4
SIDE = 512  # pixels at most of a source photograph, about its centre
STOPS = 6.0  # of light that the last step of the target has lost
STEPS = 12
ELECTRONS = 2000  # that white stands for at full exposure
READ_NOISE = 3.0  # electrons


class Version(NamedTuple):
    """One degraded copy of a photograph."""

    name: str  # of its file
    image: np.ndarray  # (H, W, 3), uint8
    mos: float
    reference: str  # name of the photograph
    kind: str  # of degradation, or "original" for none


def degrade(image: np.ndarray, kind: str, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Degrade an image, (H, W, 3), uint8.

    severity: in the unit of RANGES; `reduction` shrinks and enlarges again.
    """
    if kind == "compression":
        return compress(image, round(severity))
    if kind == "noise":
        return _bytes(add_noise(unit(image), severity, rng))
    if kind == "blur":
        return _bytes(cv2.GaussianBlur(unit(image), (0, 0), severity, borderType=cv2.BORDER_REFLECT_101))
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize(
        (int(width // severity), int(height // severity)), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def lose_light(image: np.ndarray, stops: float, rng: np.random.Generator) -> np.ndarray:
    """Render an image, (H, W, 3), uint8, as a camera and its software do with 2^-stops of the light."""
    exposure = 2.0**-stops
    light = unit(image).astype(np.float64) ** 2.2 * exposure
    electrons = rng.poisson(light * ELECTRONS) + READ_NOISE * rng.standard_normal(image.shape)
    dark = _bytes((np.clip(electrons / ELECTRONS, 0, exposure) / exposure * np.sqrt(exposure)) ** (1 / 2.2))
    strength = float(3 + 3 * stops)
    denoised = cv2.fastNlMeansDenoisingColored(
        dark, None, strength, strength, templateWindowSize=5, searchWindowSize=11
    )
    bright = np.clip(unit(denoised) / np.sqrt(exposure) ** (1 / 2.2), 0, 1).astype(np.float32)
    lab = cv2.cvtColor(_bytes(bright), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=1 + stops / 4, tileGridSize=(4, 4)).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _bytes(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def render(image: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return one rendition of the centre of an image, (H, W, 3), uint8.

    Number 0 is the centre as it is; every other has its channels in another order, another tone curve and, if
    it stays larger than a view, another size.
    """
    top, left = (max(0, side - SIDE) // 2 for side in image.shape[:2])
    image = image[top : top + SIDE, left : left + SIDE]
    if number == 0:
        return image
    gamma, scale, channels = rng.uniform(0.6, 1.6), rng.uniform(0.55, 1), rng.permutation(3)
    scale = max(scale, 240 / min(image.shape[:2]))
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    smaller = np.asarray(Image.fromarray(image[..., channels]).resize(size, Image.Resampling.LANCZOS))
    return _bytes(unit(smaller) ** gamma)


def source_versions() -> Iterator[Version]:
    """Yield every rendition as it is, and LEVELS copies of each kind of degradation.

    The severities of the renditions interleave.
    """
    for reference, read in SOURCE.items():
        photograph = read()
        for number in range(RENDITIONS):
            image = render(photograph, number, generator(0, "demo rendition", f"{reference} {number}"))
            yield Version(f"{reference}{number}.png", image, 100.0, reference, "original")
            for kind, (weak, strong) in RANGES.items():
                for level in range(LEVELS):
                    name = f"{reference}{number}_{kind}_{level + 1}.png"
                    # From 0, the weakest, to 1, the strongest.
                    at = (level * RENDITIONS + number) / (LEVELS * RENDITIONS - 1)
                    copy = degrade(
                        image, kind, weak * (strong / weak) ** at, generator(0, "demo source", name)
                    )
                    yield Version(name, copy, round(85 * (1 - at), 3), reference, kind)


def target_versions() -> Iterator[Version]:
    """Yield STEPS copies of every photograph, from full exposure to STOPS less."""
    for reference, read in TARGET.items():
        image = read()
        for step in range(STEPS):
            name, stops = f"{reference}_{step:02d}.png", STOPS * step / (STEPS - 1)
            copy = lose_light(image, stops, generator(0, "demo target", name))
            yield Version(name, copy, 0.0 - round(stops, 3), reference, "low light")


def write(folder: Path, versions: Iterator[Version]) -> None:
    """Write one set in the `csv` layout; the CSV file is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for version in versions:
        Image.fromarray(version.image).save(folder / version.name, compress_level=1)
        rows.append((version.name, version.mos, version.reference, version.kind))
    write_csv(folder / "scores.csv", ("image_name", "MOS", "reference", "type"), rows)
