"""Runs a list of experiments as its options say (launch_options.py); data/experiments.py is the command."""

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

from common.runs.cell import Plan
from common.runs.grid import Cell, Entry, Experiment, Target, paper_grid, place_name
from common.runs.pool import run
from common.runs.progress import Progress
from common.runs.sweep import Job, LoadedNetwork, Store, TargetImages, Worker, jobs
from common.system.device import choose, default_workers, environment
from common.system.errors import UserError
from common.system.output import check_targets
from common.y import Backbone

Experiments = Mapping[str, tuple[Backbone, Sequence[Experiment]]]  # of each network, by its name


@dataclass(frozen=True)
class Inputs:
    """What a sweep asks of the folders of data and checkpoints; data/inputs.py has it."""

    data_root: Callable[[Path | None], Path]  # the folder of the data sets, given that of the command line
    images: Callable[[Target, int | None, Path, bool], TargetImages]  # of target, limit, root, allow_missing
    published_size: Callable[[Target], int]  # number of images, by those who published the data set
    checkpoint: Callable[[str, Path | None], Any]  # a checkpoint, by name, in a folder
    network: Callable[[str, Any, torch.device], LoadedNetwork]  # of (backbone, checkpoint, device)
    cpu_seconds: Mapping[str, float]  # of a forward pass of one image, by backbone


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


def launch(args: argparse.Namespace, typed: str, experiments: Experiments, inputs: Inputs) -> int:
    """Run a list of experiments; return the exit status, 1 if a cell is left undone.

    args: of `launch_options.parser`. typed: the command, as somebody would type it again.
    """
    if args.similar_dmos[0] >= args.similar_dmos[1]:
        raise UserError("--similar-dmos: the first bound must be below the second")
    if not args.dry_run:
        check_targets([args.results / "result.json"], [], [inputs.data_root(args.data_root)])
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
    log = _log(args.results / "logs")
    log.info("%s", typed)
    log.info("%s", environment(devices[0]))
    known_as = titles(places)
    _settle(cells, todo, found, store, known_as, log)
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
