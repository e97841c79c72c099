"""What scripts.train_source does."""

import argparse
import time
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
from common.system.checksums import file_sha256
from common.system.device import choose, default_workers, environment
from common.system.errors import UserError
from common.system.output import check_targets, whole_file
from common.system.text import counted
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


def run(args: argparse.Namespace, typed: str) -> None:
    """Run the command; typed: as somebody would type it again."""
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
        f"{name} {counted(p['images'], 'image')} of {counted(len(p['groups']), 'group')}"
        for name, p in parts.record().items()
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
        typed,
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
