"""Train a source network on human scores, from scratch or from ImageNet weights that are already on this
machine.

python -m scripts.train_source --backbone metaiqa --dataset koniq10k --data-root DIR --output
source.safetensors
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn
from tqdm import tqdm

from common.protocols import METHODS, Setting
from common.runs.cell import run_cells, summary, with_std
from common.runs.training import Parts, Recipe, Trainer, TrainingState, disjoint
from common.system.cli import Parser, above_zero, natural, positive
from common.system.device import choose, default_workers, environment
from common.system.errors import UserError, command
from common.system.output import check_targets, whole_file, whole_path
from common.system.seeds import digest
from common.y import Backbone
from data.catalogue import DATASETS, data_root, folder_of
from data.dataset import read
from weights.loading import fill, load_weights, read_state_dict
from weights.manifest import located
from weights.networks import BACKBONES

HELD_OUT_SEEDS = range(5)


def parser() -> Parser:
    found = Parser(prog="python -m scripts.train_source", description=__doc__.split("\n\n")[0])
    found.add_argument("--backbone", required=True, choices=BACKBONES)
    found.add_argument("--dataset", default="csv", choices=DATASETS, help="default: csv")
    found.add_argument(
        "--data-root",
        type=Path,
        help="folder of the data sets or of this one; default: $IQA_DATA_ROOT, data/raw",
    )
    found.add_argument("--subset", help="part of the data set; data/README.md lists them and the default")
    found.add_argument("--score-column", help="where a data set has several")
    found.add_argument("--allow-missing", action="store_true", help="go without images that are not there")
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
        help="auto (default): ImageNet weights if torch.hub has them here, else scratch; or a checkpoint, or a ResNet's weights",
    )
    found.add_argument(
        "--recipe", default="plain", choices=("plain", "meta"), help="meta: over distortion types, as MetaIQA"
    )
    found.add_argument("--epochs", default=20, type=positive, help="default: 20")
    found.add_argument(
        "--crops", default=1, type=positive, help="random views of every image in an epoch; default: 1"
    )
    found.add_argument("--batch-size", default=32, type=positive, help="default: 32")
    found.add_argument(
        "--view-size", type=positive, help="pixels of training views, if the network takes others than 224"
    )
    found.add_argument(
        "--lr", type=above_zero, help="peak learning rate; default: 1e-3 from scratch, else 1e-4"
    )
    found.add_argument(
        "--seed", default=0, type=natural, help="of split, initial weights and all that is random; default: 0"
    )
    found.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    found.add_argument("--workers", type=natural, metavar="W", help="loader processes; by device if left out")
    found.add_argument("--amp", action="store_true", help="bfloat16 where it is safe; on CUDA")
    found.add_argument("--half", action="store_true", help="store the weights in half precision")
    found.add_argument(
        "--resume", action="store_true", help="go on where an interrupted run of the same command stopped"
    )
    return found


def initial(backbone: Backbone, init: str, seed: int) -> tuple[nn.Module, str]:
    """A network to train, and what it starts from, in words."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest(seed, "initial weights")[:7], "big"))
        network = backbone.network()
    if init == "scratch":
        return network, "random weights"
    trunk = getattr(network, backbone.trunk)
    if init == "auto":
        found = sorted((Path(torch.hub.get_dir()) / "checkpoints").glob(f"{backbone.imagenet}-*.pth"))
        if not found:
            return network, "random weights"
        path = found[-1]
    else:
        source = located(init)
        source.verify()
        path = source.path
    state = read_state_dict(path)
    if (
        "conv1.weight" in state and "layer4.0.conv1.weight" in state
    ):  # a ResNet: whatever else this trunk holds stays as drawn
        own = trunk.state_dict()
        fill(trunk, {key: state.get(key, value) for key, value in own.items()}, path)
    else:
        fill(network, backbone.rename(state), path)
    return network, path.name


def recipe_of(args: argparse.Namespace, backbone: Backbone, scratch: bool) -> Recipe:
    """The recipe that was asked for. Training views are as those of the test, of another size if asked."""
    view = backbone.protocols["paper"].view
    rate = args.lr or (1e-3 if scratch else 1e-4)
    meta = args.recipe == "meta"
    return Recipe(
        seed=args.seed,
        epochs=args.epochs,
        crops=args.crops,
        batch_size=args.batch_size,
        view=replace(view, size=args.view_size or view.size),
        lr=1.0 if meta else rate,  # the whole way to where the inner steps lead
        amp=args.amp,
        meta=meta,
        inner_lr=rate,
    )


def store(path: Path, network: dict[str, torch.Tensor], half: bool, metadata: dict[str, str]) -> None:
    """Weights as safetensors, at once or not at all."""
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in network.items()
    }
    with whole_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def recall(path: Path, config: dict) -> tuple[TrainingState, float] | None:
    """Where an interrupted run of this very configuration stopped, and the seconds it took; None if there was
    none."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found, seconds = TrainingState(**state["progress"]), state["seconds"]
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: cannot be read; remove it to start again") from None
    if state["config"] != config:
        differing = sorted(name for name in config if state["config"].get(name) != config[name])
        raise UserError(
            f"{path} is of a run with another {', '.join(differing)}: repeat its command, or leave out --resume"
        )
    return found, seconds


def card(result: dict) -> str:
    """The model card, as Markdown."""
    config, split, held_out = result["config"], result["split"], result["held_out"]

    rows = [f"| {part} | {split[part]['images']} | {', '.join(split[part]['groups'])} |" for part in split]
    best = max(
        result["history"], key=lambda row: -2 if row["validation_srocc"] is None else row["validation_srocc"]
    )
    return "\n".join(
        [
            f"# {result['file']}",
            "",
            f"{config['backbone']}, trained on {config['data']['dataset']} ({config['data']['score_column']}, "
            f"{config['data']['direction']}) by",
            "",
            f"    {result['command']}",
            "",
            f"On held-out groups: SROCC {with_std(held_out['source']['srocc'], 4)}, "
            f"PLCC {with_std(held_out['source']['plcc'], 4)} (mean and standard deviation over "
            f"{len(HELD_OUT_SEEDS)} seeds of the view, {held_out['n_images']} images, weights as stored).",
            "",
            f"score = {result['scale']['mean']:.6g} + {result['scale']['scale']:.6g} x output of the network.",
            "",
            "| part | images | groups |",
            "|---|---|---|",
            *rows,
            "",
            f"- Seed {config['recipe']['seed']}; started from {config['init']}; best of {len(result['history'])} epochs by "
            f"validation SROCC: {best['epoch']} ({best['validation_srocc']:.4f})",
            f"- {result['seconds'] / 60:.1f} minutes on {result['environment']['device']} "
            f"({result['environment']['threads']} threads), torch {result['environment']['torch']}",
            f"- Recipe: {', '.join(f'{name} {value}' for name, value in config['recipe'].items() if name != 'view')}, "
            f"views {config['recipe']['view']['size']} x {config['recipe']['view']['size']}",
            f"- Code: {result['environment'].get('commit', 'unknown')}",
            "",
        ]
    )


def part_record(parts: Parts) -> dict:
    return {
        name: {"images": len(part), "groups": sorted({photograph.group for photograph in part})}
        for name, part in parts._asdict().items()
    }


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
    if args.amp and device.type != "cuda":
        raise UserError("--amp is for CUDA: leave it out")
    workers = default_workers(device) if args.workers is None else args.workers
    reading = read(DATASETS[args.dataset], folder, args.subset, args.score_column, args.allow_missing)
    parts = disjoint(reading.photographs, args.seed)
    backbone = BACKBONES[args.backbone]
    network, init = initial(backbone, args.init, args.seed)
    recipe = recipe_of(args, backbone, scratch=init == "random weights")
    check_size(network, recipe.view.size)
    protocol = backbone.protocols["paper"]
    ynet = backbone.wrap(network, protocol).to(device).to(memory_format=torch.channels_last)
    config = {
        "backbone": args.backbone,
        "data": reading.record(),
        "init": init,
        "half": args.half,
        "recipe": asdict(recipe),
        "split": part_record(parts),
    }
    print(f"{args.backbone} from {init}, {reading.dataset.title}: " + ", ".join(
        f"{name} {part['images']} images of {len(part['groups'])} groups" for name, part in config["split"].items()
    ), flush=True)  # fmt: skip
    start, earlier = (recall(state_file, config) if args.resume else None) or (None, 0.0)
    begun = time.perf_counter()
    with tqdm(unit="batch", smoothing=0.1, disable=None) as bar:
        trainer = Trainer(ynet, parts, recipe, output=backbone.output, test_view=protocol.view, resize=reading.dataset.resize,
                          workers=workers, bar=bar.update)  # fmt: skip
        bar.reset(total=trainer.steps)
        bar.update(start.epoch * trainer.per_epoch if start else 0)
        metadata = {
            "backbone": args.backbone,
            "score_mean": repr(trainer.scale.mean),
            "score_scale": repr(trainer.scale.scale),
        }
        best = start.best if start else float("-inf")
        history = start.history if start else []
        for progress in trainer.epochs(start):
            if progress.best > best or progress.epoch == 1:
                best = progress.best
                store(output, progress.network, args.half, metadata)
            history = progress.history
            bar.write(_line(history[-1], recipe.epochs))
            with whole_path(state_file) as temporary:
                spent = earlier + time.perf_counter() - begun
                torch.save({"config": config, "progress": vars(progress), "seconds": spent}, temporary)
    load_weights(ynet.network, output)
    ynet.network.eval()
    source = Setting(protocol, METHODS["source"])
    (scores,) = run_cells(
        ynet, parts.test, [source], seeds=HELD_OUT_SEEDS, workers=workers, resize=reading.dataset.resize
    )
    held_out = summary(scores, parts.test)
    result = {
        "file": output.name,
        "command": f"python -m scripts.train_source {shlex.join(argv if argv is not None else _typed())}",
        "config": config,
        "split": config["split"],
        "held_out": held_out,
        "scale": asdict(trainer.scale),
        "history": history,
        "seconds": earlier + time.perf_counter() - begun,
        "environment": environment(device),
    }
    with whole_file(card_file) as file:
        file.write(card(result))
    state_file.unlink()
    print(card(result))
    for note in reading.notes():
        print(f"note: {note}")


def check_size(network: nn.Module, size: int) -> None:
    """Raise UserError where the network cannot take images of this size."""
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, 3, size, size))
    except (RuntimeError, ValueError):
        raise UserError(
            f"this network does not take images of {size} x {size}: leave out --view-size"
        ) from None


def _line(row: dict[str, float | None], epochs: int) -> str:
    srocc = row["validation_srocc"]
    return f"epoch {row['epoch']}/{epochs}  loss {row['loss']:.4f}  validation SROCC " + (
        "undefined" if srocc is None else f"{srocc:.4f}"
    )


def _typed() -> list[str]:
    return sys.argv[1:]


if __name__ == "__main__":
    raise SystemExit(main())
