"""Put results folders together that were made apart, such as the parts of all_expt --part.

    python -m scripts.merge_results results/paper results/part-1 results/part-2

The parts stay as they are. Where two of them disagree nothing is written. A cell whose seeds were in several
parts is finished by the command of the sweep, without --part, on the folder that this makes: it computes
nothing that is there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.system.cli import Parser
from common.system.errors import command
from common.system.output import check_targets


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    found = Parser(prog="python -m scripts.merge_results", description=(__doc__ or "").split("\n\n")[0])
    found.add_argument("out", type=Path, metavar="OUT", help="folder to merge into; it may hold results")
    found.add_argument(
        "parts", type=Path, nargs="+", metavar="PART", help="folders of results; they are read"
    )
    return found


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(argv)
    from common.runs.merge import merge

    check_targets([args.out / "cells.csv"], [], args.parts)
    found = merge(args.out, args.parts)
    print(
        f"{found.cells} finished cells and {found.journals} journals of unfinished ones are now in {args.out}"
    )
    if found.journals:
        print(f"the command of the sweep, without --part and with --results {args.out}, finishes those")


if __name__ == "__main__":
    raise SystemExit(main())
