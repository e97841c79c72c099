"""The results folder of a sweep: where a cell lies in it, what it holds, and its index. Nothing else knows.

    RESULTS/cells.csv                                      a row for each cell: which, where, what came out
    RESULTS/metaiqa/koniq10k/rank+gc-0123456789abcdef/     a finished cell: the FILES of results.py
    RESULTS/failed/0123456789abcdef.json                   why a cell failed
    RESULTS/.work/0123456789abcdef/                        what there is of an unfinished one
    RESULTS/logs/                                          a log for each run

The names before the id are for people: the id alone says which cell it is.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.runs.cell_ids import told
from common.runs.grid import Cell, Entry, place_name
from common.runs.results import FILES, CellResult, Failure, read_failure, read_result
from common.system.errors import UserError
from common.system.output import write_csv

INDEX, FAILED, WORK, LOGS = "cells.csv", "failed", ".work", "logs"
COLUMNS = (
    "id",
    "folder",
    "network",
    "weights",
    "dataset",
    "subset",  # or the band of published scores; empty: the data set's default
    "method",
    "protocol",
    "settings",  # what the id tells beside the other columns: every value that is not the usual one
    "seeds",
    "batch_size",
    "limit",  # images; empty: all
    "places",  # in the paper
    "state",  # done, failed, to do
    "reason",  # why it failed
    "images",
    "srocc_source",  # means over seeds, as all that follows
    "srocc_adapted",
    "srocc_gain",
    "srocc_gain_low",  # ends of its 95 % interval
    "srocc_gain_high",
    "plcc_source",
    "plcc_adapted",
)


def cell_folder(cell: Cell) -> Path:
    """Return where a finished cell is to lie in a results folder: `<backbone>/<dataset>/<method>-<id>`."""
    return Path(_safe(cell.backbone), _safe(cell.target.dataset), f"{_safe(cell.method.name)}-{cell.id}")


def _safe(name: str) -> str:
    """Return a name that every file system takes, which need not tell it from all others."""
    safe = re.sub(r"[^A-Za-z0-9_+-]", "_", name)[:60]
    reserved = not safe or safe in (FAILED, LOGS) or re.fullmatch(r"(?i)con|prn|aux|nul|(com|lpt)\d", safe)
    return safe + "_" if reserved else safe


def find_cell(root: Path, cell: Cell) -> Path:
    """Return the folder of a cell: where it lies, by its id, or where it is to lie."""
    folder = root / cell_folder(cell)
    if folder.is_dir():
        return folder
    return min(folder.parent.glob(f"[!.]*-{cell.id}"), default=folder)


def failure_file(root: Path, cell_id: str) -> Path:
    """Return where it is told why a cell failed."""
    return root / FAILED / f"{cell_id}.json"


def work_folder(root: Path, cell_id: str) -> Path:
    """Return the folder of an unfinished cell."""
    return root / WORK / cell_id


def is_finished(folder: Path) -> bool:
    """Return whether all files of a finished cell are there, none of them empty."""
    files = [folder / name for name in FILES]
    with suppress(OSError):  # taken away meanwhile
        return all(os.path.isfile(file) and os.path.getsize(file) for file in files)
    return False


def finished_folders(root: Path) -> Iterator[Path]:
    """Yield every folder that holds a finished cell, in order."""
    return filter(is_finished, _third_level(root))


def incomplete_folders(root: Path) -> Iterator[Path]:
    """Yield every folder that holds some files of a cell, but not all of them, or empty ones, in order."""
    for folder in _third_level(root):
        if any(os.path.lexists(folder / name) for name in FILES) and not is_finished(folder):
            yield folder


def _third_level(root: Path) -> Iterator[Path]:
    """Yield what may be the folder of a finished cell, in order."""
    for folder in sorted(root.glob("[!.]*/[!.]*/[!.]*")):
        if folder.relative_to(root).parts[0] not in (FAILED, LOGS):
            yield folder


def check_layout(root: Path) -> None:
    """Raise UserError where a folder holds cells as programs before this one laid them out."""
    for result in sorted(root.glob("*/result.json")):
        if re.fullmatch("[0-9a-f]{16}", result.parent.name):
            raise UserError(
                f"{result} is of the previous layout of results folders (<id>/result.json), which this "
                "program does not read: give another results folder"
            )


@dataclass(frozen=True)
class Results:
    """The cells that a results folder holds, by their ids."""

    finished: Mapping[str, CellResult]
    failed: Mapping[str, Failure]
    incomplete: Sequence[Path] = ()  # folders of cells that lack a file

    @property
    def data_folders(self) -> list[Path]:
        """The folders of the images, as far as they are on this machine."""
        named = {str(result.data["folder"]) for result in self.finished.values() if "folder" in result.data}
        return [folder for folder in map(Path, sorted(named)) if folder.is_absolute() and folder.is_dir()]

    @classmethod
    def read(cls, root: Path) -> "Results":
        """Read finished cells and failures; leave out what is under way.

        Raises UserError where there is no such folder, it is of the previous layout, or one of its files
        cannot be understood.
        """
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; give the --results of scripts.all_expt")
        check_layout(root)
        finished: dict[str, CellResult] = {}
        for folder in finished_folders(root):
            result = read_result(folder)
            if not folder.name.endswith(f"-{result.cell.id}"):
                raise UserError(
                    f"{folder / 'result.json'}: is of the cell {result.cell.id}, and the folder's name says "
                    "another: move the folder elsewhere"
                )
            if result.cell.id in finished:
                other = finished[result.cell.id].folder
                raise UserError(f"{folder}: the same cell as {other}: move one of them elsewhere")
            finished[result.cell.id] = result
        failed = {}
        for path in sorted((root / FAILED).glob("[!.]*.json")):
            if path.stem in finished:
                continue
            try:
                failed[path.stem] = read_failure(path)
            except UserError:
                if path.exists():  # else a sweep has taken the cell up again since the folder was listed
                    raise
        return cls(finished, failed, tuple(incomplete_folders(root)))

    @property
    def cells(self) -> Iterator[Cell]:
        """Yield every cell, finished or failed."""
        yield from (result.cell for result in self.finished.values())
        yield from (failure.cell for failure in self.failed.values())


def write_index(
    root: Path,
    entries: Iterable[Entry],
    finished: Mapping[str, CellResult],
    failed: Mapping[str, Failure],
) -> None:
    """Write RESULTS/cells.csv, whole or not at all: a row for each distinct cell.

    entries: the places that were asked for; their cells come first, in this order.
    finished, failed: what the folder holds, by id; cells of it that were not asked for follow. No file is
        read.
    """
    places: dict[str, list[str]] = {}
    cells: dict[str, Cell] = {}
    for entry in entries:
        cells.setdefault(entry.cell.id, entry.cell)
        places.setdefault(entry.cell.id, []).append(f"{place_name(entry.place)}: {entry.setting}")
    for cell in sorted(Results(finished, failed).cells, key=cell_folder):
        cells.setdefault(cell.id, cell)
    rows = []
    for name, cell in cells.items():
        result = finished.get(name)
        folder = cell_folder(cell)
        if result is not None and result.folder is not None:
            folder = Path(*result.folder.parts[-3:])
        about = _what(cell, places.get(name, ()))
        rows.append((name, folder.as_posix(), *about, *_outcome(result, failed.get(name))))
    write_csv(root / INDEX, COLUMNS, rows)


def _what(cell: Cell, places: Iterable[str]) -> tuple[object, ...]:
    """Return the columns from `network` to `places`."""
    target = cell.target
    band = "" if target.between is None else f"{target.between[0]:g} to {target.between[1]:g}"
    return (
        cell.backbone,
        cell.weights,
        target.dataset,
        ", ".join(filter(None, (target.subset, band))),
        cell.method.name,
        cell.protocol.name,
        settings_of(cell),
        " ".join(map(str, cell.seeds)),
        cell.batch_size,
        cell.limit,
        "; ".join(places),
    )


def settings_of(cell: Cell) -> str:
    """Return the settings of method and protocol that are not the usual ones: "niter=5; adapt=bn"."""
    shown = []
    for name, value in told(cell).items():
        part, _, field = name.partition(".")
        if part in ("method", "protocol") and field != "losses":  # which the method's name says
            shown.append(f"{field}={_joined(value) if isinstance(value, tuple) else value}")
    return "; ".join(shown)


def _joined(values: tuple[object, ...]) -> str:
    """Return several names, or the ends of a range."""
    return ("+" if any(isinstance(value, str) for value in values) else " to ").join(map(str, values))


def _outcome(result: CellResult | None, failure: Failure | None) -> tuple[object, ...]:
    """Return the columns from `state` on."""
    if result is None:
        state = ("to do", "") if failure is None else ("failed", " ".join(failure.reason.split()))
        return (*state, *[""] * (len(COLUMNS) - COLUMNS.index("images")))
    summary = result.summary
    low, high = summary.gain.interval or (None, None)
    srocc, plcc = ((summary.source[name].mean, summary.adapted[name].mean) for name in ("srocc", "plcc"))
    numbers = (*srocc, summary.gain.mean, low, high, *plcc)
    return ("done", "", summary.n_images, *("" if value is None else f"{value:.4f}" for value in numbers))
