"""Runs a list of experiments as its options say (launch_options.py); data/experiments.py is the command."""

import argparse
import logging
import os
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.runs.cost import Rates, preview
from common.runs.folders import INDEX, LOGS
from common.runs.grid import Cell, Entry, Experiment, paper_grid
from common.runs.jobs import Inputs, Job, jobs, part
from common.runs.progress import Progress
from common.runs.status import Index, status, titles
from common.runs.store import Store
from common.runs.survey import Survey, survey
from common.runs.sweep import Alone, Crew, Sweep
from common.runs.worker import Worker
from common.system.device import choose, default_workers, kind
from common.system.errors import UserError
from common.system.output import check_targets
from common.y import Backbone

Experiments = Mapping[str, tuple[Backbone, Sequence[Experiment]]]  # of each network, by its name


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


def _log(folder: Path) -> logging.Logger:
    """Return a logger to a file of this sweep's own."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    handler = logging.FileHandler(folder / name, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.Logger("sweep")
    log.addHandler(handler)
    logging.raiseExceptions = False  # a log on a full disk ends, and the sweep says what it cannot write
    return log


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
                inputs,
                args.data_root,
                args.allow_missing,
                args.weights_dir,
                device,
                loaders,
                args.precision,
                found.targets,
            )
        )
        return
    from common.runs import cluster, dask_place  # Dask is asked for only where it is needed

    place = dask_place.Place(
        uuid.uuid4().hex,
        inputs,
        args.data_root,
        args.weights_dir,
        args.allow_missing,
        args.workers,
        args.precision,
    )
    asked = cluster.Wanted(devices, args.scheduler, args.slurm, args.workers_max)
    with cluster.cluster(asked, place, store.root / LOGS, print) as crew:
        yield crew


def launch(args: argparse.Namespace, typed: str, experiments: Experiments, inputs: Inputs) -> int:
    """Run a list of experiments; return the exit status, 1 if a cell is left undone.

    args: of `launch_options.parser`. typed: the command, as somebody would type it again.
    """
    if args.similar_dmos[0] >= args.similar_dmos[1]:
        raise UserError("--similar-dmos: the first bound must be below the second")
    if args.scheduler is not None and args.slurm is not None:
        raise UserError("--scheduler and --slurm: give one of them")
    if "," in args.device and (args.scheduler or args.slurm) is not None:
        raise UserError("--device: with --scheduler or --slurm give one kind, such as cuda")
    places = wanted(args, experiments)
    cells = list({entry.cell.id: entry.cell for entry in places}.values())
    store = Store(args.results)
    if args.status:
        print("\n".join(status(places, store)))
        return 0
    if args.dry_run:
        todo = _todo(cells, store, args.retry_failed)
        rates = _rates(args, {cell.backbone for cell in todo}, experiments, inputs)
        found, work = survey(todo, inputs, args), _work(args.part, cells, todo)
        devices = args.device.count(",") + 1 if args.slurm is None else args.workers_max
        print("\n".join(preview(places, cells, todo, work, found, store, rates, devices, args.verbose)))
        return 0
    if args.rates or args.measure or args.verbose:
        raise UserError("--rates, --measure and --verbose are of --dry-run: add it")
    check_targets([args.results / INDEX], [], [inputs.data_root(args.data_root)])
    names = args.device.split(",")
    for name in names:
        kind(name)
    with store.held(args.wait):
        return _run(args, typed, places, cells, store, inputs, names)


def _todo(cells: Sequence[Cell], store: Store, retry_failed: bool) -> list[Cell]:
    return [cell for cell in cells if not store.done(cell) and (retry_failed or not store.failed(cell))]


def _work(share: tuple[int, int] | None, cells: Sequence[Cell], todo: Sequence[Cell]) -> list[Job]:
    """Return what there is to do of some of the cells, or the share of it that a machine was given."""
    work = jobs(todo)
    if share is not None:
        mine = {(cell.id, job.seed) for job in part(jobs(cells), *share) for cell in job.cells}
        work = [job.only(cell for cell in job.cells if (cell.id, job.seed) in mine) for job in work]
    return [job for job in work if job.cells]


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
    for note in (note for source in found.sources.values() for note in source.notes()):
        print(f"note: {note}")
    _settle(cells, todo, found, store, log)
    runnable = [cell for cell in todo if not found.reason(cell)]
    work = _work(args.part, cells, runnable)
    index = Index(places, store)
    progress = Progress({cell.id: known_as[cell.id] for cell in runnable}, inputs.cpu_seconds, log)
    device = None if "auto" in devices else kind(devices[0])
    sweep = Sweep(
        store,
        found.targets,
        found.sources,
        found.seconds,
        progress,
        index.add,
        device=device,
        precision=args.precision,
    )
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
    if args.part is not None and not sweep.failed and len(runnable) == len(todo):
        number, of = args.part
        print(f"part {number} of {of} is done, in {store.root}; scripts.merge_results joins the parts")
        return 0
    return _conclude(cells, found, store, known_as)


def _rates(
    args: argparse.Namespace, networks: Collection[str], experiments: Experiments, inputs: Inputs
) -> Rates:
    """Return the rates of the networks that the options ask for."""
    if args.rates:
        return Rates.read(args.rates)
    if args.measure:
        device = choose(args.device.partition(",")[0])
        return Rates.measured({name: experiments[name][0] for name in sorted(networks)}, device)
    return Rates(inputs.cpu_seconds, "2 CPU cores", "docs/speed.md; --rates or --measure for others")


def _settle(
    cells: Sequence[Cell], todo: Sequence[Cell], found: Survey, store: Store, log: logging.Logger
) -> None:
    """Bring the folder up to date with what is known before any work."""
    for cell in cells:
        if store.done(cell):
            store.clear(cell)  # a kill may have left something
    for cell in todo:
        if not found.reason(cell):
            store.clear_failure(cell)
    for line in found.missing_lines(todo):
        log.info(line)


def _conclude(cells: Sequence[Cell], found: Survey, store: Store, known_as: Mapping[str, str]) -> int:
    """Print what is done and what is not, and return the exit status."""
    left = [cell for cell in cells if not store.done(cell)]
    failed = [cell for cell in left if store.failed(cell)]
    absent = [cell for cell in left if cell not in failed and found.reason(cell)]
    print(
        f"{len(cells) - len(left)} of {len(cells)} cells are in {store.root}, {len(failed)} failed, "
        f"{len(absent)} cannot be run yet"
    )
    for cell in left:
        if cell not in absent:
            state = "failed" if cell in failed else "unfinished"
            reason = store.reason(cell) if cell in failed else "the same command goes on"
            print(f"{state}: {cell.id}  {known_as[cell.id]}: {reason}")
    for line in found.missing_lines(left):
        print(line)
    if failed:
        print("--retry-failed tries them again")
    return 1 if left else 0
