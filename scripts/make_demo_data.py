"""Make two small data sets to try things on, from photographs that ship inside installed packages.

    python -m scripts.make_demo_data --out data/raw/demo

DIR/source has photographs that were degraded in known ways, DIR/target others that lost light; data/demo.py
says how. Both are folders in the `csv` layout, with the columns `reference` and `type`.
"""

from collections.abc import Sequence
from pathlib import Path

from common.system.cli import Parser
from common.system.errors import command
from data.demo import source_versions, target_versions, write


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m scripts.make_demo_data", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("data/raw/demo"), help="folder to make; default: data/raw/demo"
    )
    args = parser.parse_args(argv)
    for name, versions in (("source", source_versions), ("target", target_versions)):
        write(args.out / name, versions())
        print(args.out / name)


if __name__ == "__main__":
    raise SystemExit(main())
