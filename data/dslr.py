"""DSLR: low-light photographs, restored by several algorithms."""

from pathlib import Path

from common.system.errors import UserError
from common.system.text import counted
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns, read_csv

AUTHORS, SELF_MADE = "MOS_FR.csv", "MOS.csv"


def labels(files: Files, column: str) -> Labels:
    """Read the authors' MOS_FR.csv, by position: image, MOS, reference.

    Where it is not there, read MOS.csv with columns 0 and 1, without references.
    """
    file = files.need_label(AUTHORS, SELF_MADE)
    folder = "Images/" if files.has_folder("Images") else ""
    if file.name.lower() == SELF_MADE.lower():
        table = read_columns(file, ("0", "1"))
        return Labels(file, "1", [_label(folder, name, score) for name, score in zip(table["0"], table["1"])])
    return Labels(file, column, _authors_rows(file, folder))


def _authors_rows(file: Path, folder: str) -> list[Label]:
    """Read the rows after the first, a header of unknown names, which may be numbers."""
    table = read_csv(file)
    if len(table.header) != 3:
        raise UserError(
            f"{file}: {counted(len(table.header), 'column')}, not three of image, MOS and reference"
        )
    return [_label(folder, name, score, reference) for name, score, reference in table.rows]


def _label(folder: str, name: str, score: str, group: str = "") -> Label:
    name = name.replace("\\", "/").removeprefix("Images/")
    return Label(name, f"{folder}{name}", number(score), group)


DATASET = Dataset(
    name="dslr",
    title="DSLR",
    columns={"MOS": None},
    larger_is_better=True,  # by its name; no published statement is known
    subsets={"all": 1035},
    released="all",
    groups="reference",
    label_files=(AUTHORS, SELF_MADE),
    folders=("dslr",),
    labels=labels,
    whole_path=True,
    citation="Kannan, Malik, Babu, Soundararajan: Quality assessment of low-light restored images. "
    "IEEE Access, 2023",
    terms="not confirmed",
    source="https://github.com/vignesh96k/M-SCQALE (link to DSLR.zip; password by form)",
)
