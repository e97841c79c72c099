"""KonIQ-10k: photographs with authentic distortions, scored by crowds."""

from common.system.errors import UserError
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_columns

SCORES = "koniq10k_scores_and_distributions.csv"
# Training, validation and test; its MOS is on the scale of MOS_zscore.
SETS = "koniq10k_distributions_sets.csv"


def labels(files: Files, column: str) -> Labels:
    """Read the scores; the file of the sets tells the subsets apart, if it is there."""
    scores, sets = files.label(SCORES), files.label(SETS)
    if scores is None and sets is not None and column == "MOS":
        raise UserError(f"{sets}: its MOS is not on the 1 to 5 scale; put {SCORES} beside it")
    parts: dict[str, tuple[str, ...]] = {}
    if sets is not None:
        table = read_columns(sets, ("image_name", "set"))
        for name, part in zip(table["image_name"], table["set"]):
            if parts.setdefault(name, (part,)) != (part,):
                raise UserError(f"{sets}: {name} is in two sets, {parts[name][0]} and {part}: keep one row")
    file, header = (
        (sets, "MOS") if scores is None and sets is not None else (files.need_label(SCORES, SETS), column)
    )
    table = read_columns(file, ("image_name", header))
    rows = [
        Label(name, f"1024x768/{name}", number(score), parts=parts.get(name, ()))
        for name, score in zip(table["image_name"], table[header])
    ]
    return Labels(file, header, rows)


DATASET = Dataset(
    name="koniq10k",
    title="KonIQ-10k",
    columns={"MOS_zscore": (0, 100), "MOS": (1, 5)},  # neither is a function of the other
    larger_is_better=True,
    subsets={"all": 10073, "training": 7058, "validation": 1000, "test": 2015},
    released="all",
    groups="image",
    label_files=(SCORES, SETS),
    folders=("koniq10k", "koniq"),
    labels=labels,
    citation="Hosu, Lin, Sziranyi, Saupe: KonIQ-10k. IEEE TIP 29, 2020",
    terms="not confirmed; the photographs come from YFCC100M",
    source="http://database.mmsp-kn.de/koniq-10k-database.html (also osf.io/hcsdy)",
    resize=(512, 384),
    size=(1024, 768),
)
