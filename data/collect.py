"""The images that paths on a command line mean: files, folders, patterns, and CSV files that list them."""

import glob
import itertools
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from common.photographs import SUFFIXES, Photograph
from common.system.errors import UserError, shown
from common.system.folders import files_below
from data.csv_folder import COLUMNS
from data.files import Files
from data.label_files import number, read_columns


class Collection(NamedTuple):
    """The images that some paths mean, each once, in their order."""

    names: list[str]  # what an output calls each
    photographs: list[Photograph]  # their keys are names below what was given
    label_files: list[Path]  # the CSV files among the paths


class _Named(NamedTuple):
    name: str
    photograph: Photograph


def collect(paths: Sequence[str]) -> Collection:
    """Return the images that the paths mean.

    Raises UserError where a path means nothing, or one image has two MOS.
    """
    found: dict[str, _Named] = {}  # by the real path
    label_files = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            images = _in_folder(path)
        elif not os.path.lexists(path):
            images = _fitting(given)
        elif path.suffix.lower() == ".csv":
            label_files.append(path)
            images = _listed(path)
        else:
            images = [_Named(given, Photograph(path.name, path))]
        for image in images:
            real = os.path.realpath(image.photograph.path)
            found[real] = _with_mos(found.setdefault(real, image), image)
    if not found:
        raise UserError(
            f"no image in {', '.join(paths)}: files of {', '.join(sorted(SUFFIXES))} are taken for one"
        )
    names = [image.name for image in found.values()]
    return Collection(names, [image.photograph for image in found.values()], label_files)


def _with_mos(known: _Named, image: _Named) -> _Named:
    """Return a known image with the MOS that it has where it is found again, if it has one there."""
    before, mos = known.photograph.mos, image.photograph.mos
    if not math.isfinite(mos):
        return known
    if math.isfinite(before) and before != mos:
        raise UserError(f"{image.name} has two MOS, {before:g} and {mos:g}: keep one")
    return known._replace(photograph=replace(known.photograph, mos=mos))


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and name[0] != "."


def _in_folder(folder: Path) -> list[_Named]:
    found = sorted(path for path in files_below(folder) if _is_image(path.name))
    return [_Named(str(path), Photograph(path.relative_to(folder).as_posix(), path)) for path in found]


def _fitting(pattern: str) -> list[_Named]:
    """Return the images that fit a pattern.

    Their keys are what follows the part of the pattern that holds no wildcard, as if that were their folder.
    """
    paths = sorted(Path(path) for path in glob.glob(pattern, recursive=True))
    if not paths:
        raise UserError(f"{pattern}: no such file or folder, and no file fits it as a pattern")
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    images = [path for path in paths if _is_image(path.name) and not path.is_dir()]
    return [_Named(str(path), Photograph(path.relative_to(fixed).as_posix(), path)) for path in images]


def _listed(file: Path) -> list[_Named]:
    """Return the images of a CSV file, found as the data set `csv` finds them.

    A missing one is among them, and will be a row with a reason.
    """
    rows = read_columns(file, COLUMNS[:1], optional=COLUMNS[1:])
    names = list(rows["image_name"])
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{file}: {shown(repeated)} named more than once: keep one row per image")
    given = list(rows["MOS"]) if "MOS" in rows else [""] * len(names)
    scores = [number(score) if score else math.nan for score in given]
    if wrong := [score for score, value in zip(given, scores) if score and not math.isfinite(value)]:
        raise UserError(
            f"{file}: MOS {shown(wrong)} is no finite number of a score's size: mend it or leave it empty"
        )
    files = Files.below(file)
    paths = files.locate(names, whole_path=True)
    return [
        _Named(name, Photograph(name, paths.get(name, files.root / name), score))
        for name, score in zip(names, scores)
    ]
