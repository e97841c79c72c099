"""TID2013: 24 distortions of 25 references at five levels."""

import re

from common.system.errors import UserError
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_list

LABELS = "mos_with_names.txt"
NAME = re.compile(r"i\d\d_\d\d_\d\.bmp")


def labels(files: Files, column: str) -> Labels:
    """Read the list: score first, then the name.

    Names differ in case between the list, the disk and copies.
    """
    file = files.need_label(LABELS)
    rows = []
    for score, name in read_list(file):
        key = name.lower()
        if not NAME.fullmatch(key):
            raise UserError(
                f"{file}: {name!r} is no name of a TID2013 image, such as I01_01_1.bmp: "
                "mend or remove its line"
            )
        rows.append(Label(key, f"distorted_images/{name}", number(score), key[:3], kind=key[4:6]))
    return Labels(file, column, rows)


DATASET = Dataset(
    name="tid2013",
    title="TID2013",
    columns={"MOS": (0, 9)},
    larger_is_better=True,
    subsets={"all": 3000},
    released="all",
    groups="reference",
    label_files=(LABELS,),
    folders=("tid2013", "tid"),
    labels=labels,
    citation="Ponomarenko et al.: Image database TID2013. Signal Processing: Image Communication 30, 2015",
    terms="education and research only; modified versions may not be passed on without permission",
    source="https://www.ponomarenko.info/tid2013.htm",
    size=(512, 384),
)
