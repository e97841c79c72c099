"""Files that appear whole or not at all."""

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from common.errors import UserError


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """A place to write a file to, which gets its name only once it is complete; on any error nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        yield Path(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that gets its name only once it is complete; on any error nothing is left behind."""
    with whole_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


def write_json(path: Path, value: object) -> None:
    with whole_file(path) as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with whole_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def check_target(path: Path | None, data_root: Path) -> None:
    """Refuse, before any work, a place that cannot be written to or lies in the data folder, which stays as it is."""
    if path is None:
        return
    folder = data_root if data_root.is_dir() else data_root.parent
    if path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path} lies in the data folder {folder}, where nothing is written: choose another place")
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file")
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise UserError(f"{path} cannot be written: {existing} is no folder that you may write to")
