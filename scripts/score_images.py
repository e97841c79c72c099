"""Scores of your own photographs, by a network as it is and as test-time adaptation makes it.

    python -m scripts.score_images photo.jpg
    python -m scripts.score_images photos/ --output scores.csv
    python -m scripts.score_images photos/ --output scores.csv --backbone metaiqa --weights FILE
    python -m scripts.score_images 'photos/**/*.jpg' --output scores.csv --model package.module:function \\
        --features layer4

Larger = better. Without --output every image is scored by the source alone, and nothing adapts. With it, a
CSV file is written batch by batch; after an interruption --resume goes on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.runs.guard import KEPT_ORDER
from common.system import cli
from common.system.cli import Parser, finite, natural, positive
from common.system.errors import UserError, command
from data.collect import collect
from data.csv_folder import COLUMNS
from weights.networks import BACKBONES

OF_OUTPUT = (
    "protocol", "method", "running_from", "guard", "batch_size", "crops", "seed", "resume", "overwrite",
    "top",
)  # fmt: skip
SHOWN = ("rank+gc", "gc", "rank", "rotation", "bn-stats", "none")


def parser() -> Parser:
    """Return the parser of the command."""
    found = Parser(prog="python -m scripts.score_images", description=__doc__.split("\n\n")[0])
    found.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help=f"images, folders, patterns, or CSV files of {' and, optionally, '.join(COLUMNS)}",
    )
    found.add_argument(
        "--output",
        type=Path,
        metavar="OUT.csv",
        help="one row per image, with the source's score and the adapted one; without it, the source's score "
        "of each image is printed, on a fixed grid of crops",
    )
    found.add_argument("--backbone", choices=list(BACKBONES), help="a network of the paper, with --weights")
    cli.add_model(found)
    cli.add_weights(
        found, default="the source that ships. A file of train_source needs neither --backbone nor --model"
    )
    found.add_argument(
        "--protocol",
        default="tuned",
        choices=("tuned", "paper", "released"),
        help="tuned (default): over all images, where the first of them say that it helps; paper and, with "
        "--backbone, released: on each batch by itself",
    )
    found.add_argument(
        "--method",
        choices=SHOWN,
        help="of --protocol paper or released, there rank+gc by default; none: the source alone",
    )
    found.add_argument(
        "--running-from",
        choices=("all", "clean", "none"),
        help="passes that move the BN statistics; default: all. Of --protocol paper or released",
    )
    found.add_argument(
        "--guard",
        nargs="?",
        type=finite,
        const=KEPT_ORDER,
        metavar="SROCC",
        help="keep the source's scores of a batch where adaptation changes their order: where their SROCC "
        f"with the adapted ones is below this, {KEPT_ORDER} if no number is given. "
        "Of --protocol paper or released",
    )
    cli.add_batch_size(found)
    found.add_argument(
        "--crops",
        default=1,
        type=cli.crops,
        metavar="N",
        help="views of each image, whose scores are averaged",
    )
    found.add_argument("--seed", default=0, type=natural, help="of batches, views and projection; default: 0")
    again = found.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an output that was interrupted")
    again.add_argument("--overwrite", action="store_true", help="replace an output that is complete")
    found.add_argument("--top", type=positive, metavar="N", help="print the N best and the N worst")
    found.add_argument(
        "--json",
        nargs="?",
        const="-",
        type=_json_name,
        metavar="OUT.json",
        help="write a summary here, or print nothing else",
    )
    cli.add_workers(found)
    cli.add_device(found)
    cli.add_precision(found)
    return found


def _json_name(text: str) -> str:
    if text != "-" and not text.lower().endswith(".json"):  # else an image that follows would be taken for it
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .json: put --json behind the images")
    return text


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options. Raises UserError where they do not go together."""
    options = parser()
    args = options.parse_args(argv)
    if args.backbone is not None and args.model is not None:
        raise UserError("give either --backbone, a network of the paper, or --model, your own")
    if args.backbone is not None and args.weights is None:
        raise UserError("no --weights: give a checkpoint of that backbone; weights/README.md lists them")
    if args.model is None and (args.features is not None or args.size is not None):
        raise UserError("--features and --size belong to --model: any other network knows its own")
    if args.output is None:
        for name in OF_OUTPUT:
            if getattr(args, name) != options.get_default(name):
                raise UserError(f"--{name.replace('_', '-')} belongs to --output OUT.csv: give that too")
    if args.protocol == "released" and args.backbone is None:
        raise UserError("--protocol released is of the networks of the paper: give --backbone")
    if args.protocol == "tuned":
        given = {
            "--method": args.method not in (None, "none"),
            "--running-from": args.running_from is not None,
            "--guard": args.guard is not None,
        }
        for name in (name for name, holds in given.items() if holds):
            raise UserError(f"{name} is of the protocols that adapt to a batch: add --protocol paper")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; status 1 if an image has no score."""
    args = parse(argv)
    collection = collect(args.paths)
    from scripts.run.score_images import run

    return run(args, collection)


if __name__ == "__main__":
    raise SystemExit(main())
