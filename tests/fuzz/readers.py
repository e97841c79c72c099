"""Everything that reads files of others, each with its seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from common.photographs import read_rgb, size_of
from common.runs.folders import Results
from common.runs.journal import Journal
from common.runs.reference import Reference
from common.runs.results import read_scores
from common.runs.training import load_state
from common.system.errors import UserError
from data.collect import collect
from data.csv_folder import DATASET
from data.dataset import read_dataset
from data.label_files import read_columns, read_list, read_mat
from tests.fuzz import seeds
from tests.fuzz.seeds import HEADER, Seed, Small
from weights.loading import fill, read_state_dict
from weights.manifest import lock, read_manifest
from weights.networks import BACKBONES


@dataclass(frozen=True)
class Reader:
    """What reads a folder of files."""

    name: str
    make: Callable[[], Sequence[Seed]]
    read: Callable[[Path], object]
    share: float = 1.0  # of the time, beside the others
    at_once: int = 20  # files of a run of Hypothesis, the first of which is always the simplest

    @cached_property
    def seeds(self) -> Sequence[Seed]:
        return self.make()


def image(folder: Path) -> None:
    width, height = size_of(folder / "x.png")
    found = read_rgb(folder / "x.png")
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
    if found.shape[:2] != (height, width):
        raise AssertionError(f"{found.shape[:2]} pixels, and the header says {(height, width)}")


def csv_folder(folder: Path) -> None:
    found = collect([str(folder / "scores.csv")])
    assert all(path.path.is_relative_to(folder) for path in found.photographs)
    read_dataset(DATASET, folder)


def matlab(folder: Path) -> None:
    (found,) = read_mat(folder / "x.mat", "a")
    assert all(isinstance(value, (float, str)) for value in found)


def spreadsheet(folder: Path) -> None:
    (path,) = folder.iterdir()
    read_columns(path, ("a",), optional=("b",))


def checkpoint(folder: Path) -> None:
    state = read_state_dict(folder / "x.pth")
    fill(Small(), state, folder / "x.pth")


def journal(folder: Path) -> None:
    found = Journal(folder / "x.partial", {name: value for name, value in HEADER.items() if name != "format"})
    if not found.read():
        raise UserError("of another run")
    assert all(batch["rows"][0][1][0] == "a.png" for batch in found.batches.values())


def results(folder: Path) -> None:
    found = Results.read(folder)
    for result in found.finished.values():
        read_scores(result)
    if not (found.finished and found.failed):
        raise UserError("less than there was")


def state(folder: Path) -> None:
    load_state(folder / "x.resume.pth", {"a": (1, None)})


def manifest(folder: Path) -> None:
    read_manifest(folder / "m.json")


READERS = (
    Reader("images", seeds.images, image, 2),
    Reader("CSV files", seeds.csv_files, csv_folder),
    Reader("lists", seeds.lists, lambda folder: read_list(folder / "x.txt"), 0.3),
    Reader("MATLAB files", seeds.matlab_files, matlab, 2, at_once=6),  # in processes of their own
    Reader("spreadsheets", seeds.spreadsheets, spreadsheet, 2, at_once=6),
    Reader("checkpoints", seeds.checkpoints, checkpoint, 2),
    Reader(
        "states to go on from",
        seeds.states,
        lambda folder: load_state(folder / "x.resume.pth", {"a": (1, None)}),
    ),
    Reader("references", seeds.references, lambda folder: Reference.read(folder / "x.npz", BACKBONES)),
    Reader("results", seeds.results, results, 2),
    Reader("journals", seeds.journals, journal, 0.3),
    Reader("manifests", seeds.manifests, manifest),
    Reader("records of downloads", seeds.records, lock, 0.5),
)
