"""What scripts.verify_reference does."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from common.runs.reference import Reference, computed, error
from common.system.errors import UserError
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


def run(files: Sequence[Path], only: Sequence[str] | None) -> int:
    """Run the command; status 1 where a file is not agreed with."""
    agreed = [verify(path, only) for path in files]
    print("ok" if all(agreed) else "FAIL")
    return 0 if all(agreed) else 1
