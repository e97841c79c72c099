"""Data sets: what is known of one, and how its label files and images become photographs to score."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.photographs import Photograph
from common.system.errors import UserError, shown
from common.system.text import counted
from data.files import Files


@dataclass(frozen=True)
class Label:
    """One row of a label file."""

    key: str  # the image's name, the same for every label file and layout
    path: str  # its base name, after the folders that it is expected in
    score: float  # as published
    group: str = ""  # reference or scene
    parts: tuple[str, ...] = ()  # the subsets it is in, beside `all`
    kind: str = ""  # type of distortion
    split: str = ""  # official part of those who published the set: train, validation or test


@dataclass(frozen=True)
class Labels:
    """What a label file holds."""

    file: Path
    column: str  # that the scores come from
    rows: Sequence[Label]


@dataclass(frozen=True)
class Dataset:
    """One data set as published."""

    name: str
    title: str
    columns: Mapping[str, tuple[float, float] | None]  # of scores, to their range; the authors' code's first
    larger_is_better: bool
    subsets: Mapping[str, int | None]  # name to number of images; the first is the default
    released: str | None  # the subset that the authors' code uses; None: it does not use this data set
    groups: str  # what images of a group have in common
    label_files: tuple[str, ...]  # patterns, the official ones first
    folders: tuple[str, ...]  # spellings of the folder, compared without case, dashes and spaces
    labels: Callable[[Files, str], Labels]  # reads the scores of a column
    citation: str
    terms: str  # of use
    source: str  # where to get it
    resize: tuple[int, int] | None = None  # (height, width) that images are brought to before the crop
    size: tuple[int, int] | None = None  # (width, height) of every image, if one
    whole_path: bool = False  # base names may recur, and folders tell the images apart

    @property
    def sign(self) -> int:
        """What turns a score so that larger = better."""
        return 1 if self.larger_is_better else -1

    @property
    def direction(self) -> str:
        """The direction of the scores, in words."""
        return "higher is better" if self.larger_is_better else "higher is worse, negated"


@dataclass(frozen=True)
class Reading:
    """A data set as found in a folder."""

    dataset: Dataset
    folder: Path
    labels: Labels
    subset: str
    photographs: list[Photograph]  # those found, in the label file's order
    missing: list[str]  # keys of the others

    def published(self) -> list[float]:
        """Return the scores of the photographs as in the label file."""
        return [photograph.mos * self.dataset.sign for photograph in self.photographs]

    @property
    def scale(self) -> str:
        """The scale of the photographs' scores, on which larger = better, in words."""
        title = f"{self.labels.column} of {self.dataset.title}"
        if not self.dataset.larger_is_better:
            title += ", negated"
        limits = self.dataset.columns.get(self.labels.column)
        if limits is None:
            return title
        low, high = sorted(self.dataset.sign * limit for limit in limits)
        return f"{title}, {low:g} to {high:g}"

    def notes(self) -> list[str]:
        """Return what a reader of the result should know, one sentence each."""
        total, released = len(self.photographs) + len(self.missing), self.dataset.released
        found = (
            (self.missing, f"{len(self.missing)} of {total} images are missing: {shown(self.missing)}"),
            (released not in (None, self.subset), f"the authors' code uses the subset {released}"),
        )
        return [note for holds, note in found if holds]

    def record(self) -> dict[str, Any]:
        """Return what a result says of its data."""
        return {
            "dataset": self.dataset.name,
            "folder": str(self.folder),
            "label_file": str(self.labels.file),
            "score_column": self.labels.column,
            "direction": self.dataset.direction,
            "subset": self.subset,
            "missing": len(self.missing),
            "resize": self.dataset.resize,
        }


def read_dataset(
    dataset: Dataset,
    folder: Path,
    subset: str | None = None,
    column: str | None = None,
    allow_missing: bool = False,
) -> Reading:
    """Return the photographs of a data set, ready to be scored.

    Raises UserError for anything that would make a wrong result: images that are missing (unless allowed) or
    found twice, scores that are no numbers or all the same, an unknown subset or column.
    """
    reading = read_available(dataset, folder, subset, column)
    total = len(reading.photographs) + len(reading.missing)
    if reading.missing and not allow_missing:
        raise UserError(
            f"{reading.labels.file}: {len(reading.missing)} of {total} images are nowhere below "
            f"{reading.folder}: {shown(reading.missing)}; complete the folder, "
            "or go without them by --allow-missing"
        )
    scores = reading.published()
    if len(scores) < 2:
        raise UserError(
            f"{reading.labels.file}: {counted(len(scores), 'image')}; a correlation needs at least 2"
        )
    if np.ptp(scores) == 0:
        raise UserError(
            f"{reading.labels.file}: every {reading.labels.column} is {scores[0]:g}; "
            "a correlation needs scores that differ"
        )
    return reading


def read_available(
    dataset: Dataset, folder: Path, subset: str | None = None, column: str | None = None
) -> Reading:
    """Return what is there of a data set and what is missing.

    Scores are turned so that larger = better: here, once, for the data sets that declare
    larger_is_better=False. Raises UserError where the labels cannot be read or contradict the files.
    """
    subset = _chosen(dataset, "subset", subset, dataset.subsets)
    files = Files.below(folder)
    labels = dataset.labels(files, _chosen(dataset, "score column", column, dataset.columns))
    rows = [row for row in labels.rows if subset == "all" or subset in row.parts]
    if not rows:
        raise UserError(
            f"{labels.file}: no label of the subset {subset!r} of {dataset.title}; see data/README.md"
        )
    if repeated := [key for key, count in Counter(row.key for row in rows).items() if count > 1]:
        raise UserError(f"{labels.file}: {shown(repeated)} named more than once: keep one row per image")
    if bad := [row.key for row in rows if not np.isfinite(row.score)]:
        raise UserError(
            f"{labels.file}: the {labels.column} of {shown(bad)} is no finite number of a score's size: "
            "mend or remove the row"
        )
    paths = files.locate([row.path for row in rows], dataset.whole_path)
    photographs = [
        Photograph(
            row.key,
            paths[row.path],
            dataset.sign * row.score,
            row.group,
            row.kind,
            dataset.resize,
            row.split,
        )
        for row in rows
        if row.path in paths
    ]
    return Reading(
        dataset, files.root, labels, subset, photographs, [row.key for row in rows if row.path not in paths]
    )


def _chosen(dataset: Dataset, what: str, asked: str | None, known: Mapping[str, object]) -> str:
    if asked is None:
        return next(iter(known))
    found = next((name for name in known if name.lower().split() == asked.lower().split()), None)
    if found is None:
        raise UserError(f"{dataset.title} has no {what} {asked!r}: choose from {', '.join(known)}")
    return found
