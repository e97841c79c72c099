"""SPAQ: photographs by smartphones; images are turned upright by their EXIF orientation when read."""

from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns

LABELS = ("MOS and Image attribute scores.xlsx", "MOS and Image attribute scores.csv")


def labels(files: Files, column: str) -> Labels:
    """Read the sheet of scores."""
    file = files.need_label(*LABELS)
    table = read_columns(file, ("Image name", column))
    rows = [
        Label(name, f"TestImage/{name}", number(score))
        for name, score in zip(table["Image name"], table[column])
    ]
    return Labels(file, column, rows)


DATASET = Dataset(
    name="spaq",
    title="SPAQ",
    columns={"MOS": (0, 100)},
    larger_is_better=True,
    subsets={"all": 11125},
    released="all",
    groups="image",
    label_files=LABELS,
    folders=("spaq", "spaq zip", "spaq_fixed"),
    labels=labels,
    citation="Fang, Zhu, Zeng, Ma, Wang: Perceptual quality assessment of smartphone photography. CVPR 2020",
    terms="education and research only; no commercial use without permission",
    source="https://github.com/h4nwei/SPAQ (join the parts first: zip -FF SPAQ.zip --out SPAQ_fixed.zip)",
    resize=(512, 384),
)
