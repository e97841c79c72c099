"""CID2013: photographs of eight scenes by 79 cameras, in six image sets."""

import re

from common.system.errors import UserError
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns

SHEET = "CID2013 MOS"
OFFICIAL = "CID2013 data*.xlsx"
NAME = re.compile(r"IS_(I|II|III|IV|V|VI)_(C(\d\d))_D\d\d", re.IGNORECASE)
SETS = ("I", "II", "III", "IV", "V", "VI")


def labels(files: Files, column: str) -> Labels:
    """Read the sheet of scores."""
    file = files.need_label(OFFICIAL, "cid.ods")
    table = read_columns(file, ("Source_ID", column), sheet=SHEET)
    return Labels(
        file, column, [_label(name, score) for name, score in zip(table["Source_ID"], table[column])]
    )


def _label(name: str, score: str) -> Label:
    """Return one label. Scenes recur in several sets, so that the scene alone is the group."""
    stem = name.removesuffix(".jpg")
    if (match := NAME.fullmatch(stem)) is None:
        raise UserError(
            f"{name!r} is no name of a CID2013 image, such as IS_I_C01_D01: mend or remove its row"
        )
    image_set = SETS.index(match[1].upper()) + 1
    path = f"IS{image_set}/co{int(match[3])}/{stem}.jpg"
    return Label(stem, path, number(score), match[2].upper(), (f"IS{image_set}",))


DATASET = Dataset(
    name="cid2013",
    title="CID2013",
    # The first one compares inside one image set only.
    columns={"Image set specific MOS": None, "Realigned MOS": (-9.6, 87.9)},
    larger_is_better=True,
    subsets={"all": 474, "IS1": 84, "IS2": 78, "IS3": 78, "IS4": 78, "IS5": 72, "IS6": 84},
    released="all",
    groups="scene",
    label_files=(OFFICIAL, "cid.ods"),
    folders=("cid2013", "cid"),
    labels=labels,
    citation="Virtanen, Nuutinen, Vaahteranoksa, Oittinen, Häkkinen: CID2013. IEEE TIP 24(1), 2015",
    terms="free for research",
    source="https://zenodo.org/record/2647033 (CID2013.7z)",
    resize=(512, 384),
)
