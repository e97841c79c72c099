"""A list of experiments as a command: `main(argv, prog, experiments, inputs)`; see tres/all_expt.py."""

import argparse
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common.protocols import METHODS
from common.runs.cell import Plan
from common.runs.folders import INDEX, LOGS, Results, check_layout, write_index
from common.runs.grid import (
    EXTRA_PLACE,
    PAPER_PLACES,
    SIMILAR_DMOS,
    Cell,
    Entry,
    Experiment,
    Target,
    paper_grid,
    place_name,
)
from common.runs.pool import run
from common.runs.progress import Progress
from common.runs.sweep import Job, LoadedNetwork, Store, TargetImages, Worker, jobs
from common.system import cli
from common.system.cli import Parser, as_typed
from common.system.device import choose, default_workers, environment
from common.system.errors import UserError, command
from common.system.output import check_targets
from common.y import Backbone

DESCRIPTION = """The paper's tables and figures: every cell of them, or some, into one folder; what is there
already is not repeated."""
Experiments = Mapping[str, tuple[Backbone, Sequence[Experiment]]]  # of each network, by its name


@dataclass(frozen=True)
class Inputs:
    """What a sweep asks of the folders of data and checkpoints; data/inputs.py has it."""

    datasets: Sequence[str]  # names of the data sets that an experiment may adapt to
    data_root: Callable[[Path | None], Path]  # the folder of the data sets, given that of the command line
    images: Callable[[Target, int | None, Path, bool], TargetImages]  # of target, limit, root, allow_missing
    published_size: Callable[[Target], int]  # number of images, by those who published the data set
    checkpoint: Callable[[str, Path | None], Any]  # a checkpoint, by name, in a folder
    network: Callable[[str, Any, torch.device], LoadedNetwork]  # of (backbone, checkpoint, device)
    cpu_seconds: Mapping[str, float]  # of a forward pass of one image, by backbone


def parser(prog: str, backbones: Sequence[str], datasets: Sequence[str]) -> Parser:
    """Return the parser of the command; backbones: those that may be asked for."""
    places = (*PAPER_PLACES, EXTRA_PLACE)
    low, high = SIMILAR_DMOS
    found = Parser(prog=prog, description=DESCRIPTION)
    found.add_argument(
        "--tables",
        nargs="+",
        choices=places,
        default=PAPER_PLACES,
        metavar="N",
        help=f"of {' '.join(places)}; default: all but {EXTRA_PLACE}",
    )
    found.add_argument(
        "--backbones", nargs="+", choices=backbones, default=backbones, help=f"default: {' '.join(backbones)}"
    )
    found.add_argument(
        "--datasets", nargs="+", choices=datasets, metavar="NAME", help="default: all that the tables name"
    )
    found.add_argument("--methods", nargs="+", choices=METHODS, help="default: all that the tables name")
    cli.add_seeds(found)
    cli.add_protocol(found)
    found.add_argument(
        "--limit-images",
        type=cli.positive,
        metavar="N",
        help="only N images of each data set, always the same",
    )
    found.add_argument(
        "--similar-dmos",
        nargs=2,
        type=cli.finite,
        default=SIMILAR_DMOS,
        metavar=("LOW", "HIGH"),
        help=f"bounds of Figure 4; default: {low:g} {high:g}",
    )
    found.add_argument(
        "--device", default="auto", help="auto (default), cpu, cuda, or several: cuda:0,cuda:1"
    )
    cli.add_workers(found)
    cli.add_data_root(found)
    cli.add_allow_missing(found)
    cli.add_weights_dir(found)
    found.add_argument("--results", type=Path, default=Path("results/paper"), help="default: results/paper")
    found.add_argument(
        "--dry-run", action="store_true", help="say what would be done, what is missing and what it costs"
    )
    found.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    return found


def wanted(args: argparse.Namespace, experiments: Experiments) -> list[Entry]:
    """Return the places that were asked for, each with its cell."""
    asked = {name: experiments[name] for name in args.backbones}
    found = [
        entry
        for entry in paper_grid(asked, args.protocol, range(args.seeds), args.limit_images, args.similar_dmos)
        if entry.place in args.tables
        and (args.datasets is None or entry.target.dataset in args.datasets)
        and (args.methods is None or entry.cell.method.name in args.methods)
    ]
    if not found:
        raise UserError(
            "no cell of the paper is all of that: widen --tables, --backbones, --datasets or --methods"
        )
    return found


@dataclass(frozen=True)
class Survey:
    """What a sweep needs, as far as this machine has it."""

    inputs: Inputs
    targets: dict[tuple[Target, int | None], TargetImages]  # by target and limit
    sources: dict[str, Any]  # checkpoints by name
    missing: dict[str | tuple[Target, int | None], str]  # why a checkpoint (by name) or target cannot be had

    def reason(self, cell: Cell) -> str | None:
        """Return why a cell cannot be run, or None if it can."""
        return self.missing.get(cell.weights) or self.missing.get((cell.target, cell.limit))

    def size(self, cell: Cell) -> int:
        """Return the number of images, as published where they are not here."""
        if (cell.target, cell.limit) in self.targets:
            return len(self.targets[cell.target, cell.limit].photographs)
        whole = self.inputs.published_size(cell.target)
        return min(whole, cell.limit or whole)

    def seconds(self, job: Job) -> float:
        """Return what a job takes on a CPU."""
        first = job.cells[0]
        return self.size(first) * job.forwards * self.inputs.cpu_seconds[first.backbone]


def survey(cells: Iterable[Cell], inputs: Inputs, args: argparse.Namespace) -> Survey:
    """Look for every checkpoint and read every label file, once."""
    found = Survey(inputs, {}, {}, {})
    for cell in cells:
        target = cell.target, cell.limit
        if target not in found.targets and target not in found.missing:
            try:
                root = inputs.data_root(args.data_root)
                found.targets[target] = inputs.images(*target, root, args.allow_missing)
            except UserError as error:
                found.missing[target] = str(error)
        if cell.weights not in found.sources and cell.weights not in found.missing:
            try:
                found.sources[cell.weights] = inputs.checkpoint(cell.weights, args.weights_dir)
            except UserError as error:
                found.missing[cell.weights] = str(error)
    return found


def plan(
    places: Sequence[Entry], cells: Sequence[Cell], todo: Sequence[Cell], found: Survey, store: Store
) -> Iterator[str]:
    """Yield the lines that --dry-run prints."""
    done = {cell.id for cell in cells if store.done(cell)}
    left = {cell.id for cell in todo}
    for entry in places:
        cell = entry.cell
        state = "done" if cell.id in done else "failed before" if cell.id not in left else "to do"
        state = "cannot be run" if state == "to do" and found.reason(cell) else state
        where = f"{place_name(entry.place):8s}  {entry.weights} on {entry.target}: {entry.setting}"
        yield f"{cell.id}  {where}: {state}"
    for what, reason in found.missing.items():
        yield f"missing: {what if isinstance(what, str) else what[0]}: {reason}"
    images, views, shared, alone, seconds = 0, 0, 0.0, 0.0, 0.0
    for job in jobs(todo):
        size = found.size(job.cells[0])
        images += size
        views += size * len(job.cells)
        shared += size * job.forwards
        alone += size * sum(Plan.of([cell.setting]).forwards for cell in job.cells)
        seconds += found.seconds(job)
    failed = len(cells) - len(todo) - len(done)
    yield (
        f"{len(places)} places, {len(cells)} cells, {len(done)} of them done, "
        f"{failed} failed before (--retry-failed)"
    )
    if todo:
        yield (
            f"{images} views decoded once ({views} cell by cell), "
            f"{shared:.3g} forward passes ({alone:.3g} cell by cell)"
        )
        yield (
            f"about {seconds / 3600:.1f} h on 4 CPU cores, by the rates of docs/speed.md; "
            "scripts.benchmark measures a GPU's"
        )


def titles(places: Iterable[Entry]) -> dict[str, str]:
    """Return what people call each cell, by id: after the place where it stands first."""
    found: dict[str, str] = {}
    for entry in places:
        title = f"{entry.weights} on {entry.target}: {entry.setting} ({place_name(entry.place)})"
        found.setdefault(entry.cell.id, title)
    return found


def _log(folder: Path) -> logging.Logger:
    """Return a logger to a file of this sweep's own."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    handler = logging.FileHandler(folder / name, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.Logger("sweep")
    log.addHandler(handler)
    return log


@command
def main(argv: Sequence[str] | None, prog: str, experiments: Experiments, inputs: Inputs) -> int:
    """Run the command line of a list of experiments; status 1 if a cell is left undone.

    prog: the command as its help calls it.
    """
    args = parser(prog, tuple(experiments), inputs.datasets).parse_args(argv)
    if args.similar_dmos[0] >= args.similar_dmos[1]:
        raise UserError("--similar-dmos: the first bound must be below the second")
    if not args.dry_run:
        check_targets([args.results / INDEX], [], [inputs.data_root(args.data_root)])
    check_layout(args.results)
    devices = [choose(name) for name in args.device.split(",")]
    places = wanted(args, experiments)
    cells = list({entry.cell.id: entry.cell for entry in places}.values())
    store = Store(args.results)
    todo = [cell for cell in cells if not store.done(cell) and (args.retry_failed or not store.failed(cell))]
    found = survey(todo, inputs, args)
    if args.dry_run:
        print("\n".join(plan(places, cells, todo, found, store)))
        return 0
    store.prepare()
    log = _log(args.results / LOGS)
    log.info("%s", as_typed(prog, argv))
    log.info("%s", environment(devices[0]))
    known_as = titles(places)
    _settle(cells, todo, found, store, known_as, log)
    _write_index(args.results, places)
    work = jobs(cell for cell in todo if not found.reason(cell))
    progress = Progress(
        sum(map(found.seconds, work)),
        {cell.id: known_as[cell.id] for cell in todo},
        inputs.cpu_seconds,
        len(devices),
        log,
    )
    makes = [
        partial(
            Worker,
            store,
            found.targets,
            found.sources,
            inputs.network,
            device,
            default_workers(device) if args.workers is None else args.workers,
        )
        for device in devices
    ]
    try:
        run(work, makes, progress)
    finally:
        progress.close()
    _write_index(args.results, places)
    return _conclude(cells, store, known_as)


def _settle(
    cells: Sequence[Cell],
    todo: Sequence[Cell],
    found: Survey,
    store: Store,
    known_as: Mapping[str, str],
    log: logging.Logger,
) -> None:
    """Bring the folder up to date with what is known before any work."""
    for cell in cells:
        if store.done(cell):
            store.clear(cell)  # a kill may have left something
    for cell in todo:
        store.clear_failure(cell)
        if reason := found.reason(cell):
            store.fail(cell, reason)
            log.info("%s  %s FAILED: %s", cell.id, known_as[cell.id], reason)


def _write_index(root: Path, places: Sequence[Entry]) -> None:
    held = Results.read(root)
    write_index(root, places, held.finished, held.failed)


def _conclude(cells: Sequence[Cell], store: Store, known_as: Mapping[str, str]) -> int:
    """Print what is done and what is not, and return the exit status."""
    missing = [cell for cell in cells if not store.done(cell)]
    failed = [cell for cell in missing if store.failed(cell)]
    print(f"{len(cells) - len(missing)} of {len(cells)} cells are in {store.root}, {len(failed)} failed")
    for cell in missing:
        state = "failed" if cell in failed else "unfinished"
        print(f"{state}: {cell.id}  {known_as[cell.id]}: {store.reason(cell)}")
    if failed:
        print("--retry-failed tries them again")
    return 1 if missing else 0
