"""The paper's experiments with HyperIQA.

python -m hyperiqa.all_expt --data-root DIR --device cuda
"""

from collections.abc import Sequence

from common.runs.grid import EXTRA, MAIN, TABLE_1, TABLE_2, Experiment, targets
from data import experiments

WEIGHTS = "hyperiqa-live_fb"

EXPERIMENTS = (
    Experiment("1", MAIN, TABLE_1, WEIGHTS),
    Experiment("2", MAIN, TABLE_2, WEIGHTS),
    Experiment("8", targets("dslr"), TABLE_1, WEIGHTS),
    Experiment("extra", MAIN, EXTRA, WEIGHTS),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return experiments.main(argv, "python -m hyperiqa.all_expt", ["hyperiqa"])


if __name__ == "__main__":
    raise SystemExit(main())
