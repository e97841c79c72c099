"""The paper's experiments with MetaIQA.

python -m metaiqa.all_expt --data-root DIR --device cuda
"""

from collections.abc import Sequence

from common.runs.grid import EXTRA, MAIN, TABLE_1, TABLE_2, Experiment, targets
from data import experiments

WEIGHTS = "metaiqa-tid2013-kadid10k"

EXPERIMENTS = (
    Experiment("1", MAIN, TABLE_1, WEIGHTS),
    Experiment("2", MAIN, TABLE_2, WEIGHTS),
    Experiment("8", targets("dslr"), TABLE_1, WEIGHTS),
    Experiment("extra", MAIN, EXTRA, WEIGHTS),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return experiments.main(argv, "python -m metaiqa.all_expt", ["metaiqa"])


if __name__ == "__main__":
    raise SystemExit(main())
