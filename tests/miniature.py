"""The whole paper in miniature: every data set in its own layout with a few images, a checkpoint for every
source, and small networks in the places of the four. `python -m tests.miniature` is scripts.all_expt on those
networks, for tests that kill it."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import common.runs.worker
import weights.manifest
from common.system.seeds import generator
from common.y import Backbone
from scripts import all_expt
from tests import layouts
from tests.conftest import CUTS, SmallNet
from weights.networks import BACKBONES

SOURCES = {
    "tres": ("tres-live_fb", "tres-live_iqa"),
    "musiq": ("musiq-live_fb",),
    "hyperiqa": ("hyperiqa-live_fb",),
    "metaiqa": ("metaiqa-tid2013-kadid10k",),
}
LIVE = {
    f"{kind}/img{k}.bmp": (20.0 * k + 5 * j, "bikes")
    for k in range(1, 6)
    for j, kind in enumerate(layouts.LIVE_BLOCKS)
}
ENVIRONMENT = {  # of a process that runs it
    "OMP_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__WORKER__PRELOAD": "['tests.miniature']",  # its workers load this module first
}
SIMILAR = ("--similar-dmos", "35", "65")


def network() -> SmallNet:
    """In double precision, so that no machine ranks the images otherwise."""
    return SmallNet().double()


def small(backbone: Backbone) -> Backbone:
    """The same protocols, on views of 32 pixels and with a small network."""
    protocols = {
        name: replace(one, view=replace(one.view, size=32)) for name, one in backbone.protocols.items()
    }
    return replace(backbone, network=network, cuts=CUTS, protocols=protocols)


def build(root: Path, live: Mapping[str, tuple[float, str]] = LIVE) -> tuple[Path, Path]:
    """Folders of the data sets and of the checkpoints; live: the images of LIVE."""
    data, files = root / "data", root / "weights"
    for name in ("koniq10k", "pipal", "cid2013", "spaq", "livec", "dslr"):
        getattr(layouts, name)(data / name)
    layouts.live_iqa(data / "live_iqa", rows=live)
    for path in data.rglob("*"):
        if path.suffix.lower() in (".jpg", ".bmp", ".png"):
            _texture(path)
    files.mkdir()
    known = weights.manifest.read_manifest()
    for number, name in enumerate(name for names in SOURCES.values() for name in names):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            torch.save(network().state_dict(), files / known[name].file)
    return data, files


def _texture(path: Path) -> None:
    """Something of its own to see, in place of a single colour."""
    rng = generator(0, "texture", path.name)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    with Image.open(path) as image:
        picture = np.asarray(coarse.resize(image.size, Image.Resampling.BICUBIC)).astype(float)
        picture += rng.uniform(0, 40) * rng.standard_normal(picture.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path, exif=image.getexif())


def options(root: Path, results: Path, *more: str) -> list[str]:
    """Of a sweep over what `build` made in `root`."""
    places = [
        "--data-root",
        str(root / "data"),
        "--weights-dir",
        str(root / "weights"),
        "--results",
        str(results),
    ]
    return [*places, "--device", "cpu", "--workers", "0", *SIMILAR, *more]


def main(argv: Sequence[str] | None = None) -> int:
    return all_expt.main(argv)


def dask_setup(worker: object) -> None:
    """Where a worker of Dask loads this module first.

    MINIATURE_PAUSE has it sleep for so many seconds after every episode; it dies in one of the method that
    MINIATURE_POISON names.
    """
    BACKBONES.update({name: small(backbone) for name, backbone in BACKBONES.items()})
    pause, poison = float(os.environ.get("MINIATURE_PAUSE", 0)), os.environ.get("MINIATURE_POISON")
    episodes_of = common.runs.worker.episodes_of

    def spoilt(
        wrap: object, photographs: object, settings: Sequence, *more: object, **options: object
    ) -> Iterator:
        for episode in episodes_of(wrap, photographs, settings, *more, **options):
            if settings[episode.setting].method.name == poison:
                os._exit(1)
            yield episode
            time.sleep(pause)

    common.runs.worker.episodes_of = spoilt


if __name__ == "__main__":
    dask_setup(None)
    raise SystemExit(main())
