"""CSIQ: six distortions of 30 references."""

from common.system.errors import UserError
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns, read_list

OFFICIAL, DERIVED = "csiq.DMOS.xlsx", "csiq_label.txt"
TYPES = {
    "noise": "AWGN",
    "blur": "BLUR",
    "contrast": "contrast",
    "fnoise": "fnoise",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
}


def labels(files: Files, column: str) -> Labels:
    """Read the authors' sheet by image, else the list of file names that ships with HyperIQA."""
    file = files.need_label(OFFICIAL, DERIVED)
    if file.suffix.lower() == ".txt":
        return Labels(file, column, [_label(name, score) for name, score in read_list(file)])
    table = read_columns(file, ("image", "dst_type", "dst_lev", column), sheet="all_by_image")
    rows = []
    for image, kind, level, score in table.itertuples(index=False):
        if kind.lower() not in TYPES:
            raise UserError(f"{file}: {kind!r} is no dst_type of CSIQ: choose from {', '.join(TYPES)}")
        rows.append(_label(f"{image}.{TYPES[kind.lower()]}.{level}.png", score))
    return Labels(file, column, rows)


def _label(name: str, score: str) -> Label:
    """Return one label. name: <reference>.<type>.<level>.png, in a folder named as the type."""
    fields = name.split(".")
    if len(fields) != 4:
        raise UserError(
            f"{name!r} is no name of a CSIQ image, such as 1600.AWGN.1.png: mend or remove its label"
        )
    return Label(name, f"dst_imgs/{fields[1].lower()}/{name}", number(score), fields[0], kind=fields[1])


DATASET = Dataset(
    name="csiq",
    title="CSIQ",
    columns={"dmos": (0, 1)},
    larger_is_better=False,
    subsets={"all": 866},
    released="all",
    groups="reference",
    label_files=(OFFICIAL, DERIVED),
    folders=("csiq",),
    labels=labels,
    citation="Larson, Chandler: Most apparent distortion. Journal of Electronic Imaging 19(1), 2010",
    terms="not confirmed",
    source="https://s2.smu.edu/~eclarson/csiq.html",
)
