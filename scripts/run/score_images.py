"""What scripts.score_images does."""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from common.protocols import METHODS, PAPER, TUNED, Protocol, Setting, Tuned
from common.runs.guard import KEPT_ORDER, movement
from common.runs.journal import partial_of
from common.runs.plain import grid_score
from common.runs.scale import Scale
from common.system.device import choose, default_episodes, default_workers, environment
from common.system.errors import UserError
from common.system.output import check_targets, write_json
from common.system.precision import precision
from common.system.text import counted, printable
from common.views import View
from common.y import YNetwork
from data.collect import Collection
from data.label_files import read_columns
from weights.loading import load_weights, network_with
from weights.manifest import SourceFile, located
from weights.networks import BACKBONES
from weights.own_network import inner, made, wrapped
from weights.trained import SHIPPED, metadata_of, trained_source

if TYPE_CHECKING:  # imported where a file is written: it takes long, and plain scoring needs none of it
    from common.choice import Decision
    from common.runs.results import Summary
    from common.runs.scoring import Row

FORMAT = 2  # of the summary


class Network(NamedTuple):
    """The network that was asked for."""

    name: str
    ynet: YNetwork  # on the device
    protocol: Protocol  # its own
    scale: Scale  # of its scores

    def sentence(self, weights: SourceFile | None, shipped: bool) -> str:
        """Return what scores and on which scale, on one line."""
        file = "" if weights is None else f" with {weights.path.name}"
        return (
            f"{'no network was named: ' if shipped else ''}{self.name}{file}; "
            f"scores are {self.scale.title}, higher is better"
        )


def network_of(args: argparse.Namespace, weights: SourceFile | None, device: torch.device) -> Network:
    """Return the network that was asked for. Raises UserError where it cannot be made."""
    if args.backbone is None and args.model is None:
        assert weights is not None  # the one that ships, at least
        weights.verify()
        found = trained_source(weights.path, plain=args.output is None)
        return Network(found.name, found.ynet.to(device), found.protocol, found.scale)
    known = None if weights is None else Scale.from_metadata(metadata_of(weights.path))
    scale = known or Scale()
    if args.backbone is not None:
        assert weights is not None
        backbone = BACKBONES[args.backbone]
        protocol = backbone.protocols["released" if args.protocol == "released" else "paper"]
        network = network_with(args.backbone, weights, device)
        return Network(args.backbone, backbone.wrap(network, protocol), protocol, scale)
    protocol = replace(PAPER, view=View(size=args.size or View.size))
    network = made(args.model)
    if weights is not None:
        weights.verify()
        load_weights(inner(network), weights.path)
    ynet = wrapped(network.to(device), args.model, args.features, protocol.view.size)
    return Network(f"{args.model}:{args.features}" if args.features else args.model, ynet, protocol, scale)


def how_to_adapt(args: argparse.Namespace, network: Network) -> Setting | Tuned:
    """Return how the network adapts."""
    if args.protocol == "tuned" and args.method is None:
        return TUNED.on(network.protocol)
    protocol = network.protocol
    if args.running_from is not None:
        protocol = replace(protocol, running_from=args.running_from)
    method = METHODS["source" if args.method == "none" else args.method or "rank+gc"]
    return Setting(protocol, network.ynet.cut.with_default_adapt(method))


def ends(rows: "Sequence[Row]", count: int) -> str:
    """Return the best and the worst, by their adapted scores."""
    ranked = sorted(rows, key=lambda row: -row[2])
    parts = (("best", ranked[:count]), ("worst", ranked[::-1][:count]))
    return "\n".join(
        f"{name}:\n" + "\n".join(f"  {row[2]:10.4f}  {printable(row[0])}" for row in rows)
        for name, rows in parts
    )


def config_of(
    args: argparse.Namespace,
    names: Sequence[str],
    network: Network,
    weights: SourceFile | None,
    how: Setting | Tuned,
) -> dict[str, Any]:
    """Return what the scores depend on; names: of the images."""
    return {
        "images": list(names),
        "network": network.name,
        "weights": weights.sha256 if weights else None,
        **{name: getattr(args, name) for name in ("guard", "batch_size", "crops", "seed", "precision")},
        "method": asdict(how.method) if isinstance(how, Setting) else None,
        "protocol": asdict(how.protocol if isinstance(how, Setting) else how),
    }


def print_scores(args: argparse.Namespace, collection: Collection, network: Network) -> int:
    """Score by the source alone, and print; return the exit status."""
    results: list[dict[str, Any]] = []
    for name, photograph in zip(collection.names, collection.photographs):
        try:
            score = network.scale.score(grid_score(network.ynet, photograph.path, network.protocol.view))
        except UserError as error:
            print(f"no score: {error}", file=sys.stderr)
            results.append({"image": name, "score": None, "notes": str(error)})
            continue
        results.append({"image": name, "score": score, "notes": ""})
        if args.json != "-":
            print(f"{score:10.4f}  {printable(name)}")
    summary = {"format": FORMAT, "network": network.name, "scale": network.scale.title, "images": results}
    if args.json == "-":
        print(json.dumps(summary, indent=2))
    elif args.json is not None:
        write_json(Path(args.json), summary)
    return 0 if all(result["score"] is not None for result in results) else 1


def decision_to_json(decision: "Decision | None") -> dict[str, Any] | None:
    """Return a decision; None where none was made, and a reliability of None where it is not defined."""
    if decision is None:
        return None
    found = {name: value if math.isfinite(value) else None for name, value in decision.reliability.items()}
    return {"chosen": decision.chosen, "images": decision.images, "reliability": found}


def write_scores(
    args: argparse.Namespace,
    collection: Collection,
    network: Network,
    weights: SourceFile | None,
    device: torch.device,
) -> int:
    """Score into the output, and say what came out; return the exit status."""
    from tqdm import tqdm

    from common.runs.results import metrics_table
    from common.runs.scoring import Run, ScoreFile, against_mos

    names, photographs, _ = collection
    how = how_to_adapt(args, network)
    config = config_of(args, names, network, weights, how)
    output = ScoreFile(args.output, config)
    if args.resume:
        output.resume()
    run = Run(network.ynet, how, network.scale, args.seed, args.batch_size, args.crops, args.guard)
    before, started = len(output.rows), time.perf_counter()
    try:
        with tqdm(total=len(names), initial=before, unit="image", disable=None) as bar:
            decision = run.score(
                names,
                photographs,
                output,
                at_once=default_episodes(device),
                workers=default_workers(device) if args.workers is None else args.workers,
                progress=bar.update,
            )
    except KeyboardInterrupt:
        print(
            f"{len(output.rows)} of {len(names)} images are in {args.output}: --resume goes on",
            file=sys.stderr,
        )
        raise
    rows = output.rows
    rate = (len(rows) - before) / (time.perf_counter() - started)
    good = [row for row in rows if row[1] != ""]
    moved = movement(
        [row[1] for row in good],
        [row[2] for row in good],
        output.kept_orders,
        KEPT_ORDER if args.guard is None else args.guard,
    )
    agreement = against_mos(photographs, rows, args.seed)
    result = {
        "format": FORMAT,
        "config": config,
        "environment": environment(device),
        "scale": network.scale.title,
        "images": len(rows),
        "scored": len(good),
        "decision": decision_to_json(decision),
        "movement": asdict(moved),
        "agreement": agreement_to_json(agreement),
    }
    if args.json == "-":
        print(json.dumps(result, indent=2))
    elif args.json is not None:
        write_json(Path(args.json), result)
    if args.json != "-":
        if args.top and good:
            print(ends(good, args.top))
        if agreement is not None:
            print(metrics_table(agreement))
            print(f"against the MOS of {agreement.n_images} of {len(rows)} images")
        if decision is not None:
            print(decision.sentence())
        if adapts(how, decision) and (sentence := moved.sentence()):
            print(sentence)
        print(f"{len(good)} of {len(rows)} images scored, in {args.output}; {rate:.2f} images/s")
    if isinstance(how, Setting) and how.method.adapts and (warning := moved.warning(args.guard is not None)):
        print(warning, file=sys.stderr)
    if len(good) < len(rows):
        without = counted(len(rows) - len(good), "image")
        print(f"{without} without a score; the column notes says why", file=sys.stderr)
    return 0 if len(good) == len(rows) else 1


def adapts(how: Setting | Tuned, decision: "Decision | None") -> bool:
    """Return whether anything of the network changed."""
    if isinstance(how, Setting):
        return how.method.adapts
    return decision is not None and decision.adapted


def agreement_to_json(summary: "Summary | None") -> dict[str, Any] | None:
    """Return what the summary says of the MOS; None where too few images have one."""
    if summary is None:
        return None
    content = summary.to_json()
    return {name: content[name] for name in ("n_images", "source", "adapted", "srocc_gain")}


def is_complete(args: argparse.Namespace) -> bool:
    """Return whether the output is complete already, so that nothing is left for --resume.

    Raises UserError where it would be lost.
    """
    if not args.output.exists() or partial_of(args.output).exists() or args.overwrite:
        return False
    if args.resume:
        return True
    raise UserError(
        f"{args.output} is there and complete: --overwrite replaces it; --resume goes on with one that is not"
    )


def run(args: argparse.Namespace, collection: Collection) -> int:
    """Run the command; return its status, 1 if an image has no score."""
    shipped = args.weights is None and args.backbone is None and args.model is None
    weights = SourceFile(SHIPPED) if shipped else None if args.weights is None else located(args.weights)
    targets = [args.output, partial_of(args.output)] if args.output else []
    if args.json not in (None, "-"):
        targets.append(Path(args.json))
    read = [photograph.path for photograph in collection.photographs] + collection.label_files
    check_targets(targets, read + ([weights.path] if weights else []))
    if args.output and is_complete(args):
        print(f"{args.output} is complete; by which settings it does not say: --overwrite scores again")
        return 0 if read_columns(args.output, ("image", "source_score"))["source_score"].all() else 1
    device = choose(args.device)
    network = network_of(args, weights, device)
    print(network.sentence(weights, shipped), file=sys.stderr)
    for note in weights.notes() if weights else ():
        print(f"note: {note}", file=sys.stderr)
    with precision(args.precision, device):
        if args.output is None:
            return print_scores(args, collection, network)
        return write_scores(args, collection, network, weights, device)
