"""Two small data sets to try adaptation on, made from photographs that ship inside installed packages.

"light": eight photographs lost light, step by step, and were denoised and brightened again: exposure, shot
and read noise, 8 bits, non-local means, gain, local contrast. "compression": they were reduced, compressed as
WebP at ten qualities, and enlarged again, as messengers do. The label is minus the known severity: no human
score.

All randomness derives from the names.
"""

import io
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

from common.distortions import unit
from common.photographs import read_rgb
from common.system.errors import UserError, shown
from common.system.output import make_folders, write_csv
from common.system.seeds import generator

PHOTOGRAPHS: dict[str, Callable[[], np.ndarray]] = {
    "astronaut": skimage.data.astronaut,
    "cat": skimage.data.chelsea,
    "china": partial(load_sample_image, "china.jpg"),
    "coffee": skimage.data.coffee,
    "flower": partial(load_sample_image, "flower.jpg"),
    "hopper": lambda: read_rgb(Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"),
    "motorcycle": lambda: skimage.data.stereo_motorcycle()[0],
    "rocket": skimage.data.rocket,
}
SIDE = 480  # pixels at most of a photograph, about its centre
STOPS = 6.0  # of light that the last step has lost
STEPS = 10
ELECTRONS = 2000  # that white stands for at full exposure
READ_NOISE = 3.0  # electrons


REDUCED = 1.5  # times that compressed copies are smaller
QUALITIES = (80, 1)  # of WebP, of the first and of the last step, in equal ratios between


class Version(NamedTuple):
    """A photograph with a fault."""

    name: str  # of its file
    image: np.ndarray  # (H, W, 3), uint8
    severity: float  # of the fault
    reference: str  # name of the photograph


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


def pass_on(image: np.ndarray, quality: int) -> np.ndarray:
    """Return an image, (H, W, 3), uint8, as it looks when it was reduced, compressed and enlarged again."""
    height, width = image.shape[:2]
    size = round(width / REDUCED), round(height / REDUCED)
    buffer = io.BytesIO()
    Image.fromarray(image).resize(size, Image.Resampling.LANCZOS).save(
        buffer, "WEBP", quality=quality, method=4
    )
    return np.asarray(Image.open(buffer).resize((width, height), Image.Resampling.BICUBIC))


def _darkened(image: np.ndarray, name: str, step: int) -> tuple[np.ndarray, float]:
    stops = round(STOPS * step / (STEPS - 1), 3)
    return lose_light(image, stops, generator(0, "demo", name)), stops


def _compressed(image: np.ndarray, name: str, step: int) -> tuple[np.ndarray, float]:
    first, last = QUALITIES
    return pass_on(image, round(first * (last / first) ** (step / (STEPS - 1)))), float(step)


class Fault(NamedTuple):
    """What happened to the photographs."""

    make: Callable[[np.ndarray, str, int], tuple[np.ndarray, float]]  # of image, name, step: with severity
    happened: str  # what it was, as the rest of "photographs that ..."
    label: str  # what its severity counts


FAULTS = {
    "light": Fault(
        _darkened, "lost light step by step, and were denoised and brightened again", "stops of light"
    ),
    "compression": Fault(
        _compressed,
        "were reduced, compressed as WebP ever more strongly, and enlarged again",
        "steps of compression",
    ),
}


def _bytes(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def versions(fault: Fault) -> Iterator[Version]:
    """Yield STEPS copies of the centre of every photograph, from the slightest fault to the strongest."""
    for reference, read in PHOTOGRAPHS.items():
        photograph = read()
        top, left = (max(0, side - SIDE) // 2 for side in photograph.shape[:2])
        image = photograph[top : top + SIDE, left : left + SIDE]
        for step in range(STEPS):
            name = _name(reference, step)
            yield Version(name, *fault.make(image, name, step), reference)


def _name(reference: str, step: int) -> str:
    return f"{reference}_{step:02d}.png"


def write(folder: Path, made: Iterator[Version]) -> None:
    """Write the set in the `csv` layout; the CSV file is written last.

    Raises UserError, before anything is written, where other files are in the folder.
    """
    make_folders(folder)
    own = {_name(reference, step) for reference in PHOTOGRAPHS for step in range(STEPS)} | {"scores.csv"}
    if others := sorted({path.name for path in folder.iterdir()} - own):
        raise UserError(f"{folder} holds other files ({shown(others)}): choose another folder")
    rows = []
    for version in made:
        Image.fromarray(version.image).save(folder / version.name, compress_level=1)
        rows.append((version.name, 0.0 - version.severity, version.reference))
    write_csv(folder / "scores.csv", ("image_name", "MOS", "reference"), rows)
