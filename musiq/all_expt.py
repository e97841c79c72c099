"""The paper's experiments with MUSIQ.

python -m musiq.all_expt --data-root DIR --device cuda
"""

from collections.abc import Sequence

from common.protocols import METHODS
from common.runs.grid import EXTRA, MAIN, TABLE_1, TABLE_2, Experiment, adapting, targets
from data import experiments

WEIGHTS = "musiq-live_fb"

EXPERIMENTS = (
    Experiment("1", MAIN, TABLE_1, WEIGHTS),
    Experiment("2", MAIN, TABLE_2, WEIGHTS),
    # What adapts, with the transformer in the extractor.
    Experiment(
        "6",
        MAIN,
        {"Baseline": METHODS["source"]}
        | adapting(
            **{
                "BN Only": ("bn",),
                "LN Only": ("ln",),
                "CLS Only": ("cls",),
                "BN+LN": ("bn", "ln"),
                "BN+LN+CLS": ("bn", "ln", "cls"),
            }
        ),
        WEIGHTS,
        cut="transformer",
    ),
    Experiment("8", targets("dslr"), TABLE_1, WEIGHTS),
    Experiment("extra", MAIN, EXTRA, WEIGHTS),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return experiments.main(argv, "python -m musiq.all_expt", ["musiq"])


if __name__ == "__main__":
    raise SystemExit(main())
