"""Check that networks, losses and adaptation compute what the authors' code computes, to 1e-6 in float64.

    python -m scripts.verify_reference tests/golden/*.npz

Each file holds what the released code gave on weights and inputs that anyone can rebuild from the seed in it.
Prints the largest error of every array, relative to the array's scale, and ends in `ok` or `FAIL` (exit
status 0 or 1).
"""

from collections.abc import Sequence
from pathlib import Path

from common.system.cli import Parser
from common.system.errors import command


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m scripts.verify_reference", description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz")
    parser.add_argument(
        "--runs",
        nargs="+",
        metavar="RUN",
        help="only these, of rank gc rank+gc rotation and the distortion types",
    )
    args = parser.parse_args(argv)
    from scripts.run.verify_reference import run

    return run(args.files, args.runs)


if __name__ == "__main__":
    raise SystemExit(main())
