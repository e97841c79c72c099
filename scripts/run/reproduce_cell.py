"""What scripts.reproduce_cell does."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.protocols import ADAPTABLE, METHODS, Method, Protocol
from common.runs.cell import run_cells
from common.runs.folders import INDEX, Results, check_layout, write_index
from common.runs.grid import Cell, Entry, Target, paper_grid, place_of, published
from common.runs.results import CellResult, Summary, metrics_table, summarise, write_scores
from common.runs.store import Store
from common.system.device import choose, default_episodes, default_workers, environment
from common.system.errors import UserError
from common.system.output import check_targets, write_json
from common.system.precision import precision
from common.system.text import counted
from data import inputs
from data.catalogue import DATASETS, data_root, folder_of
from data.dataset import read_dataset
from weights.manifest import located, read_manifest
from weights.networks import BACKBONES, experiments


def settings(args: argparse.Namespace) -> tuple[Protocol, Method]:
    """Return the protocol and the method with the ablations that were asked for."""

    def given(*names: str) -> dict[str, Any]:
        return {name: getattr(args, name) for name in names if getattr(args, name) is not None}

    backbone = BACKBONES[args.backbone]
    method = replace(METHODS[args.method], **given("distortion", "p", "groups", "niter"))
    if args.adapt is not None:
        kinds = set(args.adapt.split("+"))  # in one order, so that a cell has one id; what is none comes last
        method = replace(
            method, adapt=(*(kind for kind in ADAPTABLE if kind in kinds), *sorted(kinds - {*ADAPTABLE}))
        )
    if method.groups * method.p > 1:
        raise UserError(
            f"{method.groups} groups of {method.p} of a batch do not fit into it: "
            "choose a smaller --p or fewer --groups"
        )
    protocol = replace(
        backbone.protocols[args.protocol],
        **given(
            "lr", "weight", "temperature", "group_form", "running_from", "answer_from", "leak_state", "cut"
        ),
    )
    if method.adapts and not method.takes_steps and protocol.running_from == "none":
        raise UserError(f"{method.name} moves nothing with --running-from none: choose another")
    if args.cut is None and {"ln", "cls"} & set(method.adapt or ()):
        protocol = replace(protocol, cut="transformer")
    return protocol, backbone.cut(protocol).with_default_adapt(method)


def place_in(args: argparse.Namespace, protocol: Protocol, method: Method) -> Entry:
    """Return the place of the paper's table that was asked for.

    Raises UserError if the table has none such, or more than one.
    """
    asked = (("--batch-size", args.batch_size == Cell.batch_size), ("--subset", args.subset is None))
    for option, usual in (*asked, ("--score-column", args.score_column is None)):
        if not usual:
            raise UserError(
                f"Table {args.table} is not of another {option}: leave it out, or leave out --table"
            )
    row = [
        entry
        for entry in paper_grid(experiments([args.backbone]), args.protocol, range(args.seeds))
        if (entry.place, entry.target.dataset) == (args.table, args.dataset)
    ]
    if not row:
        raise UserError(
            f"Table {args.table} has no cell of {args.backbone} on {args.dataset}: choose another"
        )
    weights = args.weights if args.weights in read_manifest() else None
    return place_of(row, protocol, method, args.cut, weights)


def beside(entry: Entry, weights: Path, summary: Summary) -> str:
    """Return published and measured values, as people read them."""
    rows = [
        f"Table {entry.place}, {entry.weights} on {entry.target}, {entry.setting}; measured with {weights}",
        f"{'':8s}  {'published':>10s}  {'measured':>15s}  {'difference':>10s}",
    ]
    for number in published():
        if number.key == entry.key:
            measured = summary.adapted[number.metric]
            difference = "" if measured.mean is None else f"{measured.mean - number.value:+.4f}"
            rows.append(
                f"{number.metric.upper():8s}  {number.value:10.4f}  {measured.text(4, '+-'):>15s}  "
                f"{difference:>10s}"
            )
    return "\n".join(rows)


def cell_of(args: argparse.Namespace) -> tuple[Cell, Entry | None]:
    """Return the cell that was asked for, and its place in --table, if that was given."""
    protocol, method = settings(args)
    if args.table is not None:
        place = place_in(args, protocol, method)
        return replace(place.cell, weights=args.weights or place.cell.weights), place
    if args.weights is None:
        raise UserError("no --weights: give a checkpoint, or the --table whose own it shall be")
    target = Target(args.dataset, args.subset)
    seeds = tuple(range(args.seeds))
    return Cell(args.backbone, args.weights, target, method, protocol, seeds, args.batch_size), None


def store_for(args: argparse.Namespace, cell: Cell) -> Store | None:
    """Return the folder of --results, None without one. Raises UserError where the cell is there."""
    if args.results is None:
        return None
    if args.score_column is not None:
        raise UserError("--results holds cells by the usual score of a data set: leave out --score-column")
    check_layout(args.results)
    store = Store(args.results)
    if store.done(cell):
        there = store.result(cell).parent
        raise UserError(f"{there} is there already: move it, or choose other --results")
    return store


def episodes_at_once(args: argparse.Namespace, cell: Cell, default: int) -> int:
    """Return how many episodes run at once. Raises UserError where that would change the result."""
    if not cell.setting.stateful:
        return args.episodes or default
    if (args.episodes or 1) > 1:
        option = "--leak-state" if cell.protocol.leak_state else f"--method {cell.method.name}"
        raise UserError(f"{option} passes state from one episode to the next: leave out --episodes")
    return 1


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    cell, place = cell_of(args)
    store = store_for(args, cell)
    root = data_root(args.data_root)
    folder = folder_of(DATASETS[args.dataset], root)
    weights = located(args.weights or cell.weights, args.weights_dir)
    index = args.results and args.results / INDEX
    check_targets([args.json, args.scores, index], [weights.path], [root, folder])
    device = choose(args.device)
    at_once = episodes_at_once(args, cell, default_episodes(device))
    reading = read_dataset(DATASETS[args.dataset], folder, args.subset, args.score_column, args.allow_missing)
    photographs = reading.photographs
    network = inputs.network(args.backbone, weights, device)
    print(
        f"{args.backbone}, {cell.method.name}, protocol {args.protocol}, "
        f"{counted(len(photographs), 'image')}, {counted(args.seeds, 'seed')}",
        flush=True,
    )
    print(
        f"{reading.dataset.title}, subset {reading.subset}, {reading.labels.column} "
        f"({reading.dataset.direction})",
        flush=True,
    )
    with precision(args.precision, device):
        (scores,) = run_cells(
            network.wrap,
            photographs,
            [cell.setting],
            seeds=cell.seeds,
            batch_size=cell.batch_size,
            at_once=at_once,
            workers=default_workers(device) if args.workers is None else args.workers,
        )
    result = CellResult(
        cell,
        summarise(scores, photographs),
        reading.record(),
        network.record,
        {**environment(device), "precision": args.precision},
        scores.seconds,
    )
    if args.json:
        write_json(args.json, result.to_json())
    if args.scores:
        write_scores(args.scores, scores, photographs)
    if store is not None:
        with store.held(wait=True):
            store.add(result, scores, photographs)
            held = Results.read(args.results)
            places = [place] if place is not None and place.cell == cell else []
            write_index(args.results, places, held.finished, held.failed)
    print(metrics_table(result.summary))
    if place is not None:
        print(beside(place, weights.path, result.summary))
    for note in (*reading.notes(), *scores.notes(), *weights.notes()):
        print(f"note: {note}")
    print(f"{scores.seconds:.1f} s, {result.images_per_second:.2f} images/s")
