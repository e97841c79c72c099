"""Files that appear whole or not at all."""

import csv
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from common.system.errors import UserError
from common.system.text import shortened


def sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk: a power cut loses it no more."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sync_folder(folder: Path) -> None:
    """Have the system write the names in a folder to the disk, where it can do that."""
    if os.name != "nt":  # Windows opens no folders, and does so itself
        sync(folder)


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, as far as they are not there, and have their names on the disk."""
    new = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    for made in new:
        sync_folder(made.parent)


def place_folder(made: Path, path: Path) -> None:
    """Give a folder, made elsewhere on the same disk, its place, once all that it holds is on the disk.

    Nothing may be there. Raises OSError.
    """
    for parent, _, names in os.walk(made, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync_folder(Path(parent))
    make_folders(path.parent)
    os.rename(made, path)
    sync_folder(path.parent)
    sync_folder(made.parent)


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Give a place to write a file to, which gets its name only once it is complete, and on the disk.

    On any error nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        make_folders(path.parent)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):  # gone if it got its name
            temporary.unlink()


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Open a text file that gets its name only once it is complete; on any error nothing is left behind."""
    with (
        whole_path(path) as temporary,
        # A file's name need not be UTF-8, and is written as it is.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield file


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, whole or not at all. Raises ValueError for a NaN."""
    with whole_file(path) as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file, whole or not at all."""
    with whole_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def check_targets(targets: Sequence[Path | None], inputs: Sequence[Path], data: Sequence[Path] = ()) -> None:
    """Refuse, before any work, files that cannot be written or would destroy something.

    targets: the files; None for one that was not asked for.
    inputs: files that are read.
    data: folders, or files in them, in which nothing is written.

    Raises UserError.
    """
    wanted = [target for target in targets if target is not None]
    reals = [_real(target) for target in wanted]
    read = {os.path.realpath(path) for path in inputs}
    for number, (target, real) in enumerate(zip(wanted, reals)):
        if len(os.fsencode(target.name)) > 200:  # a file system takes 255, and a name on the way is longer
            raise UserError(
                f"{shortened(target.name, 30)}: a name of {len(target.name)} characters: choose a shorter one"
            )
        for place in data:
            folder = _real(place.parent if os.path.isfile(place) else place)
            if real.is_relative_to(folder):
                raise UserError(
                    f"{target} lies in the data folder {folder}, where nothing is written: "
                    "choose another place"
                )
        if os.path.lexists(real) and not os.path.isfile(real):
            raise UserError(f"{target} is no ordinary file: give the name of one")
        if str(real) in read:
            raise UserError(f"{target} is read by this very command: choose another place")
        if any(real == other or other in real.parents for other in reals[:number] + reals[number + 1 :]):
            raise UserError(f"{target} is in the way of another output: choose another place")
        existing = next(parent for parent in real.parents if os.path.lexists(parent))
        if not (existing.is_dir() and os.access(existing, os.W_OK)):
            raise UserError(f"{target} cannot be written: {existing} is no folder that you may write to")


def _real(path: Path) -> Path:
    """Return where a path leads; unlike Path.resolve, no error for a link to itself."""
    return Path(os.path.realpath(path))
