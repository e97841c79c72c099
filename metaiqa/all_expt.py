"""The paper's experiments with MetaIQA.

python -m metaiqa.all_expt --data-root DIR --device cuda
"""

from common.grid import MAIN, TABLE_1, TABLE_2, Experiment, targets

WEIGHTS = "metaiqa-tid2013-kadid10k"

EXPERIMENTS = (
    Experiment("1", MAIN, TABLE_1, WEIGHTS),
    Experiment("2", MAIN, TABLE_2, WEIGHTS),
    Experiment("8", targets("dslr"), TABLE_1, WEIGHTS),
)
