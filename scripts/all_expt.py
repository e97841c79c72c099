"""Run the cells of the paper's tables and figures, or some, into one folder; what is there is not repeated.

    python -m scripts.all_expt --data-root DIR --results results/paper --device cuda:0,cuda:1

RESULTS gets a folder per cell, and cells.csv that lists them; python -m scripts.report RESULTS shows them.
Stop it at any time: the same command goes on.
"""

from collections.abc import Sequence

from data import experiments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return experiments.main(argv, "python -m scripts.all_expt")


if __name__ == "__main__":
    raise SystemExit(main())
