"""Scores of your own photographs, by a network as it is and as test-time adaptation makes it.

    python -m scripts.score_images photos/ --output scores.csv --backbone metaiqa --weights FILE
    python -m scripts.score_images 'photos/**/*.jpg' --output scores.csv --model package.module:function \\
        --features layer4

Larger = better. The CSV file is written batch by batch; after an interruption --resume goes on.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from common.batches import batch_order
from common.protocols import METHODS, PAPER, Protocol, Setting
from common.runs.results import Summary, metrics_table
from common.runs.scoring import (
    HEADER,
    KEPT_ORDER,
    Movement,
    Row,
    ScoreFile,
    against_mos,
    movement,
    partial_of,
    row_of,
    score_batches,
)
from common.system import cli
from common.system.cli import Parser, finite, natural, positive
from common.system.device import choose, default_episodes, default_workers, environment
from common.system.errors import UserError, command
from common.system.output import check_targets, write_json
from common.views import View
from common.y import YNetwork
from data import inputs
from data.collect import Collection, collect
from data.csv_folder import COLUMNS
from data.label_files import read_columns
from weights.loading import load_weights
from weights.manifest import SourceFile, located
from weights.networks import BACKBONES
from weights.own_network import inner, made, wrapped

SHOWN = ("rank+gc", "gc", "rank", "rotation", "none")
FORMAT = 1  # of the summary


def parser() -> Parser:
    """Return the parser of the command."""
    found = Parser(prog="python -m scripts.score_images", description=__doc__.split("\n\n")[0])
    found.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help=f"images, folders, patterns, or CSV files of {' and, optionally, '.join(COLUMNS)}",
    )
    found.add_argument("--output", type=Path, required=True, metavar="OUT.csv", help="one row per image")
    found.add_argument("--backbone", choices=list(BACKBONES), help="a network of the paper, with --weights")
    cli.add_model(found)
    cli.add_weights(found)
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
        help="keep the source's scores of a batch where adaptation changes their order: where their SROCC "
        f"with the adapted ones is below this, {KEPT_ORDER} if no number is given",
    )
    cli.add_batch_size(found)
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
    cli.add_workers(found)
    cli.add_device(found)
    return found


def _json_name(text: str) -> str:
    if text != "-" and not text.lower().endswith(".json"):  # else an image that follows would be taken for it
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .json: put --json behind the images")
    return text


def network_of(
    args: argparse.Namespace, weights: SourceFile | None, device: torch.device
) -> tuple[YNetwork, Setting]:
    """Return the network that was asked for, wrapped, on the device; and how it adapts."""
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
    """Return the Y of --model."""
    network = made(args.model)
    if weights is not None:
        weights.verify()
        load_weights(inner(network), weights.path)
    return wrapped(network.to(device), args.model, args.features, protocol.view.size)


def describe(found: Movement, guarded: bool) -> tuple[str, str]:
    """Return what adaptation did, in a sentence; and a warning where it may well have done harm, or ""."""
    if found.moved is None:
        return "", ""
    moved = (
        f"adaptation moved the scores by {found.moved:.2f} standard deviations of the source's, on average"
    )
    if found.median_kept_order is not None:
        moved += f"; SROCC of a batch's scores before and after: {found.median_kept_order:.2f} (median)"
    if not found.lost:
        return moved, ""
    lost = (
        f"in {found.lost} of {found.episodes} episodes adaptation lost the source's order "
        f"(SROCC below {found.threshold:g})"
    )
    if guarded:
        return moved, f"note: {lost}; the source's scores were kept there"
    return (
        moved,
        f"warning: {lost}, and may do harm: --guard keeps the source's scores there, "
        "or try --running-from clean",
    )


def ends(rows: Sequence[Row], count: int) -> str:
    """Return the best and the worst, by their adapted scores."""
    ranked = sorted(rows, key=lambda row: -row[2])
    parts = (("best", ranked[:count]), ("worst", ranked[::-1][:count]))
    return "\n".join(
        f"{name}:\n" + "\n".join(f"  {row[2]:10.4f}  {printable(row[0])}" for row in rows)
        for name, rows in parts
    )


def printable(name: str) -> str:
    """Return a file's name, which need not be UTF-8, as text that can be printed."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def config_of(
    args: argparse.Namespace, names: Sequence[str], weights: SourceFile | None, setting: Setting
) -> dict[str, Any]:
    """Return what the scores depend on; names: of the images."""
    return {
        "images": list(names),
        "network": args.backbone or f"{args.model}:{args.features}",
        "weights": weights.sha256 if weights else None,
        **{name: getattr(args, name) for name in ("guard", "batch_size", "crops", "seed")},
        "method": asdict(setting.method),
        "protocol": asdict(setting.protocol),
    }


def score(
    args: argparse.Namespace,
    collection: Collection,
    output: ScoreFile,
    ynet: YNetwork,
    setting: Setting,
    device: torch.device,
) -> float:
    """Score what is left of the images into the output; return how many were scored in a second."""
    names, photographs, _ = collection
    batches = enumerate(batch_order(photographs, args.seed, args.batch_size))
    todo = [(number, indices) for number, indices in batches if number not in output.batches]
    started = time.perf_counter()
    bar = tqdm(total=len(names), initial=len(output.rows), unit="image", disable=None)
    try:
        with output.opened(), bar:
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
                rows = {
                    i: row_of(names[i], photographs[i], i, scored, setting.protocol.view) for i in indices
                }
                output.add(scored, rows)
                bar.update(len(indices))
    except KeyboardInterrupt:
        print(
            f"{len(output.rows)} of {len(names)} images are in {args.output}: --resume goes on",
            file=sys.stderr,
        )
        raise
    output.complete()
    return sum(len(indices) for _, indices in todo) / (time.perf_counter() - started)


def agreement_to_json(summary: Summary | None) -> dict[str, Any] | None:
    """Return what the summary says of the MOS; None where too few images have one."""
    if summary is None:
        return None
    content = summary.to_json()
    return {name: content[name] for name in ("n_images", "source", "adapted", "srocc_gain")}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; status 1 if an image has no score."""
    args = parser().parse_args(argv)
    collection = collect(args.paths)
    json_file = None if args.json in (None, "-") else Path(args.json)
    weights = None if args.weights is None else located(args.weights)
    partial = partial_of(args.output)
    read = [photograph.path for photograph in collection.photographs] + collection.label_files
    check_targets([args.output, partial, json_file], read + ([weights.path] if weights else []))
    if args.resume and args.output.exists() and not partial.exists():
        print(f"{args.output} is complete: leave out --resume to score again")
        return 0 if read_columns(args.output, HEADER)["source_score"].all() else 1
    device = choose(args.device)
    ynet, setting = network_of(args, weights, device)
    config = config_of(args, collection.names, weights, setting)
    output = ScoreFile(args.output, config)
    if args.resume:
        output.resume()
    rate = score(args, collection, output, ynet, setting, device)
    rows = output.rows
    good = [row for row in rows if row[1] != ""]
    threshold = KEPT_ORDER if args.guard is None else args.guard
    moved = movement([row[1] for row in good], [row[2] for row in good], output.kept_orders, threshold)
    sentence, warning = describe(moved, args.guard is not None) if setting.method.adapts else ("", "")
    agreement = against_mos(collection.photographs, rows, args.seed)
    result = {
        "format": FORMAT,
        "config": config,
        "environment": environment(device),
        "images": len(rows),
        "scored": len(good),
        "movement": asdict(moved),
        "agreement": agreement_to_json(agreement),
    }
    if json_file is not None:
        write_json(json_file, result)
    if args.json == "-":
        print(json.dumps(result, indent=2))
    else:
        if args.top and good:
            print(ends(good, args.top))
        if agreement is not None:
            print(metrics_table(agreement))
            print(f"against the MOS of {agreement.n_images} of {len(rows)} images")
        if sentence:
            print(sentence)
        print(f"{len(good)} of {len(rows)} images scored, in {args.output}; {rate:.2f} images/s")
    if warning:
        print(warning, file=sys.stderr)
    if len(good) < len(rows):
        print(f"{len(rows) - len(good)} have no score; the column notes says why", file=sys.stderr)
    return 0 if len(good) == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
