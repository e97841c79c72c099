"""Check that networks, losses and adaptation compute what the authors' code computes, to 1e-6 in float64.

    python -m scripts.verify_reference tests/golden/*.npz

Each file holds what the released code gave on weights and inputs that anyone can rebuild from the seed in it.
Prints the largest error of every array, relative to the array's scale, and ends in `ok` or `FAIL` (exit
status 0 or 1).
"""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from common.runs.reference import Reference, computed, error
from common.system.cli import Parser
from common.system.errors import UserError, command
from weights.networks import BACKBONES

TOLERANCE = 1e-6


def verify(path: Path, only: Sequence[str] | None = None) -> bool:
    """Compare one file, or only some of its runs, and print how each array fares."""
    reference = Reference.read(path, BACKBONES)
    runs = reference.runs if only is None else list(only)
    unknown = [run for run in runs if run not in reference.runs]
    if unknown or not runs:
        raise UserError(
            f"{path}: no run {', '.join(unknown)}; its runs are {', '.join(reference.runs) or 'none'}"
        )
    print(f"{path}: {reference.meta['backbone']}, seed {reference.meta['seed']}", flush=True)
    wanted = {name for name in reference.arrays if "/" not in name or name.split("/")[0] in runs}
    agreed = True
    for name, found in tqdm(
        computed(reference, runs), total=len(wanted), unit="array", leave=False, disable=None
    ):
        if name not in wanted:  # a file need not store all that is computed
            continue
        wanted.remove(name)
        largest = error(found, reference.arrays[name])
        agreed &= largest <= TOLERANCE
        tqdm.write(f"  {name:32s} {largest:8.1e}  {'ok' if largest <= TOLERANCE else 'FAIL'}")
    for name in sorted(wanted):
        agreed = False
        print(f"  {name:32s} {'-':>8s}  FAIL: not computed here")
    return agreed


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
    agreed = [verify(path, args.runs) for path in args.files]
    print("ok" if all(agreed) else "FAIL")
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    raise SystemExit(main())
