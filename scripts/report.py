"""Show what a sweep measured beside what the paper published, in the paper's layout.

    python -m scripts.report results/paper --out results/report

Writes DIR/index.html, which needs nothing beside itself, DIR/report.md and DIR/report.tex. It works while the
sweep is running, too: what is missing is marked as missing.
"""

from collections.abc import Sequence
from pathlib import Path

from common.runs.grid import PAPER_PLACES
from common.system import cli
from common.system.cli import Parser, finite, natural
from common.system.errors import command
from weights.networks import BACKBONES


def parser() -> Parser:
    """Return the parser of the command line."""
    options = Parser(prog="python -m scripts.report", description=(__doc__ or "").split("\n\n")[0])
    options.add_argument(
        "results", type=Path, metavar="RESULTS", help="folder of a sweep: --results of scripts.all_expt"
    )
    options.add_argument(
        "--out", type=Path, default=Path("results/report"), help="folder to write to; default: results/report"
    )
    options.add_argument(
        "--data-root",
        type=Path,
        help="folder of the data sets, for thumbnails; default: $IQA_DATA_ROOT, data/raw",
    )
    options.add_argument(
        "--tables",
        nargs="+",
        choices=PAPER_PLACES,
        metavar="N",
        help=f"show these alone, of {' '.join(PAPER_PLACES)}",
    )
    options.add_argument(
        "--backbones", nargs="+", choices=list(BACKBONES), metavar="NAME", help="show these networks alone"
    )
    whole = "; default: what most of the cells have"
    options.add_argument("--protocol", choices=("paper", "released"), help=f"paper or released{whole}")
    options.add_argument("--seeds", type=cli.seeds, metavar="N", help=f"seeds 0 to N-1{whole}")
    options.add_argument(
        "--limit-images", type=natural, metavar="N", help=f"N images of each data set, 0 for all{whole}"
    )
    options.add_argument(
        "--similar-dmos", nargs=2, type=finite, metavar=("LOW", "HIGH"), help=f"bounds of Figure 4{whole}"
    )
    return options


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    from scripts.run.report import run

    run(args)


if __name__ == "__main__":
    raise SystemExit(main())
