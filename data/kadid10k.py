"""KADID-10k: 25 distortions of 81 references at five levels. Its column `dmos` is a MOS: higher is better."""

from pathlib import PurePath

from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns

LABELS = "dmos.csv"
LEFT_OUT = "i81"  # by the authors' code, which counts 80 references


def labels(files: Files, column: str) -> Labels:
    """Read the table of scores."""
    file = files.need_label(LABELS)
    table = read_columns(file, ("dist_img", "ref_img", column))
    rows = []
    for name, reference, score in table.itertuples(index=False):
        group = PurePath(reference).stem.lower()
        rows.append(
            Label(
                name,
                f"images/{name}",
                number(score),
                group,
                () if group == LEFT_OUT else ("released",),
                name[4:6],
            )
        )
    return Labels(file, column, rows)


DATASET = Dataset(
    name="kadid10k",
    title="KADID-10k",
    columns={"dmos": (1, 5)},
    larger_is_better=True,
    subsets={"all": 10125, "released": 10000},
    released="released",
    groups="reference",
    label_files=(LABELS,),
    folders=("kadid10k", "kadid"),
    labels=labels,
    citation="Lin, Hosu, Saupe: KADID-10k. QoMEX 2019",
    terms="not confirmed",
    source="http://database.mmsp-kn.de/kadid-10k-database.html",
)
