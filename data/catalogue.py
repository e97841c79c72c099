"""All data sets by name, and where they lie below the data root."""

import os
from pathlib import Path

from common.system.errors import UserError
from data import (
    avt_h265,
    biq2021,
    cid2013,
    csiq,
    csv_folder,
    dslr,
    kadid10k,
    koniq10k,
    live_fb,
    live_iqa,
    livec,
    pipal,
    spaq,
    tid2013,
)
from data.dataset import Dataset
from data.files import Files, plain

TARGETS = (koniq10k, pipal, cid2013, live_iqa, spaq, livec, dslr)
SOURCES = (live_fb, tid2013, kadid10k, csiq)
OTHERS = (biq2021, avt_h265)
DATASETS: dict[str, Dataset] = {
    module.DATASET.name: module.DATASET for module in (*TARGETS, *SOURCES, *OTHERS, csv_folder)
}
ROOT = Path("data/raw")


def data_root(given: Path | None) -> Path:
    """Return the folder that was given, else $IQA_DATA_ROOT, else data/raw.

    Raises UserError where it does not exist.
    """
    root = given or Path(os.environ.get("IQA_DATA_ROOT") or ROOT)
    if not os.path.exists(root):  # unlike Path.exists, no error for a name that no file system takes
        raise UserError(f"{root}: no such folder; give --data-root, or set IQA_DATA_ROOT")
    if not (root.is_dir() or root.is_file()):
        raise UserError(f"{root} is neither a folder nor a file: give another --data-root")
    return root


def folder_of(dataset: Dataset, root: Path) -> Path:
    """Return the data set's folder.

    It is the root itself if that is this data set's alone, else the folder below it that bears its name.
    Raises UserError where there is none, or more than one.
    """
    if not dataset.folders:
        return root
    if not root.is_dir():
        raise UserError(f"{root} is a file: give the folder of {dataset.title}")
    content = sorted(root.iterdir())
    folders = [path for path in content if path.is_dir()]
    alone = not any(
        _bears(other, path) for other in DATASETS.values() if other is not dataset for path in folders
    )
    if alone and (
        _bears(dataset, Path(os.path.realpath(root)))
        or _labelled(dataset, Files.of(root, [p for p in content if p.is_file()]))
    ):
        return root
    own = [path for path in folders if _bears(dataset, path)]
    if len(own) > 1:
        raise UserError(
            f"{root}: {', '.join(path.name for path in own)} may all be {dataset.title}: "
            "point --data-root at the one"
        )
    for folder in own + [root] * alone:
        if _labelled(dataset, Files.below(folder)):
            return folder
    if own:
        return own[0]
    raise UserError(
        f"{root}: no folder of {dataset.title}, such as {dataset.folders[0]}, "
        f"and no {dataset.label_files[0]}; get it from {dataset.source}"
    )


def _bears(dataset: Dataset, folder: Path) -> bool:
    return plain(folder.name) in {plain(name) for name in dataset.folders}


def _labelled(dataset: Dataset, files: Files) -> bool:
    return any(files.matching(pattern) for pattern in dataset.label_files)
