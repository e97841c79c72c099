"""Train a source network on human scores, from scratch or from ImageNet weights that are on this machine.

python -m scripts.train_source --backbone metaiqa --dataset koniq10k --data-root DIR --output F
python -m scripts.train_source --model timm:resnet18 --features layer4 --dataset csv --output F
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from common.protocols import METHODS, PAPER, Protocol, Setting
from common.runs.cell import run_cells
from common.runs.model_card import ModelCard
from common.runs.results import summarise
from common.runs.training import Recipe, Teacher, Trainer, check_size, disjoint, load_state, save_state
from common.system import cli
from common.system.cli import Parser, above_zero, natural, positive
from common.system.device import choose, default_workers, environment, file_sha256
from common.system.errors import UserError, command
from common.system.output import check_targets, whole_file
from common.views import View
from common.y import YNetwork
from data.catalogue import DATASETS, data_root, folder_of
from data.dataset import read_dataset
from weights.initial import drawn, initial_network, initialise
from weights.loading import load_weights, save_weights
from weights.networks import BACKBONES
from weights.own_network import made, wrapped
from weights.trained import trained_source

HELD_OUT_SEEDS = range(5)


def parser() -> Parser:
    found = Parser(prog="python -m scripts.train_source", description=__doc__.split("\n\n")[0])
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
    found.add_argument("--epochs", default=20, type=positive, help="default: 20")
    found.add_argument(
        "--crops", default=1, type=positive, help="random views of every image in an epoch; default: 1"
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
    found.add_argument("--batch-size", default=32, type=positive, help="default: 32")
    found.add_argument(
        "--view-size",
        type=positive,
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


class Start(NamedTuple):
    """The network before its training."""

    name: str  # of the network
    features: str | None  # where its extractor ends; None for one of the paper
    ynet: YNetwork
    init: str  # what it starts from, in words
    protocol: Protocol  # of the test
    output: tuple[float, float]  # what a mean score should come out as, and one deviation above it, less that


def start_of(args: argparse.Namespace) -> Start:
    """Return the network that was asked for. Raises UserError where it cannot be made."""
    if (args.backbone is None) == (args.model is None):
        raise UserError("give either --backbone, a network of the paper, or --model, your own")
    if args.model is not None:
        view = View(size=args.size or View.size)
        network = drawn(partial(made, args.model), args.seed)
        init = initialise(network, args.init)
        ynet = wrapped(network, args.model, args.features, view.size)
        return Start(args.model, args.features, ynet, init, replace(PAPER, view=view), (0.0, 1.0))
    if args.features is not None or args.size is not None:
        raise UserError("--features and --size belong to --model: a network of the paper knows its own")
    backbone = BACKBONES[args.backbone]
    network, init = initial_network(backbone, args.init, args.seed)
    protocol = backbone.protocols["paper"]
    return Start(args.backbone, None, backbone.wrap(network, protocol), init, protocol, backbone.output)


def recipe_of(args: argparse.Namespace, start: Start) -> Recipe:
    """Return the recipe that was asked for.

    Training views are as those of the test, of another size if asked.
    """
    view = start.protocol.view
    rate = args.lr or (1e-3 if start.init == "random weights" else 1e-4)
    meta = args.recipe == "meta"
    small, small_epochs = args.small_views or (0, 0)
    return Recipe(
        seed=args.seed,
        epochs=args.epochs,
        crops=args.crops,
        batch_size=args.batch_size,
        view=replace(view, size=args.view_size or view.size),
        small_epochs=small_epochs,
        small=small,
        distil_epochs=args.distil_epochs,
        lr=1.0 if meta else rate,  # the whole way to where the inner steps lead
        amp=args.amp,
        meta=meta,
        inner_lr=rate,
    )


def teacher_of(args: argparse.Namespace, device: torch.device) -> Teacher | None:
    """Return the teacher that was asked for, on the device."""
    if args.teacher is None:
        if args.distil_epochs:
            raise UserError("--distil-epochs learn a teacher's features: give --teacher")
        return None
    if args.recipe == "meta":
        raise UserError("--recipe meta has no teacher: leave one of them out")
    found = trained_source(args.teacher)
    return Teacher(found.ynet.to(device), found.output)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    output: Path = args.output
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: name a file that ends in .safetensors")
    state_file, card_file = output.with_suffix(".resume.pth"), output.with_suffix(".md")
    root = data_root(args.data_root)
    folder = folder_of(DATASETS[args.dataset], root)
    check_targets([output, state_file, card_file], [], [root, folder])
    device = choose(args.device)
    if args.amp and device.type == "mps":
        raise UserError("--amp is for CUDA and CPUs: leave it out")
    workers = default_workers(device) if args.workers is None else args.workers
    reading = read_dataset(DATASETS[args.dataset], folder, args.subset, args.score_column, args.allow_missing)
    parts = disjoint(reading.photographs, args.seed)
    source = start_of(args)
    recipe = recipe_of(args, source)
    for size in {recipe.view.size, recipe.small or recipe.view.size}:
        check_size(source.ynet.network, size)
    teacher = teacher_of(args, device)
    ynet = source.ynet.to(device).to(memory_format=torch.channels_last)
    config = {
        "backbone": source.name,
        "features": source.features,
        "teacher": teacher and {"file": args.teacher.name, "sha256": file_sha256(args.teacher)},
        "data": reading.record(),
        "init": source.init,
        "half": args.half,
        "recipe": asdict(recipe),
        "split": parts.record(),
    }
    sizes = [
        f"{name} {p['images']} images of {len(p['groups'])} groups" for name, p in parts.record().items()
    ]
    print(f"{source.name} from {source.init}, {reading.dataset.title}: {', '.join(sizes)}", flush=True)
    start, earlier = (load_state(state_file, config) if args.resume else None) or (None, 0.0)
    begun = time.perf_counter()
    with tqdm(unit="batch", smoothing=0.1, disable=None) as bar:
        trainer = Trainer(
            ynet,
            parts,
            recipe,
            output=source.output,
            test_view=source.protocol.view,
            teacher=teacher,
            workers=workers,
            bar=bar.update,
        )
        bar.reset(total=trainer.steps)
        bar.update(start.epoch * trainer.per_epoch if start else 0)
        scale = replace(trainer.scale, title=reading.scale)
        metadata = {
            "backbone": source.name,
            **({"features": source.features} if source.features else {}),
            **scale.metadata(),
        }
        state = start
        for state in trainer.epochs(start):
            if state.improved:
                save_weights(output, state.network, metadata, half=args.half)
            bar.write(_line(state.history[-1], recipe.epochs))
            save_state(state_file, config, state, earlier + time.perf_counter() - begun)
    assert state is not None  # there is at least one epoch, now or earlier
    load_weights(ynet.network, output)
    ynet.network.eval()
    (scores,) = run_cells(
        ynet,
        parts.test,
        [Setting(source.protocol, METHODS["source"])],
        seeds=HELD_OUT_SEEDS,
        workers=workers,
    )
    card = ModelCard(
        output.name,
        cli.as_typed("python -m scripts.train_source", argv),
        config,
        summarise(scores, parts.test),
        scale,
        state.history,
        earlier + time.perf_counter() - begun,
        environment(device),
    ).markdown()
    with whole_file(card_file) as file:
        file.write(card)
    state_file.unlink()
    print(card)
    for note in reading.notes():
        print(f"note: {note}")


def _line(row: dict[str, float | None], epochs: int) -> str:
    srocc = row["validation_srocc"]
    return f"epoch {row['epoch']}/{epochs}  loss {row['loss']:.4f}  validation SROCC " + (
        "undefined" if srocc is None else f"{srocc:.4f}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
