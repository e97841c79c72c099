"""The paper's experiments with HyperIQA.

python -m hyperiqa.all_expt --data-root DIR --device cuda
"""

from common.grid import MAIN, TABLE_1, TABLE_2, Experiment, targets

WEIGHTS = "hyperiqa-live_fb"

EXPERIMENTS = (
    Experiment("1", MAIN, TABLE_1, WEIGHTS),
    Experiment("2", MAIN, TABLE_2, WEIGHTS),
    Experiment("8", targets("dslr"), TABLE_1, WEIGHTS),
)
