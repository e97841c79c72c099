"""LIVE-FB (FLIVE, PaQ-2-PiQ), the source data of TReS, MUSIQ and HyperIQA: its whole images, no patches."""

from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns

LABELS, TEST = "labels_image.csv", "labels640.csv"  # the authors' test images, larger than 640 pixels


def labels(files: Files, column: str) -> Labels:
    """Read the labels of whole images; the list of test images tells the subsets apart, if it is there."""
    file, test_file = files.need_label(LABELS), files.label(TEST)
    table = read_columns(file, ("name", column))
    test = set()
    if test_file is not None:
        test = {_base(name) for name in read_columns(test_file, ("name_image",))["name_image"]}
    rows = [
        Label(
            name,
            name,
            number(score),
            parts=() if not test else ("test" if _base(name) in test else "train+val",),
        )
        for name, score in zip(table["name"], table[column])
    ]
    return Labels(file, column, rows)


def _base(name: str) -> str:
    return name.rpartition("/")[2].lower()


DATASET = Dataset(
    name="live_fb",
    title="LIVE-FB",
    columns={"mos": (0, 100)},
    larger_is_better=True,
    subsets={"all": 39810, "test": 1827, "train+val": 37983},
    released="all",
    groups="image",
    label_files=(LABELS,),
    folders=("live_fb", "flive", "fblive", "flive_database", "paq2piq"),
    labels=labels,
    citation="Ying, Niu, Gupta, Mahajan, Ghadiyaram, Bovik: From patches to pictures (PaQ-2-PiQ). CVPR 2020",
    terms="CC BY-NC 4.0 or CC BY-NC-SA 4.0 (its repository says both); "
    "AVA, VOC2012, EMOTIC and the blur set have their own",
    source="https://github.com/niu-haoran/FLIVE_Database and https://github.com/baidut/PaQ-2-PiQ",
)
