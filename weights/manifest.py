"""The checkpoints that the project knows (manifest.json), where they come from, and their README.

python -m weights.manifest    # writes weights/README.md
"""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.system.checksums import file_sha256
from common.system.cli import Parser
from common.system.errors import UserError, command, fault
from common.system.files import read_text
from common.system.output import whole_file

HERE = Path(__file__).parent
MANIFEST = HERE / "manifest.json"
TEMPLATE = HERE / "README.md.in"  # {table} and {details} are filled in
FILES = HERE / "files"  # where downloads go by default; git ignores it
LOCK = "lock.json"  # beside the files: what was downloaded, with sha256
RECORDED = {"file": str, "size": int, "sha256": str, "source": str}  # of each
LARGEST = 1 << 20  # bytes of either list


@dataclass(frozen=True)
class Checkpoint:
    """One entry of the manifest."""

    name: str
    file: str  # its name in the folder of downloads
    backbone: str | None  # None for a file that no network here reads
    source_data: str  # what it was trained on
    used_for: str  # which tables of the paper
    size: int | None  # bytes, None where nobody could tell
    sha256: str | None  # 64 hex digits, the first ones where only those are known (at least 8), or None
    preprocessing: Mapping[str, object]  # of the images
    constructor: Mapping[str, object]  # arguments it was trained with, at which the networks here are fixed
    licence: str
    addresses: tuple[str, ...]  # in the order in which they are tried
    note: str

    def metadata(self) -> dict[str, str]:
        """Return what should travel with the weights, as safetensors stores it: text to text."""
        fields = ("name", "backbone", "source_data", "licence", "note")
        found = {name: str(getattr(self, name)) for name in fields if getattr(self, name)}
        return found | {
            name: json.dumps(getattr(self, name))
            for name in ("preprocessing", "constructor")
            if getattr(self, name)
        }


@dataclass(frozen=True)
class SourceFile:
    """A checkpoint that a command was asked for."""

    path: Path
    entry: Checkpoint | None = None  # of the manifest, where the checkpoint was asked for by name

    @cached_property
    def sha256(self) -> str:
        """The file's own, computed when it is first asked for."""
        return file_sha256(self.path)

    @property
    def record(self) -> dict[str, Any]:
        """What a result says of it."""
        return {"file": str(self.path), "sha256": self.sha256, "size": self.path.stat().st_size}

    def notes(self) -> list[str]:
        """Return what a reader of the result should know, one sentence each."""
        if self.entry is None or self.entry.sha256 is not None:
            return []
        return [
            f"no sha256 of {self.entry.name} is published: that {self.path} is this very file, and not "
            "another of its architecture, rests on where it came from"
        ]

    def verify(self, backbone: str | None = None) -> None:
        """Raise UserError where the checkpoint is not what is known of it by its name.

        The manifest may have it for another network, and the manifest or the record of its download
        (lock.json) another sha256.
        """
        if self.entry is None:
            return
        name = self.entry.name
        if backbone is not None and backbone != self.entry.backbone:
            network = self.entry.backbone or "no network of the paper"
            raise UserError(f"{name} is a checkpoint of {network}, not of {backbone}: choose another one")
        recorded = lock(self.path.parent).get(name, {}).get("sha256")
        for known in (self.entry.sha256, recorded):
            if known is not None and not self.sha256.startswith(known):
                raise UserError(
                    f"{self.path} has sha256 {self.sha256[: len(known)]}, not {known} as {name} has: "
                    f"python -m scripts.download_weights --replace {name} downloads it again"
                )


def read_manifest(path: Path = MANIFEST) -> dict[str, Checkpoint]:
    """Return the manifest by name. Raises UserError that names the entry which is wrong."""
    try:
        entries = json.loads(read_text(path, "manifest", LARGEST))
        if not isinstance(entries, list):
            raise ValueError("no list of checkpoints")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a manifest ({fault(error)})") from None
    found: dict[str, Checkpoint] = {}
    for number, entry in enumerate(entries):
        try:
            checkpoint = _checkpoint(entry)
        except (TypeError, ValueError, LookupError) as error:
            raise UserError(
                f"{path}: entry {number} is not of the form of a checkpoint ({fault(error)})"
            ) from None
        if checkpoint.name in found or not re.fullmatch(r"[\w.-]{0,100}\w", checkpoint.file):
            raise UserError(f"{path}: entry {number} repeats a name, or its file is no plain name")
        found[checkpoint.name] = checkpoint
    return found


FORM = {  # of an entry, by the fields of Checkpoint
    "name": str,
    "file": str,
    "backbone": str | None,
    "source_data": str,
    "used_for": str,
    "size": int | None,
    "sha256": str | None,
    "preprocessing": dict,
    "constructor": dict,
    "licence": str,
    "sources": list,
    "note": str,
}


def _checkpoint(entry: Any) -> Checkpoint:
    """Return an entry. Raises TypeError, ValueError or LookupError for what is none."""
    if not isinstance(entry, dict) or entry.keys() != FORM.keys():
        raise ValueError(f"it has not the fields {', '.join(FORM)}")
    for field, kind in FORM.items():
        if not isinstance(entry[field], kind):
            raise TypeError(f"its {field} is of another type")
    if entry["sha256"] is not None and not re.fullmatch(r"[0-9a-f]{8,64}", entry["sha256"]):
        raise ValueError("its sha256 is not 8 to 64 hex digits")
    if entry["size"] is not None and entry["size"] < 1:
        raise ValueError("its size is no number of bytes")
    fields = {field: value for field, value in entry.items() if field != "sources"}
    return Checkpoint(**fields, addresses=tuple(map(_address, entry["sources"])))


def find(name: str, known: Mapping[str, Checkpoint]) -> Checkpoint:
    """Return an entry by name. Raises UserError that lists the names."""
    if name not in known:
        raise UserError(f"no weights are called {name!r}; there are {', '.join(known)}")
    return known[name]


def located(name_or_file: str, folder: Path | None = None) -> SourceFile:
    """Return the checkpoint of a --weights option: a file, or the name of one that was downloaded.

    folder: of the downloads, weights/files by default. Raises UserError with the command that downloads it.
    """
    known = read_manifest()
    if name_or_file not in known or Path(name_or_file).is_file():
        return SourceFile(Path(name_or_file))
    entry = known[name_or_file]
    path = (FILES if folder is None else folder) / entry.file
    if not path.is_file():
        elsewhere = "" if folder is None else f" --dest {shlex.quote(str(folder))}"
        raise UserError(
            f"{path} is not there yet: python -m scripts.download_weights {name_or_file}{elsewhere}"
        )
    return SourceFile(path, entry)


def identified(source: SourceFile, known: Mapping[str, Checkpoint]) -> Checkpoint | None:
    """Return the entry of a file, by its sha256 in the manifest or in the record of a download."""
    recorded = {entry["sha256"]: name for name, entry in lock(source.path.parent).items()}
    for entry in known.values():
        if entry.sha256 and source.sha256.startswith(entry.sha256):
            return entry
    return known.get(recorded.get(source.sha256, ""))


def lock(folder: Path) -> dict[str, dict]:
    """Return what was downloaded into a folder: name -> {file, size, sha256, source}; nothing if none was."""
    path = folder / LOCK
    if not os.path.lexists(path):
        return {}
    try:
        found = json.loads(read_text(path, "record of downloads", LARGEST))
        for entry in found.values():
            for key, kind in RECORDED.items():
                if not isinstance(entry[key], kind):
                    raise TypeError(key)
        return {name: {key: entry[key] for key in RECORDED} for name, entry in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{path} is damaged: remove it, and check the files beside it against their source"
        ) from None


def _address(source: Mapping[str, str]) -> str:
    """Return the address of a source.

    That of Google Drive is the one of the download, past the question about large files.
    """
    key = "drive" if "drive" in source else "url"
    if not isinstance(source[key], str):
        raise TypeError(f"a source is no text: {key}")
    if key == "drive":
        return f"https://drive.usercontent.google.com/download?id={source['drive']}&export=download&confirm=t"
    return source["url"]


def page(address: str) -> str:
    """Return the address at which a person downloads the same file with a browser."""
    drive = re.search(r"drive\.usercontent\.google\.com/download\?id=([\w-]+)", address)
    return f"https://drive.google.com/file/d/{drive[1]}/view" if drive else address


def readme(known: Mapping[str, Checkpoint]) -> str:
    """Return weights/README.md as the manifest has it."""
    rows = [
        f"| `{entry.name}` | {entry.backbone or '-'} | {entry.source_data} | {entry.used_for} "
        f"| {_digits(entry.sha256)} |"
        for entry in known.values()
    ]
    details = [_details(entry) for entry in known.values()]
    return TEMPLATE.read_text(encoding="utf-8").format(table="\n".join(rows), details="\n\n".join(details))


def _digits(sha256: str | None) -> str:
    return "not known" if sha256 is None else f"`{sha256}`" + ("..." if len(sha256) < 64 else "")


def _details(entry: Checkpoint) -> str:
    lines = [f"### {entry.name}", "", f"- File: `weights/files/{entry.file}`"]
    lines += [f"- From: <{page(address)}>" for address in entry.addresses]
    lines.append(f"- Licence: {entry.licence}")
    lines.append(
        "- Input: " + "; ".join(f"{key} {_shown(value)}" for key, value in entry.preprocessing.items())
    )
    if entry.constructor:
        lines.append(
            "- Constructor: " + ", ".join(f"`{key}={value}`" for key, value in entry.constructor.items())
        )
    return "\n".join(lines + ([f"- {entry.note}"] if entry.note else []))


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@command
def main(argv: Sequence[str] | None = None) -> None:
    Parser(prog="python -m weights.manifest", description="Write weights/README.md.").parse_args(argv)
    with whole_file(HERE / "README.md") as file:
        file.write(readme(read_manifest()))


if __name__ == "__main__":
    raise SystemExit(main())
