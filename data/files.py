"""Finding label files and images below a folder, however it was unpacked: by base name, in any case."""

import filecmp
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from common.system.errors import UserError, shown
from common.system.folders import files_below


@dataclass(frozen=True)
class Files:
    """Every file below a folder."""

    root: Path
    by_name: dict[str, list[Path]]  # lower-case base name to the files that bear it, in order
    asked: Path  # what the user pointed at: the root, or a label file in it

    @classmethod
    def below(cls, asked: Path) -> "Files":
        """Return the files below a folder, or below that of a label file."""
        root = asked.parent if asked.is_file() else asked
        return cls.of(asked, (path for path in files_below(root) if path.is_file()))  # no link to nowhere

    @classmethod
    def of(cls, asked: Path, paths: Iterable[Path]) -> "Files":
        """Return these files as if they were all below what the user pointed at."""
        by_name: dict[str, list[Path]] = {}
        for path in paths:
            by_name.setdefault(path.name.lower(), []).append(path)
        return cls(asked.parent if asked.is_file() else asked, by_name, asked)

    def matching(self, pattern: str) -> list[Path]:
        """Return the files whose base name fits a shell pattern.

        Case, spaces, dashes and underscores make no difference.
        """
        pattern = plain(pattern)
        return [
            path
            for name, paths in self.by_name.items()
            if fnmatchcase(plain(name), pattern)
            for path in paths
        ]

    def label(self, *patterns: str) -> Path | None:
        """Return the label file of the first pattern that any file fits."""
        return next((self.one_of(found) for pattern in patterns if (found := self.matching(pattern))), None)

    def one_of(self, copies: Sequence[Path]) -> Path:
        """Return the first of identical copies of a label file. Raises UserError where they differ."""
        if any(not filecmp.cmp(copies[0], other, shallow=False) for other in copies[1:]):
            raise UserError(f"{self.root}: label files that differ ({shown(copies)}): keep the one to read")
        return copies[0]

    def need_label(self, *patterns: str) -> Path:
        """Return the label file of the first pattern that any file fits.

        Raises UserError where there is none.
        """
        if (found := self.label(*patterns)) is None:
            raise UserError(
                f"{self.root}: no label file {' or '.join(patterns)} there or below; "
                "data/README.md says where to get it"
            )
        return found

    def has_folder(self, name: str) -> bool:
        """Return whether any file lies in, or below, a folder of that name below the root."""
        inside = (path.relative_to(self.root).parts[:-1] for paths in self.by_name.values() for path in paths)
        return any(part.lower() == name.lower() for parts in inside for part in parts)

    def locate(self, names: Sequence[str], whole_path: bool = False) -> dict[str, Path]:
        """Return where the images are; those that are nowhere are left out.

        names: paths below the root, or base names with the folders that they are expected in. Where several
            files bear a base name, the one with most of these folders is taken, then the one in its case.
        whole_path: whether all these folders must agree.

        Raises UserError where more than one file remains, or where two names find one file.
        """
        found: dict[str, Path] = {}
        finder: dict[Path, str] = {}
        for name in names:
            candidates = self._candidates(name, whole_path)
            if len(candidates) > 1:
                raise UserError(
                    f"{self.root}: {name} is found more than once ({shown(candidates)}): "
                    "keep one, or label it by its path"
                )
            for path in candidates:
                if path in finder:
                    raise UserError(
                        f"{self.root}: {finder[path]} and {name} are one file, {path}: "
                        "mend or remove one label"
                    )
                found[name], finder[path] = path, name
        return found

    def _candidates(self, name: str, whole_path: bool) -> list[Path]:
        below = PurePosixPath(name.replace("\\", "/"))
        if not below.name or below.is_absolute() or ".." in below.parts or "\0" in name:
            raise UserError(
                f"{self.root}: {name!r} is no name of an image below that folder: mend or remove its label"
            )
        direct = self.root / below
        if os.path.isfile(direct):  # unlike Path.is_file, False for a name that no file system takes
            return [direct]
        candidates = self.by_name.get(_parts(name)[-1], [])
        agreeing = [_agreement(_parts(name), _parts(str(path.relative_to(self.root)))) for path in candidates]
        best = max(agreeing, default=0)
        if whole_path and best < len(_parts(name)):
            return []
        candidates = [path for path, agreement in zip(candidates, agreeing) if agreement == best]
        return [path for path in candidates if path.name == PurePosixPath(name).name] or candidates


def plain(name: str) -> str:
    """Return a name without case, spaces, dashes and underscores, to compare folders and label files by."""
    return re.sub(r"[\s_-]", "", name.lower())


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.lower().replace("\\", "/")).parts


def _agreement(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many parts agree, from the base name up."""
    pairs = zip(reversed(one), reversed(other))
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
