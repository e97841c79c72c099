"""AVT H.265: square stills of 38 video scenes, scaled down and coded by H.265, scored by 21 viewers in a lab.

The trap: the files are 144 to 2160 pixels high, and that height alone nearly gives the label away (SROCC of
the MOS and the height .946 over all 371). A crop of the file would show the scale instead of the quality, so
every image is brought to 720 x 720 before the crop. The protocols `released` put noise and compression on the
file before that resize, so that they come out coarser where the file is small.
"""

import re

from common.system.errors import UserError
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns

LABELS = "mos_ci.csv"
NAME = re.compile(r"(.+)_crf_\d+_height_\d+")  # without extension; the first part is the source scene


def labels(files: Files, column: str) -> Labels:
    """Read the table of the lab test."""
    file = files.need_label(LABELS)
    rows = []
    for name, score in read_columns(file, ("image_name", column)).itertuples(index=False):
        known = NAME.fullmatch(name)
        if known is None:
            raise UserError(
                f"{file}: {name!r} is no name of an AVT H.265 image, such as "
                "Dancers.avi_1frame_crf_07_height_0208: mend or remove its row"
            )
        rows.append(Label(name, f"test_1/images/{name}.png", number(score), known[1]))
    return Labels(file, column, rows)


DATASET = Dataset(
    name="avt_h265",
    title="AVT H.265",
    columns={"mos": (1, 5)},
    larger_is_better=True,
    subsets={"all": 371},
    released=None,
    groups="source scene",
    label_files=(LABELS,),
    folders=("avt_h265", "image_quality_test"),
    labels=labels,
    citation=(
        "Göring, Rao Ramachandra Rao, Raake: Quality Assessment of Higher Resolution Images and Videos "
        "with Remote Testing. Quality and User Experience 8, 2023, doi 10.1007/s41233-023-00055-6"
    ),
    terms="GNU General Public License, version 3",
    source="https://github.com/Telecommunication-Telemedia-Assessment/image_quality_test",
    resize=(720, 720),
)
