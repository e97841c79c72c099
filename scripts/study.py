"""Study whether adaptation helps on a data set: every loss, what decides by itself, and settings around them.

    python -m scripts.study --weights FILE --dataset biq2021 --subset ss03 --out results/study --name ss03
    python -m scripts.study --backbone metaiqa --weights FILE --data-root DIR --parts methods tuned

Writes OUT/NAME.json: of every setting the SROCC before and after, on the very same views, over all images and
within batches, and the gain with its interval, which resamples references or scenes where there are any.
scripts.study_tables makes the tables of docs/experiments.md from such files.
"""

from collections.abc import Sequence
from pathlib import Path

from common.system import cli
from common.system.cli import Parser, as_typed, positive
from common.system.errors import command
from data.catalogue import DATASETS
from weights.networks import BACKBONES

PROG = "python -m scripts.study"
PARTS = (
    "methods",
    "tuned",
    "views",
    "steps",
    "lr",
    "forms",
    "statistics",
    "gradient",
    "head",
    "batch",
    "sorted",
    "released",
)


def parser() -> Parser:
    """Return the parser of the command."""
    found = Parser(prog=PROG, description=__doc__.split("\n\n")[0])
    cli.add_backbone(found, BACKBONES, required=False)
    cli.add_dataset(found, DATASETS)
    cli.add_data_root(found)
    cli.add_subset(found)
    cli.add_allow_missing(found)
    cli.add_weights(found, required=True)
    found.add_argument("--limit", type=positive, metavar="N", help="take only so many images, by their names")
    found.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all of them")
    found.add_argument("--rows", nargs="+", metavar="NAME", help="of these parts, only these settings")
    found.add_argument(
        "--apart", nargs="+", metavar="TYPE", help="types of distortion whose SROCC is told apart as well"
    )
    cli.add_seeds(found)
    cli.add_device(found)
    found.add_argument(
        "--out", type=Path, default=Path("results/study"), help="folder to write to; default: results/study"
    )
    found.add_argument("--name", default="study", help="of the file, without .json; default: study")
    return found


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(argv)
    from scripts.run.study import run

    run(args, as_typed(PROG, argv))


if __name__ == "__main__":
    raise SystemExit(main())
