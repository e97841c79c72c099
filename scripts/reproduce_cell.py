"""Compute one cell of a table: SROCC and PLCC of a network on a data set, before and after adaptation.

    python -m scripts.reproduce_cell --table 1 --backbone tres --dataset pipal --method rank+gc
    python -m scripts.reproduce_cell --backbone tres --dataset csv --data-root photos/ --weights tres.pth

The first stands it beside what the paper published; the second is any network on any data set.
"""

from collections.abc import Sequence
from pathlib import Path

from common.distortions import TYPES
from common.protocols import ADAPTABLE, METHODS
from common.runs.grid import PAPER_PLACES
from common.system import cli
from common.system.cli import Parser, above_zero
from common.system.errors import command
from data.catalogue import DATASETS
from weights.networks import BACKBONES

TABLES = tuple(place for place in PAPER_PLACES if place.isdigit())


def parser() -> Parser:
    """Return the parser of the command."""
    found = Parser(
        prog="python -m scripts.reproduce_cell",
        description=__doc__.split("\n\n")[0],
    )
    found.add_argument(
        "--table", choices=TABLES, metavar="N", help="of the paper, 1 to 8: also print what was published"
    )
    cli.add_backbone(found, BACKBONES)
    cli.add_dataset(found, DATASETS)
    cli.add_data_root(found)
    cli.add_subset(found)
    cli.add_allow_missing(found)
    cli.add_weights(found, default="that of the table")
    cli.add_weights_dir(found)
    found.add_argument("--method", default="rank+gc", choices=METHODS, help="default: rank+gc")
    cli.add_protocol(found)
    cli.add_seeds(found)
    cli.add_batch_size(found)
    found.add_argument(
        "--episodes", type=cli.episodes, metavar="E", help="episodes at once; by device if left out"
    )
    cli.add_workers(found)
    cli.add_device(found)
    cli.add_precision(found)
    found.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="write the cell into DIR as a sweep does, for scripts.report",
    )
    found.add_argument("--json", type=Path, metavar="OUT.json", help="write configuration and metrics here")
    found.add_argument("--scores", type=Path, metavar="OUT.csv", help="write the scores of every image here")
    ablation = found.add_argument_group("ablations", "what is left out is the method's or the protocol's own")
    ablation.add_argument(
        "--distortion", choices=("best", *TYPES, "all"), help="pairs of the rank loss (Table 3)"
    )
    ablation.add_argument("--p", type=above_zero, help="share of a batch in a group (Table 4)")
    ablation.add_argument(
        "--groups", type=int, choices=(2, 3, 4), help="groups of the contrastive loss (Table 5)"
    )
    ablation.add_argument("--adapt", help=f"what adapts: {', '.join(ADAPTABLE)}, joined by + (Table 6)")
    ablation.add_argument(
        "--cut", help="where the extractor ends (Table 6): transformer, if LN or CLS adapts"
    )
    ablation.add_argument("--niter", type=cli.steps, help="steps of an episode (Figure 6)")
    ablation.add_argument("--lr", type=above_zero, help="learning rate of Adam")
    ablation.add_argument("--weight", type=above_zero, help="lambda of Eq. 7")
    ablation.add_argument("--temperature", type=above_zero, help="of the contrastive losses")
    ablation.add_argument("--group-form", choices=("pairs", "mean-of-log", "log-of-mean"))
    ablation.add_argument(
        "--running-from", choices=("all", "clean", "none"), help="passes that move the BN statistics"
    )
    ablation.add_argument("--answer-from", choices=("running", "batch"), help="BN statistics of the answer")
    ablation.add_argument(
        "--leak-state",
        action="store_const",
        const=True,
        help="keep gradients and moments from episode to episode (release)",
    )
    return found


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(argv)
    from scripts.run.reproduce_cell import run

    run(args)


if __name__ == "__main__":
    raise SystemExit(main())
