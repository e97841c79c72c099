"""Scores of your own photographs, by a network as it is and as test-time adaptation makes it.

    python -m scripts.score_images photos/ --backbone metaiqa --weights weights/demo/metaiqa.safetensors --output scores.csv
    python -m scripts.score_images 'photos/**/*.jpg' --model package.module:function --features layer4 --output scores.csv

Larger = better. The CSV file is written batch by batch; after an interruption --resume goes on.
"""

import argparse
import csv
import glob
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from common.backbones import BACKBONES
from common.batches import Photograph, batch_order
from common.cell import Scores, Setting, summary
from common.cli import Parser, natural, positive
from common.device import choose, default_episodes, default_workers, environment, file_sha256
from common.errors import UserError, command
from common.images import SUFFIXES, size_of
from common.output import check_targets, write_csv, write_json
from common.protocols import METHODS, PAPER
from common.scoring import KEPT_ORDER, Movement, ScoredBatch, movement, score_batches
from common.views import View
from common.wrap import wrap
from common.y import YNetwork
from data.csv_folder import COLUMNS
from data.tables import number, read_columns
from scripts.reproduce_cell import table
from weights.loading import load_weights
from weights.manifest import located

SHOWN = ("rank+gc", "gc", "rank", "rotation", "none")
HEADER = ("image", "source_score", "adapted_score", "width", "height", "notes")


def parser() -> Parser:
    found = Parser(prog="python -m scripts.score_images", description=__doc__.split("\n\n")[0])
    found.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help=f"images, folders, patterns, or CSV files of {' and, optionally, '.join(COLUMNS)}",
    )
    found.add_argument("--output", type=Path, required=True, metavar="OUT.csv", help="one row per image")
    found.add_argument("--backbone", choices=BACKBONES, help="a network of the paper, with --weights")
    found.add_argument("--model", metavar="MODULE:FUNCTION", help="your own: a function that returns it, or a wrapped one")
    found.add_argument("--features", metavar="LAYER", help="of --model: dotted name of the module where the extractor ends")
    found.add_argument("--size", default=224, type=positive, metavar="S", help="of --model: side of its input; default: 224")
    found.add_argument("--weights", metavar="NAME|FILE", help="checkpoint: a file, or a name of weights/README.md")
    found.add_argument("--method", default="rank+gc", choices=SHOWN, help="default: rank+gc; none: the source alone")
    found.add_argument(
        "--running-from", choices=("all", "clean", "none"), help="passes that move the BN statistics; default: all"
    )
    found.add_argument(
        "--guard",
        nargs="?",
        type=float,
        const=KEPT_ORDER,
        metavar="SROCC",
        help="keep the source's scores of a batch where adaptation changes their order: where their SROCC with the adapted ones "
        f"is below this, {KEPT_ORDER} if no number is given",
    )
    found.add_argument("--batch-size", default=8, type=positive, metavar="N", help="images of an episode; default: 8")
    found.add_argument("--crops", default=1, type=positive, metavar="N", help="views of each image, whose scores are averaged")
    found.add_argument("--seed", default=0, type=natural, help="of batches, views and projection; default: 0")
    found.add_argument("--resume", action="store_true", help="go on with an output that was interrupted")
    found.add_argument("--top", type=positive, metavar="N", help="print the N best and the N worst")
    found.add_argument("--json", nargs="?", const="-", metavar="OUT.json", help="write a summary here, or print it")
    found.add_argument("--workers", type=natural, metavar="W", help="loader processes; by device if left out")
    found.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    return found


@dataclass(frozen=True)
class Image:
    """One to score. name: as the output calls it. key: its name below what was given, from which its randomness is derived."""

    name: str
    key: str
    path: Path
    mos: float = math.nan


def collect(paths: Sequence[str]) -> list[Image]:
    """The images that the paths mean, each once, in their order. Raises UserError where a path means nothing."""
    found: dict[Path, Image] = {}
    for given in paths:
        if os.path.exists(given):
            matched = [Path(given)]
        else:
            matched = [Path(path) for path in sorted(glob.glob(given, recursive=True))]
            if not matched:
                raise UserError(f"{given}: no such file or folder, and no file fits it as a pattern")
        for path in matched:
            for image in _in_folder(path) if path.is_dir() else _in_file(path):
                found.setdefault(image.path.resolve(), image)
    if not found:
        raise UserError(f"no image in {', '.join(paths)}: files of {', '.join(sorted(SUFFIXES))} are taken for one")
    return list(found.values())


def _in_folder(folder: Path) -> list[Image]:
    named = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    paths = sorted(path for path in named if not path.is_dir())
    return [Image(str(path), path.relative_to(folder).as_posix(), path) for path in paths]


def _in_file(path: Path) -> list[Image]:
    if path.suffix.lower() != ".csv":
        return [Image(str(path), path.name, path)]
    rows = read_columns(path, COLUMNS[:1], optional=COLUMNS[1:])
    scores = map(number, rows["MOS"]) if "MOS" in rows else [math.nan] * len(rows)
    return [Image(str(path.parent / name), name, path.parent / name, mos) for name, mos in zip(rows["image_name"], scores)]


def made(name: str) -> nn.Module:
    """What the function `package.module:function` returns."""
    module, _, function = name.partition(":")
    if not function:
        raise UserError(f"--model {name}: give it as package.module:function")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"--model {name}: {error}; is the folder of {module.partition('.')[0]} the current one?") from None
    if not callable(found):
        raise UserError(f"--model {name}: {function} is no function")
    network = found()
    if not isinstance(network, nn.Module):
        raise UserError(f"--model {name} returned a {type(network).__name__}: it must return a torch.nn.Module")
    return network


def network_of(args: argparse.Namespace, device: torch.device) -> tuple[YNetwork, Setting, Path | None]:
    """The network that was asked for, wrapped, on the device; how it adapts; and its checkpoint."""
    if (args.backbone is None) == (args.model is None):
        raise UserError("give either --backbone, a network of the paper, or --model, your own")
    weights = None if args.weights is None else located(args.weights)
    method = METHODS["source" if args.method == "none" else args.method]
    if args.backbone is not None:
        if weights is None:
            raise UserError("no --weights: give a checkpoint of that backbone; weights/README.md lists them")
        if args.features is not None:
            raise UserError("--features belongs to --model: a network of the paper knows its own")
        backbone = BACKBONES[args.backbone]
        protocol, network = backbone.protocols["paper"], backbone.network()
    else:
        protocol, network = replace(PAPER, view=View(size=args.size)), made(args.model)
    if args.running_from is not None:
        protocol = replace(protocol, running_from=args.running_from)
    if weights is not None:
        load_weights(network.network if isinstance(network, YNetwork) else network, weights)
    network.to(device, memory_format=torch.channels_last)
    if args.backbone is not None:
        y = backbone.wrap(network, protocol)
    elif isinstance(network, YNetwork):
        y = network
    elif args.features is None:
        parts = ", ".join(name for name, _ in network.named_children())
        raise UserError(f"no --features: name the module of {args.model} where the extractor ends; its parts are {parts}")
    else:
        y = wrap(network, args.features, size=args.size)
    return y, Setting(protocol, y.cut.settled(method)), weights


class Output:
    """The CSV file, whole rows at any time, and beside it OUT.csv.partial, from which a run goes on; that goes when all is done.

    config: what the scores depend on.
    """

    def __init__(self, path: Path, config: dict):
        self.path, self.config = path, config
        self.partial = path.with_name(f"{path.name}.partial")
        self.batches: dict[int, dict] = {}
        self.files: list[TextIO] = []

    def resume(self) -> None:
        """Take over what an interrupted run has scored. Raises UserError if that run was another one."""
        if not self.partial.exists():
            return
        lines = [line for line in self.partial.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        if not lines or json.loads(lines[0]) != self.config:
            raise UserError(f"{self.partial} is of a run on other images or settings: leave out --resume to start over")
        self.batches = {(batch := json.loads(line))["batch"]: batch for line in lines[1:]}

    def open(self) -> None:
        """Write what there is so far."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.files = [self.partial.open("w", encoding="utf-8"), self.path.open("w", encoding="utf-8", newline="")]
        self.files[0].write(json.dumps(self.config) + "\n")
        csv.writer(self.files[1], lineterminator="\n").writerow(HEADER)
        for batch in self.batches.values():
            self._write(batch)

    def add(self, scored: ScoredBatch, rows: dict[int, list]) -> None:
        """rows: by index of the image."""
        batch = {"batch": scored.number, "rows": list(rows.items()), "kept_order": scored.kept_order}
        self.batches[scored.number] = json.loads(json.dumps(batch))
        self._write(self.batches[scored.number])

    def _write(self, batch: dict) -> None:
        self.files[0].write(json.dumps(batch) + "\n")
        csv.writer(self.files[1], lineterminator="\n").writerows(row for _, row in batch["rows"])
        for file in self.files:
            file.flush()

    def rows(self) -> list[list]:
        """In the order of the images."""
        return [row for _, row in sorted((index, row) for batch in self.batches.values() for index, row in batch["rows"])]

    def close(self) -> None:
        for file in self.files:
            file.close()

    def complete(self) -> None:
        """All is scored: the rows get the order of the images."""
        self.close()
        write_csv(self.path, HEADER, self.rows())
        with suppress(FileNotFoundError):
            self.partial.unlink()


def row_of(image: Image, index: int, scored: ScoredBatch, view: View) -> list:
    if index in scored.faults:
        return [image.name, "", "", "", "", scored.faults[index].removeprefix(f"{image.path}: ")]
    width, height = size_of(image.path)
    small = view.crop != "whole" and min(width, height) < view.size
    notes = [*scored.notes, *(["smaller than the view, scaled up"] if small else [])]
    return [image.name, scored.source[index], scored.adapted[index], width, height, "; ".join(notes)]


def describe(found: Movement) -> list[str]:
    """What adaptation did, in sentences; a warning where it is likely to have done harm."""
    if found.moved is None:
        return []
    lines = [f"adaptation moved the scores by {found.moved:.2f} standard deviations of the source's, on average"]
    if found.episodes:
        lines[0] += f"; SROCC of a batch's scores before and after: {found.median_kept_order:.2f} (median)"
    if found.lost:
        lines.append(
            f"warning: in {found.lost} of {found.episodes} episodes adaptation lost the source's order (SROCC below "
            f"{found.threshold:g}), and may do harm: --guard keeps the source's scores there, or try --running-from clean"
        )
    return lines


def ends(images: Sequence[list], count: int) -> str:
    """The best and the worst, by their adapted scores."""
    ranked = sorted(images, key=lambda row: -row[2])
    parts = (("best", ranked[:count]), ("worst", ranked[::-1][:count]))
    return "\n".join(f"{name}:\n" + "\n".join(f"  {row[2]:10.4f}  {row[0]}" for row in rows) for name, rows in parts)


def against_mos(images: Sequence[Image], rows: Sequence[list], seed: int, seconds: float) -> dict | None:
    """What reproduce_cell says of a cell, where at least three images have a score and a MOS."""
    known = [(image, row) for image, row in zip(images, rows) if row[1] != "" and math.isfinite(image.mos)]
    if len(known) < 3:
        return None
    photographs = [Photograph(image.key, image.path, image.mos) for image, _ in known]
    scores = Scores.empty((seed,), len(known), 0)
    scores.source[0], scores.adapted[0] = np.array([row[1:3] for _, row in known], dtype=float).T
    scores.seconds = seconds
    return summary(scores, photographs)


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    images = collect(args.paths)
    json_file = None if args.json in (None, "-") else Path(args.json)
    lists = [Path(path) for path in args.paths if path.lower().endswith(".csv")]
    check_targets([args.output, json_file], [image.path for image in images] + lists)
    device = choose(args.device)
    y, setting, weights = network_of(args, device)
    photographs = [Photograph(image.key, image.path, image.mos) for image in images]
    config = {
        "images": [image.name for image in images],
        "network": args.backbone or f"{args.model}:{args.features}",
        "weights": None if weights is None else file_sha256(weights),
        **{name: getattr(args, name) for name in ("guard", "batch_size", "crops", "seed")},
        "method": asdict(setting.method),
        "protocol": asdict(setting.protocol),
    }
    config = json.loads(json.dumps(config))  # as it will be read again
    output = Output(args.output, config)
    if args.resume:
        output.resume()
    batches = list(enumerate(batch_order(photographs, args.seed, args.batch_size)))
    todo = [(n, indices) for n, indices in batches if n not in output.batches]
    started = time.perf_counter()
    output.open()
    try:
        with tqdm(total=len(images), initial=len(output.rows()), unit="image", disable=None) as bar:
            for scored in score_batches(
                y,
                photographs,
                setting,
                todo,
                seed=args.seed,
                crops=args.crops,
                guard=args.guard,
                at_once=default_episodes(device),
                workers=default_workers(device) if args.workers is None else args.workers,
            ):
                indices = sorted({*scored.source, *scored.faults})
                output.add(scored, {index: row_of(images[index], index, scored, setting.protocol.view) for index in indices})
                bar.update(len(indices))
    except KeyboardInterrupt:
        print(f"{len(output.rows())} of {len(images)} images are in {args.output}: --resume goes on", file=sys.stderr)
        raise
    finally:
        output.close()
    output.complete()
    seconds = time.perf_counter() - started
    rows = output.rows()
    scored_rows = [row for row in rows if row[1] != ""]
    kept = [value for batch in output.batches.values() for value in batch["kept_order"]]
    threshold = KEPT_ORDER if args.guard is None else args.guard
    moved = movement([row[1] for row in scored_rows], [row[2] for row in scored_rows], kept, threshold)
    agreement = against_mos(images, rows, args.seed, seconds)
    failed = len(rows) - len(scored_rows)
    result = {
        "config": config,
        "environment": environment(device),
        "images": len(rows),
        "scored": len(scored_rows),
        "movement": asdict(moved),
        "agreement": agreement,
    }
    if json_file is not None:
        write_json(json_file, result)
    if args.json == "-":
        print(json.dumps(result, indent=2))
        return 1 if failed else 0
    if args.top and scored_rows:
        print(ends(scored_rows, args.top))
    if agreement is not None:
        print(table(agreement))
    for line in describe(moved) if setting.method.adapts else ():
        print(line)
    done = sum(len(indices) for _, indices in todo)
    print(f"{len(scored_rows)} of {len(rows)} images scored, in {args.output}; {done / seconds:.2f} images/s")
    if failed:
        print(f"{failed} cannot be read; the column notes says why", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
