"""Check data sets on disk: what was found, whether it is complete, and one line to mend what is not.

python -m scripts.check_data koniq10k live_iqa --data-root DIR --decode
"""

from collections.abc import Callable, Sequence

from common.system import cli
from common.system.cli import Parser
from common.system.errors import UserError, command, shown
from data.catalogue import DATASETS, data_root, folder_of
from data.check import Finding, check

COLUMNS: dict[str, Callable[[Finding], str]] = {
    "data set": lambda finding: finding.dataset.title,
    "folder": lambda finding: finding.folder,
    "labels": lambda finding: finding.labels,
    "images in": lambda finding: finding.image_folders,
    "found": lambda finding: finding.found,
    "labelled": lambda finding: finding.labelled,
    "expected": lambda finding: finding.expected,
    "scores": lambda finding: finding.scores,
    "range": lambda finding: finding.score_range,
    "missing": lambda finding: finding.missing,
    "unreadable": lambda finding: finding.unreadable,
}


def parser() -> Parser:
    found = Parser(prog="python -m scripts.check_data", description=__doc__.split("\n\n")[0])
    found.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(DATASETS)}; default: all that are there, but csv",
    )
    cli.add_data_root(found)
    found.add_argument("--decode", action="store_true", help="decode every image")
    return found


def table(findings: Sequence[Finding]) -> str:
    """Return the findings as people read them, one data set per line."""
    rows = [list(COLUMNS), *([text(finding) for text in COLUMNS.values()] for finding in findings)]
    widths = [max(map(len, column)) for column in zip(*rows)]
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
