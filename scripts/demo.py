"""Adapt a trained network to photographs of a kind that it never saw, and show what that changes.

    python -m scripts.demo --out results/demo

EfficientNet-Lite0, trained on the human scores of BIQ2021 (weights/demo), scores photographs with a fault
that it never saw: as it is, as each method of the paper adapts it, and by `tuned`, which decides by itself.
They lost light and were brightened, or were compressed and enlarged (--target compression). Writes
DIR/summary.json and DIR/index.html.
"""

from collections.abc import Sequence
from pathlib import Path

from common.system import cli
from common.system.cli import Parser, as_typed
from common.system.errors import command

PROG = "python -m scripts.demo"
SHOWN = ("bn-stats", "rotation", "gc", "rank", "rank+gc")


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog=PROG, description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("results/demo"), help="folder to write to; default: results/demo"
    )
    parser.add_argument(
        "--target", choices=("light", "compression"), default="light", help="the fault; default: light"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=SHOWN,
        default=SHOWN,
        help="beside rank+gc and tuned; default: all that are shown here",
    )
    cli.add_seeds(parser, default=2)
    cli.add_device(parser)
    args = parser.parse_args(argv)
    from scripts.run.demo import run

    run(args, as_typed(PROG, argv))


if __name__ == "__main__":
    raise SystemExit(main())
