"""BIQ2021: 12,000 photographs of three origins under one panel of 30 viewers, with an official split.

ss01 are photographs of a gallery, ss02 were taken with faults on purpose, ss03 come from Unsplash.
"""

import re

from common.system.errors import UserError
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns

TRAIN, TEST = "Train (Images and MOS).csv", "Test (Images and MOS).csv"
NAME = re.compile(r"(ss0[123]) \(\d+\)\.jpg", re.IGNORECASE)


def labels(files: Files, column: str) -> Labels:
    """Read the two official lists; a subset is one origin or two, a part of the split, or both together."""
    train, test = files.need_label(TRAIN), files.need_label(TEST)
    rows = []
    for file, split in ((train, "train"), (test, "test")):
        for name, score in read_columns(file, ("Image Name", column)).itertuples(index=False):
            known = NAME.fullmatch(name)
            if known is None:
                raise UserError(
                    f"{file}: {name!r} is no image of BIQ2021, such as ss01 (1).jpg: mend its row"
                )
            origin = known[1].lower()
            parts: tuple[str, ...] = (split, origin, f"{origin}-{split}")
            if origin != "ss03":
                parts += ("ss01+ss02", f"ss01+ss02-{split}")
            rows.append(Label(name, f"Images/{name}", number(score), parts=parts, split=split))
    return Labels(train, column, rows)


DATASET = Dataset(
    name="biq2021",
    title="BIQ2021",
    columns={"MOS": (0, 1)},
    larger_is_better=True,
    subsets={
        "all": 12000,
        "train": 10000,
        "test": 2000,
        "ss01": 2000,
        "ss02": 2000,
        "ss03": 8000,
        "ss01+ss02": 4000,
        "ss01-train": 1665,
        "ss02-train": 1656,
        "ss03-train": 6679,
        "ss01-test": 335,
        "ss02-test": 344,
        "ss03-test": 1321,
        "ss01+ss02-train": 3321,
        "ss01+ss02-test": 679,
    },
    released=None,
    groups="image; scenes of ss02 recur on both sides of the official split",
    label_files=(TRAIN, TEST),
    folders=("biq2021",),
    labels=labels,
    citation="Ahmed, Asif: BIQ2021. Journal of Electronic Imaging 31(5), 2022",
    terms="none given: research use, and cite it; ss03 by the Unsplash licence",
    source="https://github.com/nisarahmedrana/BIQ2021",
)
