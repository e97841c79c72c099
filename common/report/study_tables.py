"""The tables of docs/experiments.md, in Markdown, from the files of scripts.study."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.runs.results import Gain, OverSeeds, signed
from common.runs.study import FORMAT
from common.system.errors import UserError
from common.system.files import read_json

Study = Mapping[str, Any]
Studies = Mapping[str, Study]  # by the name of the file


def read_studies(folder: Path) -> dict[str, Study]:
    """Return the studies of a folder, by name. Raises UserError where there are none, or one is damaged."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        try:
            study = read_json(file, "study")
            known = study["format"] == FORMAT and study["rows"] is not None
        except (LookupError, TypeError):
            known = False
        if not known:
            raise UserError(f"{file}: is no study of format {FORMAT}: make it again with scripts.study")
        found[file.stem] = study
    if not found:
        raise UserError(f"{folder}: no files of scripts.study there")
    return found


def targets(studies: Studies) -> str:
    """Which networks met which images."""
    return _table(
        ("study", "network", "weights", "images", "groups", "seeds", "source SROCC", "within batches"),
        (
            (
                name,
                study["network"],
                study["weights"]["file"],
                str(study["data"]["images"]),
                study["interval"].removeprefix("over "),
                str(study["seeds"]),
                OverSeeds(tuple(study["rows"][0]["source"]["srocc"]["values"])).text(),
                _number(study["rows"][0]["within_batches"]["source"]),
            )
            for name, study in studies.items()
        ),
    )


def gains(studies: Studies) -> str:
    """What each method and each candidate of `tuned` gains in SROCC, study by study."""
    return _by_study(studies, ("methods", "tuned"), _gain)


def within(studies: Studies) -> str:
    """The same for the mean SROCC within a batch."""
    return _by_study(studies, ("methods", "tuned"), _within)


def apart(studies: Studies) -> str:
    """The gains over the types of distortion that were told apart."""
    return _by_study(
        studies,
        ("methods", "tuned"),
        lambda row: Gain.from_json(row["apart"]).text(),
        lambda row: row["apart"] is not None,
        lambda study: any(row["apart"] is not None for row in study["rows"]),
    )


def streams(studies: Studies) -> str:
    """Gains over a shuffled stream, and over one sorted by MOS."""
    shown = {"bn-stats", "rank+gc", "tuned"}
    return _by_study(
        studies,
        ("methods", "tuned", "sorted"),
        _gain,
        lambda row: row["name"].removeprefix("sorted by MOS, ") in shown,
        lambda study: any(row["part"] == "sorted" for row in study["rows"]),
    )


def views(studies: Studies) -> str:
    """What `tuned` and rank+gc gain, and what the source gains by the mean of as many views as they cost."""
    return _by_study(
        studies,
        ("methods", "tuned", "views"),
        _gain,
        lambda row: row["part"] == "views" or row["name"] in ("tuned", "rank+gc"),
        lambda study: any(row["part"] == "views" for row in study["rows"]),
    )


def batches(studies: Studies) -> str:
    """Gains with batches of other sizes."""
    return _by_study(
        studies,
        ("methods", "batch"),
        _gain,
        lambda row: row["part"] == "batch" or row["name"] in ("bn-stats", "gc", "rank+gc"),
        lambda study: any(row["part"] == "batch" for row in study["rows"]),
    )


def decisions(studies: Studies) -> str:
    """What `tuned` decided, by the mean agreement of every candidate over seeds."""
    rows = []
    for name, study in studies.items():
        for row in study["rows"]:
            if row["name"] == "tuned" and row["decisions"]:
                found = row["decisions"]
                agreement = {
                    who: np.mean([decision["reliability"].get(who, np.nan) for decision in found])
                    for who in found[0]["reliability"]
                }
                chosen = [decision["chosen"] for decision in found]
                rows.append(
                    (
                        name,
                        ", ".join(f"{who} {value:.3f}" for who, value in agreement.items()),
                        ", ".join(f"{who} ({chosen.count(who)})" for who in dict.fromkeys(chosen)),
                    )
                )
    return _table(("study", "agreement of two views", "chosen (seeds)"), rows)


def _by_study(
    studies: Studies,
    parts: Sequence[str],
    cell: Callable[[Mapping[str, Any]], str],
    shown: Callable[[Mapping[str, Any]], bool] = lambda row: True,
    taken: Callable[[Study], bool] = lambda study: True,
) -> str:
    """Return a table with a row for each study, and a column for each setting of the parts."""
    cells: dict[str, dict[str, str]] = {}
    for name, study in studies.items():
        if taken(study):
            found = (row for row in study["rows"] if row["part"] in parts and shown(row))
            cells[name] = {row["name"]: cell(row) for row in found}
    settings = list(dict.fromkeys(setting for own in cells.values() for setting in own))
    return _table(
        ("study", *settings),
        ((name, *(own.get(s, "") for s in settings)) for name, own in cells.items() if own),
    )


def _gain(row: Mapping[str, Any]) -> str:
    return Gain.from_json(row["srocc_gain"]).text()


def _within(row: Mapping[str, Any]) -> str:
    before, after = row["within_batches"]["source"], row["within_batches"]["adapted"]
    return "" if before is None or after is None else signed(after - before)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES: Mapping[str, Callable[[Studies], str]] = {
    "targets": targets,
    "gains": gains,
    "within": within,
    "apart": apart,
    "streams": streams,
    "views": views,
    "batches": batches,
    "decisions": decisions,
}
