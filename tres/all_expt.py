"""The paper's experiments with TReS.

python -m tres.all_expt --data-root DIR --device cuda
"""

from collections.abc import Sequence
from dataclasses import replace

from common.protocols import METHODS
from common.runs.grid import EXTRA, MAIN, TABLE_1, TABLE_2, Experiment, Target, adapting, targets
from data import experiments

WEIGHTS = "tres-live_fb"
RANK, GC, BOTH = METHODS["rank"], METHODS["gc"], METHODS["rank+gc"]
ENDS = {"Baseline": METHODS["source"], "TTA-IQA": BOTH}

EXPERIMENTS = (
    Experiment("1", MAIN, TABLE_1, WEIGHTS),
    Experiment("2", MAIN, TABLE_2, WEIGHTS),
    # Which distortions the rank loss compares by.
    Experiment(
        "3",
        MAIN,
        {kind: replace(RANK, distortion=kind) for kind in ("blur", "compression", "noise", "all", "best")},
        WEIGHTS,
    ),
    # Size and number of the groups.
    Experiment("4", MAIN, {f"p={p:g}": replace(GC, p=p) for p in (0.25, 0.375, 0.5)}, WEIGHTS),
    Experiment("5", MAIN, {f"groups={n}": replace(GC, groups=n) for n in (2, 3, 4)}, WEIGHTS),
    # What adapts, with the transformer in the extractor.
    Experiment(
        "6",
        MAIN,
        {"Baseline": METHODS["source"]}
        | adapting(**{"BN Only": ("bn",), "LN Only": ("ln",), "BN+LN": ("bn", "ln")}),
        WEIGHTS,
        cut="transformer",
    ),
    # From a source of camera pictures, and from one of made distortions.
    Experiment("7", targets("pipal", "koniq10k", "spaq", "livec"), ENDS, WEIGHTS),
    Experiment("7", targets("pipal", "cid2013", "koniq10k", "livec"), ENDS, "tres-live_iqa"),
    Experiment("8", targets("dslr"), TABLE_1, WEIGHTS),
    # Where one loss works and the other does not: images of similar quality, and bad ones. Scores are DMOS.
    Experiment(
        "fig4",
        [Target("live_iqa", between=(40, 50))],
        {"Baseline": METHODS["source"], "rank": RANK, "gc": GC},
        WEIGHTS,
    ),
    Experiment(
        "fig5",
        [Target("live_iqa", between=(70, 200))],
        {"Baseline": METHODS["source"], "rank": RANK, "gc": GC},
        WEIGHTS,
    ),
    Experiment(
        "fig6", targets("cid2013"), {f"niter={n}": replace(BOTH, niter=n) for n in range(1, 9)}, WEIGHTS
    ),
    Experiment("extra", MAIN, EXTRA, WEIGHTS),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return experiments.main(argv, "python -m tres.all_expt", ["tres"])


if __name__ == "__main__":
    raise SystemExit(main())
