"""Train a source network on human scores, from scratch or from ImageNet weights that are on this machine.

python -m scripts.train_source --backbone metaiqa --dataset koniq10k --data-root DIR --output F
python -m scripts.train_source --model timm:resnet18 --features layer4 --dataset csv --output F
"""

from collections.abc import Sequence
from pathlib import Path

from common.system import cli
from common.system.cli import Parser, above_zero, as_typed, natural, positive
from common.system.errors import command
from data.catalogue import DATASETS
from weights.networks import BACKBONES

PROG = "python -m scripts.train_source"


def parser() -> Parser:
    found = Parser(prog=PROG, description=__doc__.split("\n\n")[0])
    cli.add_backbone(found, BACKBONES, required=False)
    cli.add_model(found)
    cli.add_dataset(found, DATASETS)
    cli.add_data_root(found)
    cli.add_subset(found)
    cli.add_allow_missing(found)
    found.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="F.safetensors",
        help="a model card, F.md, goes beside it",
    )
    found.add_argument(
        "--init",
        default="auto",
        metavar="auto|scratch|NAME|FILE",
        help="auto (default): ImageNet weights if torch.hub has them here, else scratch; or a checkpoint, "
        "or a ResNet's weights. Of --model: auto, the weights it is made with, or a checkpoint whose entries "
        "fit by name or by their order",
    )
    found.add_argument(
        "--recipe", default="plain", choices=("plain", "meta"), help="meta: over distortion types, as MetaIQA"
    )
    found.add_argument("--epochs", default=20, type=cli.epochs, help="default: 20")
    found.add_argument(
        "--crops", default=1, type=cli.crops, help="random views of every image in an epoch; default: 1"
    )
    found.add_argument(
        "--teacher", type=Path, metavar="F.safetensors", help="a source trained here, to learn from as well"
    )
    found.add_argument(
        "--distil-epochs",
        default=0,
        type=natural,
        metavar="N",
        help="the first so many epochs learn the teacher's features alone; default: 0",
    )
    found.add_argument("--batch-size", default=32, type=cli.batch_size, help="default: 32")
    found.add_argument(
        "--view-size",
        type=cli.side,
        metavar="S",
        help="pixels of training views, if the network takes others than those of the test",
    )
    found.add_argument(
        "--small-views",
        nargs=2,
        type=positive,
        metavar=("S", "EPOCHS"),
        help="pixels of the views that the first so many epochs see instead: cheaper",
    )
    found.add_argument(
        "--lr", type=above_zero, help="peak learning rate; default: 1e-3 from scratch, else 1e-4"
    )
    found.add_argument(
        "--seed", default=0, type=natural, help="of split, initial weights and all that is random; default: 0"
    )
    cli.add_device(found)
    cli.add_workers(found)
    found.add_argument(
        "--amp",
        action="store_true",
        help="bfloat16 where it is safe; faster on CUDA, and on CPUs that know it",
    )
    found.add_argument("--half", action="store_true", help="store the weights in half precision")
    found.add_argument(
        "--resume", action="store_true", help="go on where an interrupted run of the same command stopped"
    )
    return found


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    from scripts.run.train_source import run

    run(args, as_typed(PROG, argv))


if __name__ == "__main__":
    raise SystemExit(main())
