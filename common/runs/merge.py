"""Put results folders together that were made apart: finished cells, and the journals of unfinished ones."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.runs.folders import INDEX, WORK, Results
from common.runs.journal import read_lines, value_of
from common.runs.results import CellResult
from common.runs.store import Store
from common.system.errors import UserError
from common.system.output import check_targets, whole_path


@dataclass(frozen=True)
class Merged:
    """What was put together."""

    cells: int  # finished ones that were not there yet
    journals: int  # of unfinished cells


def merge(out: Path, parts: Sequence[Path]) -> Merged:
    """Copy what the parts hold into a results folder, which may hold something already.

    Raises UserError, before anything is written, where two of them disagree or a file is damaged.
    """
    folders = [out, *parts] if out.exists() else list(parts)
    if len({os.path.realpath(folder) for folder in folders}) < len(folders):
        raise UserError("the same folder twice: name each part once, and another folder to merge into")
    results: dict[str, CellResult] = {}
    for folder in folders:
        found = Results.read(folder)
        check_targets([out / INDEX], [], found.data_folders)
        if folder in parts and not found.finished and not (folder / WORK).is_dir():
            raise UserError(f"{folder} holds no results: leave it out, or name the --results of a sweep")
        for name, result in found.finished.items():
            _same_result(results.setdefault(name, result), result)
    journals: dict[tuple[str, str], list[Path]] = {}
    for path in (path for folder in folders for path in sorted((folder / WORK).glob("*/*.jsonl"))):
        if path.parent.name not in results:
            journals.setdefault((path.parent.name, path.name), []).append(path)
    merged = {place: lines for place, paths in journals.items() if (lines := _lines(paths))}
    _same_header(journals, merged)

    store = Store(out)
    copied = 0
    with store.held(wait=False):
        for (name, file), lines in merged.items():
            with whole_path(out / WORK / name / file) as temporary:
                temporary.write_bytes(b"".join(lines))
        for result in results.values():
            if not store.done(result.cell):
                assert result.folder is not None
                store.copy(result.cell, result.folder)
                copied += 1
    return Merged(copied, len(merged))


def _same_result(one: CellResult, other: CellResult) -> None:
    """Raise UserError where two results of a cell differ in anything but where and on what they were made."""
    assert one.folder is not None and other.folder is not None
    told = [
        {**result.to_json(), "environment": None, "config": {**_portable(result)}} for result in (one, other)
    ]
    scores = [(result.folder / "scores.csv").read_bytes() for result in (one, other) if result.folder]
    if told[0] != told[1] or scores[0] != scores[1]:
        raise UserError(f"{one.folder} and {other.folder} are of one cell and differ: leave one of them out")


def _portable(result: CellResult) -> dict[str, Any]:
    data = {key: value for key, value in result.data.items() if key not in ("folder", "label_file")}
    return {"id": result.cell.id, "data": data, "weights": result.weights.get("sha256")}


def _lines(paths: Sequence[Path]) -> list[bytes]:
    """Return the header and the batches of one journal, of which several folders may have some."""
    header, batches = b"", dict[int, bytes]()
    for path in paths:
        first, found = read_lines(path)
        if first and value_of(first) is None:
            raise UserError(f"{path} is damaged: remove it, and its batches will be run again")
        if header and first and first != header:
            differ = ", ".join(_differences(value_of(header), value_of(first)))
            raise UserError(f"{paths[0]} and {path} differ in {differ}: leave one of them out")
        header = header or first
        for number, line in found:
            if _scores(batches.setdefault(number, line)) != _scores(line):
                raise UserError(f"{paths[0]} and {path} disagree about batch {number}: leave one out")
    return [header, *(batches[number] for number in sorted(batches))] if header else []


def _scores(line: bytes) -> dict[str, Any]:
    return {key: value for key, value in value_of(line).items() if key not in ("seconds", "device")}


def _same_header(
    journals: dict[tuple[str, str], list[Path]], merged: dict[tuple[str, str], list[bytes]]
) -> None:
    """Raise UserError where the seeds of a cell were run on different images, weights or code."""
    first: dict[str, tuple[str, str]] = {}
    for place, lines in merged.items():
        other = first.setdefault(place[0], place)
        differ = list(_differences(value_of(merged[other][0]), value_of(lines[0])))
        if differ:
            raise UserError(
                f"{journals[other][0]} and {journals[place][0]} are of one cell, and differ in "
                f"{', '.join(differ)}: run one of them anew"
            )


def _differences(one: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    yield from sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
