"""A small data set to try adaptation on, made from photographs that ship inside installed packages.

Eight photographs lost light, step by step, and were denoised and brightened again: exposure, shot and read
noise, 8 bits, non-local means, gain, local contrast. The label is minus the stops of light lost, the known
severity: no human score.

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


class Version(NamedTuple):
    """A photograph with some of its light lost."""

    name: str  # of its file
    image: np.ndarray  # (H, W, 3), uint8
    stops: float  # of light lost
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


def _bytes(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def versions() -> Iterator[Version]:
    """Yield STEPS copies of the centre of every photograph, from full exposure to STOPS less."""
    for reference, read in PHOTOGRAPHS.items():
        photograph = read()
        top, left = (max(0, side - SIDE) // 2 for side in photograph.shape[:2])
        image = photograph[top : top + SIDE, left : left + SIDE]
        for step in range(STEPS):
            name, stops = _name(reference, step), round(STOPS * step / (STEPS - 1), 3)
            yield Version(name, lose_light(image, stops, generator(0, "demo", name)), stops, reference)


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
        rows.append((version.name, 0.0 - version.stops, version.reference))
    write_csv(folder / "scores.csv", ("image_name", "MOS", "reference"), rows)
