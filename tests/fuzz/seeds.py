"""Small good files of every kind that is read, from which the others are made."""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from common.photographs import Photograph
from common.protocols import METHODS, PAPER
from common.runs.grid import Cell, Target
from common.runs.journal import line_of
from common.runs.results import CellResult, Scores, summarise
from common.runs.store import Store
from tests.crafted import EXHAUSTING, zipped
from tests.layouts import cell, sheets

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Seed:
    """The content of a folder, of which one file is changed."""

    changed: str  # its name
    files: Mapping[str, bytes]  # by name, the changed one too
    good: bool = True  # whether the reader takes it as it is


def alone(name: str, content: bytes) -> Seed:
    return Seed(name, {name: content})


def written(write: Callable[[Path], object], name: str) -> bytes:
    """Return what a function writes to a path of this name."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def images() -> list[Seed]:
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (9, 13), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for kind, image, options in (
        ("PNG", colours, {"exif": exif}),
        ("PNG", deep, {}),
        ("PNG", colours.convert("P"), {"interlace": True}),
        ("JPEG", colours, {"exif": exif}),
        ("JPEG", colours.convert("CMYK"), {"progressive": True}),
        ("BMP", colours, {}),
        ("BMP", colours.convert("P"), {}),
        ("TIFF", colours, {"compression": "tiff_lzw"}),
        ("TIFF", colours, {"compression": "jpeg"}),
        ("TIFF", deep, {"compression": "tiff_adobe_deflate"}),
        ("TIFF", colours, {"tiled": True, "tile": (16, 16)}),
        ("WEBP", colours, {"lossless": True}),
        ("WEBP", colours, {"exif": exif}),
        ("GIF", colours.convert("P"), {}),
        ("PPM", colours, {}),
        ("PPM", deep, {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append(alone("x.png", buffer.getvalue()))
    return found


LABELS = b"image_name,MOS,reference,type,split\na.png,1,r,blur,train\nb.png,2.5e0,r,,test\nd/c.png,-3,s,x,\n"


def csv_files() -> list[Seed]:
    picture = images()[0].files["x.png"]
    around = {"a.png": picture, "b.png": picture, "d/c.png": picture}
    contents = (LABELS, b"\xef\xbb\xbf" + LABELS, LABELS.replace(b"a.png", b'"a.png"').replace(b",", b", "))
    return [Seed("scores.csv", {"scores.csv": content, **around}) for content in contents]


def lists() -> list[Seed]:
    return [alone("x.txt", b"a.png,1\nb.png, 2\n"), alone("x.txt", b"1.5 a.png\n\n2 b.png\r\n")]


def matlab_files() -> list[Seed]:
    names = cell(["a.bmp", "b.bmp"], (2, 1))
    found = []
    for value in (np.arange(3.0), names, np.array([[1, 0, 1]], dtype=np.uint8)):
        for packed in (False, True):
            save_to = partial(scipy.io.savemat, mdict={"a": value}, do_compression=packed)
            found.append(alone("x.mat", written(save_to, "x.mat")))
    return found


def spreadsheets() -> list[Seed]:
    rows = [("notes",), ("a", "b"), ("x", 1.5), ("y", 2), (None, 3)]
    frame = pd.DataFrame(rows[2:4], columns=["a", "b"])
    return [
        alone("x.xlsx", written(lambda path: sheets(path, A=rows, B=[("c",)]), "x.xlsx")),
        alone("x.ods", written(lambda path: frame.to_excel(path, engine="odf", index=False), "x.ods")),
    ]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, 1)


def checkpoints() -> list[Seed]:
    network = Small()
    state = network.state_dict()
    optimiser = torch.optim.Adam(network.parameters())
    found = [alone("x.pth", save({name: value.contiguous() for name, value in state.items()}))]
    for content in (state, {"state_dict": state, "optimizer": optimiser.state_dict(), "epoch": 3}, network):
        for new in (True, False):
            for protocol in (2, 4):
                buffer = io.BytesIO()
                torch.save(content, buffer, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
                found.append(alone("x.pth", buffer.getvalue()))
    for opcodes in EXHAUSTING.values():
        if len(opcodes) < 10_000:
            content = written(partial(zipped, opcodes=opcodes), "x.pth")
            found.append(Seed("x.pth", {"x.pth": content}, good=False))
    return found


def states() -> list[Seed]:
    progress = {"epoch": 1, "best": 0.5, "history": [], "network": Small().state_dict()}
    content = {
        "config": {"a": (1, None)},
        "progress": {**progress, "optimiser": {}, "bridge": {}},
        "seconds": 1.0,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return [alone("x.resume.pth", buffer.getvalue())]


def references() -> list[Seed]:
    arrays = dict(np.load(ROOT / "tests/golden/metaiqa-7.npz"))
    meta = json.loads(str(arrays["meta"]))
    meta["keys"] = dict(list(meta["keys"].items())[:2])
    small = {"meta": json.dumps(meta), "source": arrays["source"], "features": arrays["features"][:, :2]}
    small["rank/loss"] = arrays["rank/loss"]
    found = []
    for write in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        write(buffer, **small)
        found.append(alone("x.npz", buffer.getvalue()))
    return found


ENTRY = {
    **{"name": "x", "file": "x.pth", "backbone": None, "source_data": "", "used_for": "", "size": 5},
    **{"sha256": "0" * 64, "preprocessing": {"mean": [0.5]}, "constructor": {}, "licence": "", "note": ""},
    "sources": [{"url": "https://a/x.pth"}, {"drive": "abc"}],
}


def manifests() -> list[Seed]:
    return [
        alone("m.json", json.dumps([ENTRY, ENTRY | {"name": "y", "backbone": "tres"}], indent=1).encode())
    ]


def records() -> list[Seed]:
    record = {"file": "x.pth", "size": 5, "sha256": "0" * 64, "source": "https://a/x.pth"}
    return [alone("lock.json", json.dumps({"x": record, "y": record}, indent=1).encode())]


HEADER = {"format": 2, "images": ["a.png"], "seed": 0}


def journals() -> list[Seed]:
    batches = [
        {"batch": n, "rows": [[n, ["a.png", 0.5, 0.25]]], "kept_order": [float("nan")]} for n in range(3)
    ]
    return [alone("x.partial", b"".join(map(line_of, (HEADER, *batches))))]


def results() -> list[Seed]:
    photographs = [Photograph(f"{n}.png", Path(f"{n}.png"), float(n), kind="blur") for n in range(4)]
    method = METHODS["rank"]
    one = Cell("metaiqa", "metaiqa-tid2013-kadid10k", Target("livec"), method, PAPER, (0, 1), 8)
    scores = Scores.empty(one.seeds, 4, method.niter)
    rng = np.random.default_rng(0)
    scores.source[:], scores.adapted[:] = rng.random((2, 4)), rng.random((2, 4))
    data = {"dataset": "livec", "folder": "d", "label_file": "l", "score_column": "MOS", "subset": "test"}
    data |= {"direction": "higher is better", "missing": 0, "resize": None}
    weights = {"file": "x.pth", "sha256": "0" * 64, "size": 5}
    environment = {"python": "3", "torch": "2", "device": "cpu", "threads": 1}
    result = CellResult(one, summarise(scores, photographs), data, weights, environment, 1.5)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        with store.held(wait=True):
            store.add(result, scores, photographs)
            store.fail(Cell("tres", "tres-live_fb", Target("livec"), method, PAPER, (0,), 8), "no reason")
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file() and path.suffix in (".json", ".csv")
        }
    return [Seed(name, files) for name in files]


def is_archive(content: bytes) -> bool:
    return content[:2] == b"PK" and zipfile.is_zipfile(io.BytesIO(content))
