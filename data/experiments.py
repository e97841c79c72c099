"""The paper's experiments as a command: `main(argv, prog, names)`; see tres/all_expt.py."""

from collections.abc import Sequence

from common.runs import launch_options
from common.system.cli import as_typed
from common.system.errors import command
from data.catalogue import TARGETS
from weights.networks import NAMES, experiments


@command
def main(argv: Sequence[str] | None, prog: str, names: Sequence[str] = NAMES) -> int:
    """Run the experiments of the named networks; status 1 if a cell is left undone.

    prog: the command as its help calls it.
    """
    datasets = [module.DATASET.name for module in TARGETS]
    args = launch_options.parser(prog, names, datasets).parse_args(argv)
    from common.runs.launch import launch
    from data.inputs import INPUTS

    return launch(args, as_typed(prog, argv), experiments(names), INPUTS)
