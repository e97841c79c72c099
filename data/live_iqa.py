"""LIVE Image Quality Assessment Database, release 2: five distortions of 29 references."""

import numpy as np

from common.system.errors import UserError
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_mat

# Number of images, 982 in all, in the order of the arrays.
BLOCKS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
FILES = {"dmos_new": "dmos_realigned.mat", "dmos": "dmos.mat"}


def labels(files: Files, column: str) -> Labels:
    """Read the scores: number k of a block is img<k>.bmp of its folder.

    The copies of references, orgs = 1, are no samples.
    """
    file = files.need_label(FILES[column])
    names = files.need_label("refnames_all.mat")
    scores, orgs = read_mat(file, column, "orgs")
    (references,) = read_mat(names, "refnames_all")
    total = sum(BLOCKS.values())
    for source, variable, values in (
        (file, column, scores),
        (file, "orgs", orgs),
        (names, "refnames_all", references),
    ):
        if values.shape != (total,):
            raise UserError(
                f"{source}: {variable} has {values.size} entries, not {total}: "
                "it is not the file of release 2"
            )
    places = [(folder, k) for folder, count in BLOCKS.items() for k in range(1, count + 1)]
    # `blur` is as the readme of TReS draws it.
    blur = "blur" if files.has_folder("blur") and not files.has_folder("gblur") else "gblur"
    rows = [
        Label(
            key=f"{places[i][0]}/img{places[i][1]}.bmp",
            path=f"{blur if places[i][0] == 'gblur' else places[i][0]}/img{places[i][1]}.bmp",
            score=number(scores[i]),
            group=str(references[i]).lower().removesuffix(".bmp"),
            parts=(places[i][0],),
            kind=places[i][0],
        )
        for i in np.flatnonzero(orgs == 0)
    ]
    return Labels(file, column, rows)


DATASET = Dataset(
    name="live_iqa",
    title="LIVE-IQA",
    columns={"dmos_new": (-2.7, 111.8), "dmos": (0, 100)},  # realigned: some are below 0 or above 100
    larger_is_better=False,
    subsets={"all": 779, "jp2k": 169, "jpeg": 175, "wn": 145, "gblur": 145, "fastfading": 145},
    released="all",
    groups="reference",
    label_files=tuple(FILES.values()),
    folders=("live", "live_iqa", "live_iqa_release2", "live2", "live_release2", "databaserelease2"),
    labels=labels,
    citation="Sheikh, Sabir, Bovik: A statistical evaluation of recent full reference IQA algorithms. "
    "IEEE TIP 15(11), 2006",
    terms="any use with the notice kept and the source acknowledged; "
    "nine Visual Delights images in this data set's scope only",
    source="https://live.ece.utexas.edu/research/quality/subjective.htm (form; dmos_realigned.mat apart)",
    whole_path=True,
)
