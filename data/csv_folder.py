"""Any folder of images with a CSV file that labels them.

Its columns are `image_name`, `MOS` (larger = better) and optionally `reference`, `type` and `split` (train,
validation or test).
"""

import os
from pathlib import Path

from common.system.errors import UserError, shown
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns

COLUMNS = ("image_name", "MOS")
OPTIONAL = ("reference", "type", "split")
SPLITS = ("train", "validation", "test", "")


def labels(files: Files, column: str) -> Labels:
    """Read the CSV file.

    A name is a path relative to the folder, or the base name, in any case, of a file anywhere below it.
    """
    file = _label_file(files)
    table = read_columns(file, COLUMNS, optional=OPTIONAL)
    references, types, splits = (table.get(name, [""] * len(table)) for name in OPTIONAL)
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise UserError(f"{file}: no split is called {shown(unknown)}: write train, validation or test")
    rows = [
        Label(name, name, number(score), reference, kind=kind, split=split)
        for name, score, reference, kind, split in zip(
            table["image_name"], table["MOS"], references, types, splits
        )
    ]
    return Labels(file, column, rows)


def _label_file(files: Files) -> Path:
    if files.asked.is_file():
        return files.asked
    found = sorted(
        path
        for path in files.root.iterdir()
        if path.suffix.lower() == ".csv" and path.name[0] != "." and os.path.isfile(path)
    )
    if not found:
        raise UserError(f"{files.root}: no CSV file; put one there with the columns {', '.join(COLUMNS)}")
    if len(found) > 1:
        raise UserError(
            f"{files.root}: {len(found)} CSV files ({shown(path.name for path in found)}): "
            "give the path of the one to read"
        )
    return found[0]


DATASET = Dataset(
    name="csv",
    title="a folder with a CSV file",
    columns={"MOS": None},
    larger_is_better=True,
    subsets={"all": None},
    released="all",
    groups="reference, where the file has that column",
    label_files=("*.csv",),
    folders=(),
    labels=labels,
    whole_path=True,
    citation="",
    terms="",
    source="",
)
