"""PIPAL: distorted and restored crops, the training part whose scores are public.

Scores are Elo ratings with the same mean for every reference: correlations pooled over references ignore
differences of content.
"""

import re
from pathlib import Path

from common.system.errors import UserError, shown
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns, read_list

NAME = re.compile(r"A(\d{4})_\d+_\d+\.bmp", re.IGNORECASE)
PER_REFERENCE = "A0???.txt"
LAST_OF_FOLDER = (59, 120, 184, 248)  # references of Distortion_1 to Distortion_4


def labels(files: Files, column: str) -> Labels:
    """Read the files of the references, else mos_data.csv, else one list of all names."""
    if found := files.matching(PER_REFERENCE):
        lists = [files.one_of(files.by_name[name]) for name in sorted({path.name.lower() for path in found})]
        return Labels(
            lists[0].parent, "Elo", [_label(name, score) for path in lists for name, score in read_list(path)]
        )
    if (table_file := files.label("mos_data.csv")) is not None:
        table = read_columns(table_file, ("filename", "mos"))
        return Labels(
            table_file, "mos", [_label(name, score) for name, score in zip(table["filename"], table["mos"])]
        )
    merged = [path for path in files.matching("*.txt") if _is_list(path)]
    if len(merged) > 1:
        raise UserError(
            f"{files.root}: several lists of scores ({shown(merged)}): keep the one of the training part"
        )
    if not merged:
        files.need_label("Train_Label/A0001.txt", "mos_data.csv")
    return Labels(merged[0], "Elo", [_label(name, score) for name, score in read_list(merged[0])])


def _label(name: str, score: str) -> Label:
    base = name.replace("\\", "/").rpartition("/")[2]
    if (match := NAME.fullmatch(base)) is None:
        raise UserError(
            f"{name!r} is no name of a PIPAL image, such as A0001_00_00.bmp: mend or remove its label"
        )
    reference = int(match[1])
    part = next((n for n, last in enumerate(LAST_OF_FOLDER, start=1) if reference <= last), None)
    return Label(base, name, number(score), f"A{match[1]}", (f"distortion_{part}",))


def _is_list(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return NAME.match(file.readline()) is not None


DATASET = Dataset(
    name="pipal",
    title="PIPAL",
    columns={"Elo": (916, 1836)},
    larger_is_better=True,
    subsets={
        "all": 23200,
        "distortion_1": 5800,
        "distortion_2": 5800,
        "distortion_3": 5800,
        "distortion_4": 5800,
    },
    released="all",
    groups="reference",
    label_files=(PER_REFERENCE, "mos_data.csv"),
    folders=("pipal", "pipal_train", "pipal-dataset"),
    labels=labels,
    citation="Gu, Cai, Chen, Ye, Ren, Dong: PIPAL. ECCV 2020",
    terms="not confirmed",
    source="https://github.com/HaomingCai/PIPAL-dataset",
)
