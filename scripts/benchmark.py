"""Photographs per second, scored plainly, adapted to by rank+gc and by tuned, and by the authors' release.

    python -m scripts.benchmark --backbone metaiqa hyperiqa --release TTA-IQA --threads 1 --json bench.json

All of it is measured in turns, from decoding to the last score, with random weights. --release takes a
checkout of https://github.com/subhadeeproy2000/TTA-IQA (common/runs/release.py says what is stood in for);
MUSIQ's loop there cannot be called: it is a script, and reads a JPEG file that it never wrote.
`all_expt --dry-run --rates` reads the JSON file.
"""

from collections.abc import Sequence
from pathlib import Path

from common.system import cli
from common.system.cli import Parser, natural, positive
from common.system.errors import command
from weights.networks import BACKBONES


def parser() -> Parser:
    """Return the parser of the command."""
    found = Parser(prog="python -m scripts.benchmark", description=__doc__.split("\n\n")[0])
    found.add_argument(
        "--backbone", nargs="+", choices=list(BACKBONES), default=list(BACKBONES), help="default: all four"
    )
    cli.add_device(found)
    cli.add_precision(found)
    found.add_argument(
        "--episodes",
        type=positive,
        metavar="E",
        help="at once; default: as in a sweep, 1 on a CPU, 4 on CUDA",
    )
    cli.add_batch_size(found)
    cli.add_workers(found)
    found.add_argument(
        "--threads", type=positive, metavar="N", help="of a CPU, also for the release; default: PyTorch's"
    )
    found.add_argument("--rounds", type=positive, default=3, metavar="N", help="default: 3, after a warm-up")
    found.add_argument(
        "--photographs",
        type=positive,
        metavar="N",
        help="of a round; default: E batches, on CUDA 8 E",
    )
    found.add_argument(
        "--stream",
        type=natural,
        default=0,
        metavar="N",
        help="also measure tuned, over so many photographs",
    )
    found.add_argument("--images", metavar="DIR", help="your own photographs; default: textures of 512 x 384")
    found.add_argument(
        "--release", type=Path, metavar="DIR", help="compare with a checkout of the authors' code"
    )
    found.add_argument("--json", type=Path, metavar="OUT")
    return found


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(argv)
    from scripts.run.benchmark import run

    run(args)


if __name__ == "__main__":
    raise SystemExit(main())
