"""Check what a GPU computes, and measure how fast it scores and adapts, in minutes and without data.

    python -m scripts.gpu_report --out results/gpu --minutes 8

First it compares the GPU with the CPU and with itself. Then it measures plain scores, rank+gc and tuned for
every network, in float32, TF32 and bfloat16, for several episodes at once, the loaders that feed them, and
what a fixed shape could gain. Photographs are made, weights random but for the checks. Writes
DIR/gpu_report.json, after every part, and DIR/gpu_report.txt; the status is 1 if a check is not passed.
`all_expt --dry-run --rates DIR/gpu_report.json` reads the float32 rates.
"""

from collections.abc import Sequence
from pathlib import Path

from common.system import cli
from common.system.cli import Parser, above_zero, positive
from common.system.errors import command
from weights.networks import BACKBONES


def parser() -> Parser:
    """Return the parser of the command."""
    found = Parser(prog="python -m scripts.gpu_report", description=__doc__.split("\n\n")[0])
    found.add_argument(
        "--backbone", nargs="+", choices=list(BACKBONES), default=list(BACKBONES), help="default: all four"
    )
    cli.add_device(found)
    found.add_argument(
        "--minutes",
        type=above_zero,
        default=8.0,
        metavar="M",
        help="what would take longer is left out, the least important first; default: 8",
    )
    found.add_argument(
        "--episodes",
        nargs="+",
        type=positive,
        default=[4, 1, 16, 8, 2],
        metavar="E",
        help="at once, the most important first; default: 4 1 16 8 2",
    )
    cli.add_batch_size(found)
    cli.add_workers(found)
    found.add_argument(
        "--out", type=Path, default=Path("results/gpu"), help="folder to write to; default: results/gpu"
    )
    return found


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; status 1 if a check is not passed."""
    args = parser().parse_args(argv)
    from scripts.run.gpu_report import run

    return run(args)


if __name__ == "__main__":
    raise SystemExit(main())
