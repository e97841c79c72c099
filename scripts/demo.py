"""One cell, end to end, on photographs that ship with scikit-image and scikit-learn, graded by known degradations.

    python -m scripts.demo --out results/demo

No trained weights ship with the project yet: the network is MetaIQA's with random weights, so its scores mean nothing.
What this shows is that the machinery works here, and how fast.
"""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from common.backbones import BACKBONES
from common.cli import Parser
from common.distortions import add_noise, compress, unit
from common.errors import command
from common.output import write_csv
from common.seeds import generator
from scripts import reproduce_cell

PHOTOGRAPHS: dict[str, Callable[[], np.ndarray]] = {
    "astronaut": skimage.data.astronaut,
    "cat": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "rocket": skimage.data.rocket,
    "china": lambda: load_sample_image("china.jpg"),
    "flower": lambda: load_sample_image("flower.jpg"),
}
LEVELS = {"compression": (40, 15, 5), "noise": (0.002, 0.01, 0.05), "reduction": (2, 4, 8)}  # quality, variance, factor


def degrade(image: np.ndarray, kind: str, severity: float, key: str) -> np.ndarray:
    """image: (H, W, 3), uint8 -> the same, degraded; `reduction` shrinks it and scales it up again."""
    if kind == "compression":
        return compress(image, int(severity))
    if kind == "noise":
        return (add_noise(unit(image), severity, generator(0, "demo", key)) * 255).round().astype(np.uint8)
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((int(width // severity), int(height // severity)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def make_photographs(folder: Path) -> None:
    """Write the photographs, each as it is and at three levels of three degradations; MOS = 3 - level."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, read in PHOTOGRAPHS.items():
        image = read()
        versions = {f"{name}.png": (image, 0)}
        for kind, severities in LEVELS.items():
            for level, severity in enumerate(severities, start=1):
                key = f"{name}_{kind}_{level}.png"
                versions[key] = degrade(image, kind, severity, key), level
        for key, (version, level) in versions.items():
            Image.fromarray(version).save(folder / key)
            rows.append((key, 3 - level, name))
    write_csv(folder / "scores.csv", ("image_name", "MOS", "reference"), rows)


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m scripts.demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/demo"), help="folder to write to; default: results/demo")
    args = parser.parse_args(argv)
    photographs, weights = args.out / "photographs", args.out / "untrained-metaiqa.pth"
    make_photographs(photographs)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(BACKBONES["metaiqa"].network().state_dict(), weights)
    print("MetaIQA's network with random weights: what follows shows the machinery, the scores mean nothing.", flush=True)
    options = ["--backbone", "metaiqa", "--dataset", "csv", "--data-root", str(photographs), "--weights", str(weights)]
    options += ["--method", "rank+gc", "--seeds", "1"]
    options += ["--json", str(args.out / "cell.json"), "--scores", str(args.out / "scores.csv")]
    print(f"python -m scripts.reproduce_cell {shlex.join(options)}", flush=True)
    return reproduce_cell.main(options)


if __name__ == "__main__":
    raise SystemExit(main())
