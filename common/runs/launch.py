"""A list of experiments as a command: `main(argv, prog, experiments, inputs)`; see tres/all_expt.py."""

import argparse
import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.protocols import METHODS
from common.runs.cell import Plan
from common.runs.folders import LOGS, Results, write_index
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
from common.runs.jobs import Inputs, Job, TargetImages, jobs, part
from common.runs.progress import Progress
from common.runs.results import CellResult, Failure
from common.runs.store import Store
from common.runs.sweep import Alone, Crew, Sweep
from common.runs.worker import Worker
from common.system import cli
from common.system.cli import Parser, as_typed
from common.system.device import choose, default_workers, kind
from common.system.errors import UserError, command
from common.system.output import check_targets
from common.y import Backbone

DESCRIPTION = """The paper's tables and figures: every cell of them, or some, into one folder; what is there
already is not repeated."""
Experiments = Mapping[str, tuple[Backbone, Sequence[Experiment]]]  # of each network, by its name


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
    found.add_argument(
        "--scheduler", metavar="ADDRESS|FILE", help="of Dask: run on its workers, wherever they are"
    )
    found.add_argument(
        "--slurm", metavar="OPTIONS", help='of sbatch: run in jobs of Slurm, "--partition=gpu --gres=gpu:1"'
    )
    found.add_argument(
        "--workers-max",
        type=cli.positive,
        default=16,
        metavar="N",
        help="most jobs of --slurm at once; default: 16",
    )
    found.add_argument(
        "--part", type=share, metavar="I/N", help="only the I-th of N shares, each in a folder of its own"
    )
    cli.add_workers(found)
    cli.add_data_root(found)
    cli.add_allow_missing(found)
    cli.add_weights_dir(found)
    found.add_argument("--results", type=Path, default=Path("results/paper"), help="default: results/paper")
    found.add_argument(
        "--dry-run", action="store_true", help="say what would be done, what is missing and what it costs"
    )
    found.add_argument("--status", action="store_true", help="say how far it is, from the folder alone")
    found.add_argument("--wait", action="store_true", help="for another command that is at the same folder")
    found.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    return found


def share(text: str) -> tuple[int, int]:
    """Parse "I/N"."""
    number, _, of = text.partition("/")
    try:
        if 1 <= int(number) <= int(of):
            return int(number), int(of)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no share, such as 1/4 or 4/4")


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


def _settle(cells: Sequence[Cell], todo: Sequence[Cell], store: Store) -> None:
    """Bring the folder up to date with what is known before any work."""
    for cell in cells:
        if store.done(cell):
            store.clear(cell)  # a kill may have left something
    for cell in todo:
        store.clear_failure(cell)


@contextmanager
def _crew(
    args: argparse.Namespace, inputs: Inputs, found: Survey, devices: Sequence[str], store: Store
) -> Iterator[Crew]:
    """Give the workers that were asked for, until the end of the block."""
    if args.scheduler is None and args.slurm is None and len(devices) == 1:
        device = choose(devices[0])
        loaders = default_workers(device) if args.workers is None else args.workers
        yield Alone(
            Worker(
                inputs, args.data_root, args.allow_missing, args.weights_dir, device, loaders, found.targets
            )
        )
        return
    from common.runs import cluster  # Dask is asked for only where it is needed

    place = cluster.Place(
        uuid.uuid4().hex, inputs, args.data_root, args.weights_dir, args.allow_missing, args.workers
    )
    asked = cluster.Wanted(devices, args.scheduler, args.slurm, args.workers_max)
    with cluster.cluster(asked, place, store.root / LOGS, print) as crew:
        yield crew


@command
def main(argv: Sequence[str] | None, prog: str, experiments: Experiments, inputs: Inputs) -> int:
    """Run the command line of a list of experiments; status 1 if a cell is left undone.

    prog: the command as its help calls it.
    """
    args = parser(prog, tuple(experiments), inputs.datasets).parse_args(argv)
    if args.similar_dmos[0] >= args.similar_dmos[1]:
        raise UserError("--similar-dmos: the first bound must be below the second")
    if args.scheduler is not None and args.slurm is not None:
        raise UserError("--scheduler and --slurm: give one of them")
    places = wanted(args, experiments)
    cells = list({entry.cell.id: entry.cell for entry in places}.values())
    store = Store(args.results)
    if args.status:
        print("\n".join(status(places, store)))
        return 0
    if args.dry_run:
        todo = _todo(cells, store, args.retry_failed)
        print("\n".join(plan(places, cells, todo, survey(todo, inputs, args), store)))
        return 0
    check_targets([args.results / "cells.csv"], [], [inputs.data_root(args.data_root)])
    devices = args.device.split(",")
    for name in devices:
        kind(name)
    with store.held(args.wait):
        return _run(args, as_typed(prog, argv), places, cells, store, inputs, devices)


def _todo(cells: Sequence[Cell], store: Store, retry_failed: bool) -> list[Cell]:
    return [cell for cell in cells if not store.done(cell) and (retry_failed or not store.failed(cell))]


def _run(
    args: argparse.Namespace,
    typed: str,
    places: Sequence[Entry],
    cells: Sequence[Cell],
    store: Store,
    inputs: Inputs,
    devices: Sequence[str],
) -> int:
    """Run what is to do in a folder that this process holds."""
    todo = _todo(cells, store, args.retry_failed)
    found = survey(todo, inputs, args)
    log = _log(store.root / LOGS)
    log.info("%s", typed)
    known_as = titles(places)
    _settle(cells, todo, store)
    runnable = [cell for cell in todo if not found.reason(cell)]
    work = jobs(runnable)
    if args.part is not None:
        mine = {(cell.id, job.seed) for job in part(jobs(cells), *args.part) for cell in job.cells}
        work = [job.only(cell for cell in job.cells if (cell.id, job.seed) in mine) for job in work]
        work = [job for job in work if job.cells]
    index = Index(places, store)
    progress = Progress({cell.id: known_as[cell.id] for cell in runnable}, inputs.cpu_seconds, log)
    sweep = Sweep(store, found.targets, found.sources, found.seconds, progress, index.add)
    try:
        if work:
            with _crew(args, inputs, found, devices, store) as crew:
                sweep.run(work, crew)
    except KeyboardInterrupt:
        progress.close()
        done = sum(map(store.done, cells))
        print(f"interrupted: {done} of {len(cells)} cells are in {store.root}; the same command goes on")
        return 130
    finally:
        progress.close()
        index.write()
    return _conclude(cells, found, store, known_as)


class Index:
    """RESULTS/cells.csv, kept up to date."""

    def __init__(self, places: Sequence[Entry], store: Store):
        self.places, self.store = places, store
        self.finished = dict(Results.read(store.root).finished)
        self.write()

    def add(self, result: CellResult) -> None:
        """Take over a result that was just written."""
        self.finished[result.cell.id] = result
        self.write()

    def write(self) -> None:
        """Write it anew."""
        failed = {
            cell.id: Failure(cell, self.store.reason(cell))
            for cell in {entry.cell.id: entry.cell for entry in self.places}.values()
            if self.store.failed(cell)
        }
        write_index(self.store.root, self.places, self.finished, failed)


def status(places: Sequence[Entry], store: Store) -> Iterator[str]:
    """Yield how far a sweep is, as its folder says."""
    known_as = titles(places)
    cells = {entry.cell.id: entry.cell for entry in places}.values()
    done = [cell for cell in cells if store.done(cell)]
    failed = [cell for cell in cells if cell not in done and store.failed(cell)]
    yield f"{len(done)} of {len(cells)} cells are in {store.root}, {len(failed)} failed"
    for cell in failed:
        yield f"failed: {cell.id}  {known_as[cell.id]}: {store.reason(cell)}"
    if not store.is_held():
        yield "nobody is at it"
        return
    yield f"{store.holder()} is at it"
    if (now := store.read_status()) is None:
        return
    left = now["seconds_left"]
    yield (
        f"at {now['time']}: {now['done']} of {now['cells']} cells that were to do, "
        f"{now['images_per_second']:.3g} images/s, "
        + ("time left not known yet" if left is None else f"about {duration(left)} left")
    )
    for worker in now["workers"]:
        doing = f"{worker['job']}, since {worker['since']}" if worker["job"] else "nothing"
        yield f"{worker['worker']} on {worker['host']}: {doing}"
    for worker, reason in now["left_out"].items():
        yield f"{worker} is left out: {reason}"


def duration(seconds: float) -> str:
    """Write a time as people read it: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _conclude(cells: Sequence[Cell], found: Survey, store: Store, known_as: Mapping[str, str]) -> int:
    """Print what is done and what is not, and return the exit status."""
    undone = [cell for cell in cells if not store.done(cell)]
    failed = [cell for cell in undone if store.failed(cell)]
    print(f"{len(cells) - len(undone)} of {len(cells)} cells are in {store.root}, {len(failed)} failed")
    for cell in undone:
        if cell in failed:
            print(f"failed: {cell.id}  {known_as[cell.id]}: {store.reason(cell)}")
        elif not found.reason(cell):
            print(f"unfinished: {cell.id}  {known_as[cell.id]}: the same command goes on")
    for what, reason in found.missing.items():
        print(f"missing: {what if isinstance(what, str) else what[0]}: {reason}")
    if failed:
        print("--retry-failed tries them again")
    return 1 if undone else 0
