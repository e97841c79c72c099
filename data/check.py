"""Checking a data set on disk: what was found, whether it is complete, and how to mend what is not."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from common.photographs import Photograph, opened, read_rgb
from common.system.errors import UserError, shown
from common.system.text import counted
from data.dataset import Dataset, Reading, read_available


@dataclass(frozen=True)
class Finding:
    """What one folder holds, in words; "-" for what could not be told."""

    dataset: Dataset
    folder: str  # below the root, like the following ones where they lie there
    labels: str = "-"  # the label file
    image_folders: str = "-"
    found: str = "-"  # number of images that are labelled and there
    labelled: str = "-"  # number of images
    expected: str = "-"  # number of images as published
    scores: str = "-"  # name of the column, and its direction
    score_range: str = "-"
    missing: str = "-"  # number of images
    unreadable: str = "-"  # number of images
    problems: list[str] = field(default_factory=list)  # what falls short and how to mend it, one line each


def check(dataset: Dataset, folder: Path, root: Path, decode: bool) -> Finding:
    """Compare the default subset with what is published. Nothing is written.

    root: folder that the others are named below. decode: whether to decode every image.
    """
    try:
        reading = read_available(dataset, folder)
    except UserError as error:
        return Finding(dataset, _relative(folder, root), problems=[str(error)])
    unreadable = _unreadable(reading) if decode else None
    column, scores = reading.labels.column, reading.published()
    expected = dataset.subsets[reading.subset]
    return Finding(
        dataset,
        _relative(folder, root),
        labels=_relative(reading.labels.file, reading.folder),
        image_folders=shown(_image_folders(reading)) or "-",
        found=str(len(reading.photographs)),
        labelled=str(len(scores) + len(reading.missing)),
        expected="any" if expected is None else str(expected),
        scores=f"{column}, {dataset.direction}",
        score_range=f"{min(scores):g} to {max(scores):g}" if scores else "-",
        missing=str(len(reading.missing)),
        unreadable="not checked" if unreadable is None else str(len(unreadable)),
        problems=_problems(reading, expected, scores, unreadable or []),
    )


def _problems(
    reading: Reading, expected: int | None, scores: Sequence[float], unreadable: Sequence[str]
) -> list[str]:
    dataset, total = reading.dataset, len(scores) + len(reading.missing)
    found = []
    if expected is not None and total != expected:
        found.append(
            f"{reading.labels.file} labels {total} of {expected} expected images: get the whole file, "
            f"see {dataset.source}"
        )
    if reading.missing:
        found.append(
            f"{len(reading.missing)} of {total} images are missing ({shown(reading.missing)}): "
            f"unpack them below {reading.folder}"
        )
    limits = next(iter(dataset.columns.values()))
    if limits is not None and scores and not (limits[0] <= min(scores) and max(scores) <= limits[1]):
        found.append(
            f"{reading.labels.file}: scores from {min(scores):g} to {max(scores):g} are not on the scale of "
            f"{limits[0]:g} to {limits[1]:g}: is it the published file?"
        )
    if dataset.size is not None and (other := _other_size(reading)):
        found.append(f"{other}, not {dataset.size[0]}x{dataset.size[1]}: get the edition of that size")
    if unreadable:
        found.append(
            f"{counted(len(unreadable), 'image')} cannot be decoded ({shown(unreadable)}): "
            "unpack or download again"
        )
    return found


def _other_size(reading: Reading) -> str | None:
    """Return the first image and its size, where that is another than published; opening does not decode."""
    for photograph in reading.photographs[:1]:
        try:
            with opened(photograph.path) as image:
                if image.size != reading.dataset.size:
                    return f"{photograph.path} has {image.size[0]}x{image.size[1]} pixels"
        except UserError:  # --decode names it
            return None
    return None


def _unreadable(reading: Reading) -> list[str]:
    """Return the keys of the photographs that cannot be decoded."""

    def fails(photograph: Photograph) -> bool:
        try:
            read_rgb(photograph.path)
        except UserError:
            return True
        return False

    photographs = reading.photographs
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(
            pool.map(fails, photographs),
            total=len(photographs),
            unit="image",
            desc=reading.dataset.name,
            disable=None,
        )
        return [photograph.key for photograph, failed in zip(photographs, bar) if failed]


def _image_folders(reading: Reading) -> list[str]:
    return sorted({_relative(photograph.path.parent, reading.folder) for photograph in reading.photographs})


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
