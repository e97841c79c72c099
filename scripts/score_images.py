"""Scores of your own photographs, by a network as it is and as test-time adaptation makes it.

    python -m scripts.score_images photos/ --backbone metaiqa --weights weights/demo/metaiqa.safetensors --output scores.csv
    python -m scripts.score_images 'photos/**/*.jpg' --model package.module:function --features layer4 --output scores.csv

Larger = better. The CSV file is written batch by batch; after an interruption --resume goes on.
"""

import argparse
import csv
import glob
import importlib
import itertools
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from common.batches import batch_order
from common.photographs import DAMAGED, SUFFIXES, Photograph, size_of
from common.protocols import METHODS, PAPER, Protocol, Setting
from common.runs.cell import Scores, summary
from common.runs.scoring import KEPT_ORDER, Movement, ScoredBatch, movement, score_batches
from common.system.cli import Parser, finite, natural, positive
from common.system.device import choose, default_episodes, default_workers, environment
from common.system.errors import UserError, command, shown
from common.system.folders import files_below
from common.system.output import check_targets, whole_file, write_csv, write_json
from common.views import View
from common.wrap import wrap
from common.y import YNetwork
from data import inputs
from data.csv_folder import COLUMNS
from data.files import Files
from data.label_files import number, read_columns
from scripts.reproduce_cell import table
from weights.loading import load_weights
from weights.manifest import SourceFile, located
from weights.networks import BACKBONES

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
    found.add_argument(
        "--model", metavar="MODULE:FUNCTION", help="your own: a function that returns it, or a wrapped one"
    )
    found.add_argument(
        "--features", metavar="LAYER", help="of --model: dotted name of the module where the extractor ends"
    )
    found.add_argument(
        "--size", type=positive, metavar="S", help="of --model: side of its input; default: 224"
    )
    found.add_argument(
        "--weights", metavar="NAME|FILE", help="checkpoint: a file, or a name of weights/README.md"
    )
    found.add_argument(
        "--method", default="rank+gc", choices=SHOWN, help="default: rank+gc; none: the source alone"
    )
    found.add_argument(
        "--running-from",
        choices=("all", "clean", "none"),
        help="passes that move the BN statistics; default: all",
    )
    found.add_argument(
        "--guard",
        nargs="?",
        type=finite,
        const=KEPT_ORDER,
        metavar="SROCC",
        help="keep the source's scores of a batch where adaptation changes their order: where their SROCC with the adapted ones "
        f"is below this, {KEPT_ORDER} if no number is given",
    )
    found.add_argument(
        "--batch-size", default=8, type=positive, metavar="N", help="images of an episode; default: 8"
    )
    found.add_argument(
        "--crops",
        default=1,
        type=positive,
        metavar="N",
        help="views of each image, whose scores are averaged",
    )
    found.add_argument("--seed", default=0, type=natural, help="of batches, views and projection; default: 0")
    found.add_argument("--resume", action="store_true", help="go on with an output that was interrupted")
    found.add_argument("--top", type=positive, metavar="N", help="print the N best and the N worst")
    found.add_argument(
        "--json",
        nargs="?",
        const="-",
        type=_json_name,
        metavar="OUT.json",
        help="write a summary here, or print nothing else",
    )
    found.add_argument("--workers", type=natural, metavar="W", help="loader processes; by device if left out")
    found.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    return found


def _json_name(text: str) -> str:
    if text != "-" and not text.lower().endswith(".json"):  # else an image that follows would be taken for it
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .json: put --json behind the images")
    return text


@dataclass(frozen=True)
class Image:
    """One to score. name: as the output calls it. key: its name below what was given, from which its
    randomness is derived."""

    name: str
    key: str
    path: Path
    mos: float = math.nan


def collect(paths: Sequence[str]) -> tuple[list[Image], list[Path]]:
    """The images that the paths mean, each once, in their order; and the label files among the paths.

    Raises UserError where a path means nothing, or one image has two MOS.
    """
    found: dict[str, Image] = {}
    lists = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            images = _in_folder(path)
        elif not os.path.lexists(path):
            images = _fitting(given)
        elif path.suffix.lower() == ".csv":
            lists.append(path)
            images = _listed(path)
        else:
            images = [Image(given, path.name, path)]
        for image in images:
            real = os.path.realpath(image.path)
            known = found.setdefault(real, image)
            if math.isfinite(image.mos):
                if math.isfinite(known.mos) and known.mos != image.mos:
                    raise UserError(f"{image.name} has two MOS, {known.mos:g} and {image.mos:g}: keep one")
                found[real] = replace(known, mos=image.mos)
    if not found:
        raise UserError(
            f"no image in {', '.join(paths)}: files of {', '.join(sorted(SUFFIXES))} are taken for one"
        )
    return list(found.values()), lists


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and name[0] != "."


def _in_folder(folder: Path) -> list[Image]:
    found = sorted(path for path in files_below(folder) if _is_image(path.name))
    return [Image(str(path), path.relative_to(folder).as_posix(), path) for path in found]


def _fitting(pattern: str) -> list[Image]:
    """Images are named by what follows the part of the pattern that holds no wildcard, as if that were their
    folder."""
    paths = sorted(Path(path) for path in glob.glob(pattern, recursive=True))
    if not paths:
        raise UserError(f"{pattern}: no such file or folder, and no file fits it as a pattern")
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    images = [path for path in paths if _is_image(path.name) and not path.is_dir()]
    return [Image(str(path), path.relative_to(fixed).as_posix(), path) for path in images]


def _listed(file: Path) -> list[Image]:
    """Found as the data set `csv` finds them; a missing one will be a row with a reason."""
    rows = read_columns(file, COLUMNS[:1], optional=COLUMNS[1:])
    names = list(rows["image_name"])
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{file}: {shown(repeated)} named more than once: keep one row per image")
    given = list(rows["MOS"]) if "MOS" in rows else [""] * len(names)
    scores = [number(score) if score else math.nan for score in given]
    if wrong := [score for score, value in zip(given, scores) if score and not math.isfinite(value)]:
        raise UserError(f"{file}: MOS {shown(wrong)} is no finite number: mend it or leave it empty")
    files = Files.below(file)
    paths = files.locate(names, whole_path=True)
    return [
        Image(name, name, paths.get(name, files.root / name), score) for name, score in zip(names, scores)
    ]


def made(name: str) -> nn.Module:
    """What the function `package.module:function` returns."""
    module, _, function = name.partition(":")
    if not module or not function or module.startswith("."):
        raise UserError(f"--model {name}: give it as package.module:function")
    try:
        network = getattr(importlib.import_module(module), function)()
    except Exception as error:  # whatever a stranger's code may raise
        fault = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise UserError(
            f"--model {name}: {fault}; it must be a function without arguments that returns the network"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"--model {name} returned a {type(network).__name__}: it must return a torch.nn.Module"
        )
    return network


def network_of(
    args: argparse.Namespace, weights: SourceFile | None, device: torch.device
) -> tuple[YNetwork, Setting]:
    """The network that was asked for, wrapped, on the device; and how it adapts."""
    if (args.backbone is None) == (args.model is None):
        raise UserError("give either --backbone, a network of the paper, or --model, your own")
    method = METHODS["source" if args.method == "none" else args.method]
    protocol = PAPER if args.backbone is None else BACKBONES[args.backbone].protocols["paper"]
    if args.running_from is not None:
        protocol = replace(protocol, running_from=args.running_from)
    if args.backbone is None:
        protocol = replace(protocol, view=View(size=args.size or View.size))
        ynet = _own(args, weights, protocol, device)
    elif weights is None:
        raise UserError("no --weights: give a checkpoint of that backbone; weights/README.md lists them")
    elif args.features is not None or args.size is not None:
        raise UserError("--features and --size belong to --model: a network of the paper knows its own")
    else:
        ynet = inputs.network(args.backbone, weights, device).wrap(protocol)
    return ynet, Setting(protocol, ynet.cut.with_default_adapt(method))


def _own(
    args: argparse.Namespace, weights: SourceFile | None, protocol: Protocol, device: torch.device
) -> YNetwork:
    """The Y of --model."""
    network = made(args.model)
    wrapped = isinstance(network, YNetwork)
    if wrapped and args.features is not None:
        raise UserError(
            f"--model {args.model} is wrapped already, and its features are settled: leave out --features"
        )
    if not wrapped and args.features is None:
        parts = ", ".join(name for name, _ in network.named_children())
        raise UserError(
            f"no --features: name the module of {args.model} where the extractor ends; its parts are {parts}"
        )
    if weights is not None:
        weights.verify()
        load_weights(network.network if wrapped else network, weights.path)
    network.to(device, memory_format=torch.channels_last)
    return network if wrapped else wrap(network, args.features, size=protocol.view.size)


class Output:
    """The CSV file, whole rows at any time, and beside it OUT.csv.partial, from which a run goes on; that
    goes when all is done.

    config: what the scores depend on.
    """

    def __init__(self, path: Path, config: dict):
        self.path, self.config = path, config
        self.partial = path.with_name(f"{path.name}.partial")
        self.batches: dict[int, dict] = {}
        self.files: list[TextIO] = []

    def resume(self) -> None:
        """Take over what an interrupted run has scored. Raises UserError if that run was another one."""
        lines = []
        if self.partial.exists():
            lines = [
                line
                for line in self.partial.read_text(encoding="utf-8").splitlines(True)
                if line.endswith("\n")
            ]
        try:
            config, *batches = map(json.loads, lines or [json.dumps(self.config)])
            found = {batch["batch"]: batch for batch in batches}
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self.partial} is damaged: leave out --resume to start over") from None
        if config != self.config:
            raise UserError(
                f"{self.partial} is of a run on other images or settings: leave out --resume to start over"
            )
        self.batches = found

    def open(self) -> None:
        """Write what there is so far, and be ready for more."""
        with whole_file(self.partial) as file:
            file.writelines(json.dumps(line) + "\n" for line in (self.config, *self.batches.values()))
        write_csv(self.path, HEADER, (row for batch in self.batches.values() for _, row in batch["rows"]))
        self.files = [
            path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
            for path in (self.partial, self.path)
        ]

    def add(self, scored: ScoredBatch, rows: dict[int, list]) -> None:
        """rows: by index of the image."""
        batch = {"batch": scored.number, "rows": list(rows.items()), "kept_order": scored.kept_order}
        self.batches[scored.number] = batch
        self.files[0].write(json.dumps(batch) + "\n")
        csv.writer(self.files[1], lineterminator="\n").writerows(rows.values())
        for file in self.files:
            file.flush()

    def rows(self) -> list[list]:
        """In the order of the images."""
        return [
            row
            for _, row in sorted(
                (index, row) for batch in self.batches.values() for index, row in batch["rows"]
            )
        ]

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
    try:
        width, height = size_of(image.path)
    except DAMAGED:  # gone since it was scored
        return [image.name, scored.source[index], scored.adapted[index], "", "", "; ".join(scored.notes)]
    small = view.crop != "whole" and min(width, height) < view.size
    notes = [*scored.notes, *(["smaller than the view, scaled up"] if small else [])]
    return [image.name, scored.source[index], scored.adapted[index], width, height, "; ".join(notes)]


def describe(found: Movement, guarded: bool) -> tuple[str, str]:
    """What adaptation did, in a sentence; and a warning where it is likely to have done harm, or ''."""
    if found.moved is None:
        return "", ""
    said = f"adaptation moved the scores by {found.moved:.2f} standard deviations of the source's, on average"
    if found.median_kept_order is not None:
        said += f"; SROCC of a batch's scores before and after: {found.median_kept_order:.2f} (median)"
    if not found.lost:
        return said, ""
    lost = f"in {found.lost} of {found.episodes} episodes adaptation lost the source's order (SROCC below {found.threshold:g})"
    if guarded:
        return said, f"note: {lost}; the source's scores were kept there"
    return (
        said,
        f"warning: {lost}, and may do harm: --guard keeps the source's scores there, or try --running-from clean",
    )


def ends(rows: Sequence[list], count: int) -> str:
    """The best and the worst, by their adapted scores."""
    ranked = sorted(rows, key=lambda row: -row[2])
    parts = (("best", ranked[:count]), ("worst", ranked[::-1][:count]))
    return "\n".join(
        f"{name}:\n" + "\n".join(f"  {row[2]:10.4f}  {printable(row[0])}" for row in rows)
        for name, rows in parts
    )


def printable(name: str) -> str:
    """A file's name, which need not be UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def against_mos(images: Sequence[Image], rows: Sequence[list], seed: int) -> dict | None:
    """What reproduce_cell says of a cell, where at least three images have a score and a MOS."""
    known = [(image, row) for image, row in zip(images, rows) if row[1] != "" and math.isfinite(image.mos)]
    if len(known) < 3:
        return None
    photographs = [Photograph(image.key, image.path, image.mos) for image, _ in known]
    scores = Scores.empty((seed,), len(known), 0)
    scores.source[0], scores.adapted[0] = np.array([row[1:3] for _, row in known], dtype=float).T
    scores.seconds = 1.0  # which is not asked for here
    found = summary(scores, photographs)
    return {name: found[name] for name in ("n_images", "source", "adapted", "srocc_gain")}


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    images, lists = collect(args.paths)
    json_file = None if args.json in (None, "-") else Path(args.json)
    weights = None if args.weights is None else located(args.weights)
    targets = [args.output, args.output.with_name(f"{args.output.name}.partial"), json_file]
    check_targets(targets, [image.path for image in images] + lists + ([weights.path] if weights else []))
    if args.resume and args.output.exists() and not targets[1].exists():
        print(f"{args.output} is complete: leave out --resume to score again")
        return 0 if read_columns(args.output, HEADER)["source_score"].all() else 1
    device = choose(args.device)
    ynet, setting = network_of(args, weights, device)
    photographs = [Photograph(image.key, image.path, image.mos) for image in images]
    config = {
        "images": [image.name for image in images],
        "network": args.backbone or f"{args.model}:{args.features}",
        "weights": weights.sha256 if weights else None,
        **{name: getattr(args, name) for name in ("guard", "batch_size", "crops", "seed")},
        "method": asdict(setting.method),
        "protocol": asdict(setting.protocol),
    }
    config = json.loads(json.dumps(config))  # as it will be read again
    output = Output(args.output, config)
    if args.resume:
        output.resume()
    batches = enumerate(batch_order(photographs, args.seed, args.batch_size))
    todo = [(n, indices) for n, indices in batches if n not in output.batches]
    started = time.perf_counter()
    output.open()
    try:
        with tqdm(total=len(images), initial=len(output.rows()), unit="image", disable=None) as bar:
            for scored in score_batches(
                ynet,
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
                output.add(
                    scored,
                    {index: row_of(images[index], index, scored, setting.protocol.view) for index in indices},
                )
                bar.update(len(indices))
    except KeyboardInterrupt:
        print(
            f"{len(output.rows())} of {len(images)} images are in {args.output}: --resume goes on",
            file=sys.stderr,
        )
        raise
    finally:
        output.close()
    output.complete()
    seconds = time.perf_counter() - started
    rows = output.rows()
    good = [row for row in rows if row[1] != ""]
    kept = [value for batch in output.batches.values() for value in batch["kept_order"]]
    threshold = KEPT_ORDER if args.guard is None else args.guard
    moved = movement([row[1] for row in good], [row[2] for row in good], kept, threshold)
    said, warning = describe(moved, args.guard is not None) if setting.method.adapts else ("", "")
    agreement = against_mos(images, rows, args.seed)
    result = {
        "config": config,
        "environment": environment(device),
        "images": len(rows),
        "scored": len(good),
        "movement": asdict(moved),
        "agreement": agreement,
    }
    if json_file is not None:
        write_json(json_file, result)
    if args.json == "-":
        print(json.dumps(result, indent=2))
    else:
        if args.top and good:
            print(ends(good, args.top))
        if agreement is not None:
            print(table(agreement))
            print(f"against the MOS of {agreement['n_images']} of {len(rows)} images")
        if said:
            print(said)
        done = sum(len(indices) for _, indices in todo)
        print(f"{len(good)} of {len(rows)} images scored, in {args.output}; {done / seconds:.2f} images/s")
    if warning:
        print(warning, file=sys.stderr)
    if len(good) < len(rows):
        print(f"{len(rows) - len(good)} have no score; the column notes says why", file=sys.stderr)
    return 0 if len(good) == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
