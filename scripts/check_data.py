"""Check data sets on disk: what was found, whether it is complete, and one line to mend what is not.

python -m scripts.check_data koniq10k live_iqa --data-root DIR --decode
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from common.photographs import Photograph, read_rgb
from common.system.cli import Parser
from common.system.errors import UserError, command, shown
from data.catalogue import DATASETS, data_root, folder_of
from data.dataset import Dataset, Reading, survey

HEADER = (
    "data set",
    "folder",
    "labels",
    "images in",
    "found",
    "labelled",
    "expected",
    "scores",
    "range",
    "missing",
    "unreadable",
)


@dataclass
class Finding:
    """row: cells of the table, from `folder` on. problems: what falls short and how to mend it, one line
    each."""

    dataset: Dataset
    row: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def parser() -> Parser:
    found = Parser(prog="python -m scripts.check_data", description=__doc__.split("\n\n")[0])
    found.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(DATASETS)}; default: all that are there"
    )
    found.add_argument(
        "--data-root", type=Path, help="folder of the data sets or of one; default: $IQA_DATA_ROOT, data/raw"
    )
    found.add_argument("--decode", action="store_true", help="decode every image")
    return found


def check(dataset: Dataset, folder: Path, root: Path, decode: bool) -> Finding:
    """The default subset against what is published. Nothing is written."""
    finding = Finding(dataset)
    try:
        reading = survey(dataset, folder)
    except UserError as error:
        finding.row = [_relative(folder, root)] + ["-"] * (len(HEADER) - 2)
        finding.problems = [str(error)]
        return finding
    unreadable = _unreadable(reading) if decode else None
    column, scores = reading.labels.column, reading.published()
    expected = dataset.subsets[reading.subset]
    finding.row = [
        _relative(folder, root),
        _relative(reading.labels.file, reading.folder),
        shown(_image_folders(reading)) or "-",
        str(len(reading.photographs)),
        str(len(scores) + len(reading.missing)),
        "any" if expected is None else str(expected),
        f"{column}, {dataset.direction}",
        f"{min(scores):g} to {max(scores):g}" if scores else "-",
        str(len(reading.missing)),
        "not checked" if unreadable is None else str(len(unreadable)),
    ]
    finding.problems = _problems(reading, expected, scores, unreadable or [])
    return finding


def _problems(
    reading: Reading, expected: int | None, scores: Sequence[float], unreadable: Sequence[str]
) -> list[str]:
    dataset, total = reading.dataset, len(scores) + len(reading.missing)
    found = []
    if expected is not None and total != expected:
        found.append(
            f"{reading.labels.file} labels {total} of {expected} expected images: get the whole file, see {dataset.source}"
        )
    if reading.missing:
        found.append(
            f"{len(reading.missing)} of {total} images are missing ({shown(reading.missing)}): unpack them below {reading.folder}"
        )
    limits = next(iter(dataset.columns.values()))
    if limits is not None and scores and not (limits[0] <= min(scores) and max(scores) <= limits[1]):
        found.append(
            f"{reading.labels.file}: scores from {min(scores):g} to {max(scores):g} are not on the scale of {limits[0]:g} to "
            f"{limits[1]:g}: is it the published file?"
        )
    if dataset.size is not None and (other := _other_size(reading)):
        found.append(f"{other}, not {dataset.size[0]}x{dataset.size[1]}: get the edition of that size")
    if unreadable:
        found.append(
            f"{len(unreadable)} images cannot be decoded ({shown(unreadable)}): unpack or download them again"
        )
    return found


def _other_size(reading: Reading) -> str | None:
    """The first image, where its size is another than published; opening does not decode."""
    for photograph in reading.photographs[:1]:
        try:
            with Image.open(photograph.path) as image:
                if image.size != reading.dataset.size:
                    return f"{photograph.path} has {image.size[0]}x{image.size[1]} pixels"
        except OSError:  # --decode names it
            return None
    return None


def _unreadable(reading: Reading) -> list[str]:
    def fails(photograph: Photograph) -> bool:
        try:
            read_rgb(photograph.path)
        except UserError:
            return True
        return False

    photographs = reading.photographs
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(
            pool.map(fails, photographs),
            total=len(photographs),
            unit="image",
            desc=reading.dataset.name,
            disable=None,
        )
        return [photograph.key for photograph, failed in zip(photographs, bar) if failed]


def _image_folders(reading: Reading) -> list[str]:
    return sorted({_relative(photograph.path.parent, reading.folder) for photograph in reading.photographs})


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def table(findings: Sequence[Finding]) -> str:
    """The findings as people read them, one data set per line."""
    rows = [HEADER, *((finding.dataset.title, *finding.row) for finding in findings)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    root = data_root(args.data_root)
    if unknown := [name for name in args.names if name not in DATASETS]:
        raise UserError(f"no data set {shown(unknown)}: choose from {', '.join(DATASETS)}")
    findings, absent = [], []
    for name in args.names or [name for name in DATASETS if name != "csv"]:
        try:
            folder = folder_of(DATASETS[name], root)
        except UserError as error:
            absent.append((name, str(error)))
            continue
        findings.append(check(DATASETS[name], folder, root, args.decode))
    if findings:
        print(table(findings))
    problems = [(finding.dataset.name, problem) for finding in findings for problem in finding.problems]
    for name, problem in problems:
        print(f"{name}: {problem}")
    for name, reason in absent:
        print(f"{name}: not there: {reason}")
    return 1 if problems or not findings or (args.names and absent) else 0


if __name__ == "__main__":
    raise SystemExit(main())
