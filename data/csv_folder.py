"""Any folder of images with a CSV of columns `image_name` and `MOS` (larger = better), and optionally `reference`."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.batches import Photograph
from common.errors import UserError

COLUMNS = ("image_name", "MOS")


def read(root: Path) -> list[Photograph]:
    """The images of a folder, or of one CSV file, in the file's order.

    A name is a path relative to the CSV's folder, or the base name, upper or lower case, of a file anywhere below it.

    Raises UserError for anything that would make a wrong result: missing or repeated images, scores that are no numbers.
    """
    path = _label_file(root)
    table = _table(path)
    names = table["image_name"].str.strip()
    if names.isna().any() or (names == "").any():
        raise UserError(f"{path}: row {_row(names.isna() | (names == ''))} has no image_name")
    if names.duplicated().any():
        raise UserError(f"{path}: {_shown(names[names.duplicated()].unique())} named more than once: keep one row per image")
    mos = pd.to_numeric(table["MOS"], errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(mos).all():
        bad = ~np.isfinite(mos)
        raise UserError(f"{path}: the MOS of {_shown(names[bad])} is no finite number: mend or remove the row")
    if len(mos) < 2:
        raise UserError(f"{path}: {len(mos)} image; a correlation needs at least 2")
    if np.ptp(mos) == 0:
        raise UserError(f"{path}: every MOS is {mos[0]:g}; a correlation needs scores that differ")
    paths = _locate(path, names)
    return [Photograph(name, paths[name], float(score)) for name, score in zip(names, mos)]


def _locate(label_file: Path, names: Sequence[str]) -> dict[str, Path]:
    folder = label_file.parent
    found = {name: folder / name for name in names if (folder / name).is_file()}
    missing = [name for name in names if name not in found]
    if missing:
        below = defaultdict(list)
        for parent, _, files in os.walk(folder):
            for file in files:
                below[file.lower()].append(Path(parent, file))
        ambiguous = [name for name in missing if len(below[name.lower()]) > 1]
        if ambiguous:
            places = _shown(below[ambiguous[0].lower()])
            raise UserError(f"{label_file}: {ambiguous[0]} is found more than once ({places}): give its path in the CSV file")
        found |= {name: below[name.lower()][0] for name in missing if below[name.lower()]}
        missing = [name for name in missing if name not in found]
    if missing:
        raise UserError(f"{label_file}: {len(missing)} of {len(names)} images are nowhere below {folder}: {_shown(missing)}")
    return found


def _label_file(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    files = sorted(file for file in root.iterdir() if file.suffix.lower() == ".csv")
    if not files:
        raise UserError(f"{root}: no CSV file; put one there with the columns {', '.join(COLUMNS)}")
    if len(files) > 1:
        raise UserError(
            f"{root}: {len(files)} CSV files ({_shown([file.name for file in files])}): give the path of the one to read"
        )
    return files[0]


def _table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:  # a parser's and a decoder's errors are ValueErrors
        raise UserError(f"{path}: cannot be read as a CSV file ({str(error).splitlines()[0]})") from None
    table.columns = table.columns.str.strip()
    for column in COLUMNS:
        if column not in table:
            raise UserError(f"{path}: no column {column!r}; its columns are {_shown(table.columns)}")
    return table


def _row(bad: pd.Series) -> int:
    return int(bad.to_numpy().argmax()) + 2  # counted as an editor does, the header being line 1


def _shown(names: Iterable) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
