"""LIVE In the Wild Image Quality Challenge Database (LIVEC, CLIVE)."""

from common.system.errors import UserError
from data.dataset import Dataset, Label, Labels
from data.files import Files
from data.label_files import number, read_mat

NAMES, SCORES = "AllImages_release.mat", "AllMOS_release.mat"


def labels(files: Files, column: str) -> Labels:
    """Read the scores.

    The seven images of the observers' training, t1 to t7, are in `all` but not in `test`.
    """
    file = files.need_label(SCORES)
    (names,) = read_mat(files.need_label(NAMES), "AllImages_release")
    (scores,) = read_mat(file, "AllMOS_release")
    if len(names) != len(scores):
        raise UserError(
            f"{file}: {len(scores)} scores for {len(names)} names in {NAMES}: are both of the same release?"
        )
    return Labels(file, column, [_label(str(name), number(score)) for name, score in zip(names, scores)])


def _label(name: str, score: float) -> Label:
    training = name.startswith("t")
    folder = "Images/trainingImages" if training else "Images"
    return Label(name, f"{folder}/{name}", score, parts=("training" if training else "test",))


DATASET = Dataset(
    name="livec",
    title="LIVEC",
    columns={"AllMOS_release": (0, 100)},
    larger_is_better=True,
    subsets={"test": 1162, "training": 7, "all": 1169},
    released="test",
    groups="image",
    label_files=(SCORES,),
    folders=(
        "livec",
        "clive",
        "livechallenge",
        "live_challenge",
        "livewild",
        "live_itw",
        "challengedb",
        "challengedb_release",
    ),
    labels=labels,
    citation="Ghadiyaram, Bovik: Massive online crowdsourced study of picture quality. IEEE TIP 25(1), 2016",
    terms="any use with the notice kept and the source cited",
    source="https://live.ece.utexas.edu/research/ChallengeDB/",
)
