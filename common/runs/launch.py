"""A list of experiments as a command: `main(argv, prog, experiments, inputs)`; see tres/all_expt.py."""

import argparse
import logging
import os
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.protocols import METHODS
from common.runs.cost import Rates, preview
from common.runs.folders import INDEX, LOGS
from common.runs.grid import (
    EXTRA_PLACE,
    PAPER_PLACES,
    SIMILAR_DMOS,
    Cell,
    Entry,
    Experiment,
    paper_grid,
)
from common.runs.jobs import Inputs, jobs, part
from common.runs.progress import Progress
from common.runs.status import Index, status, titles
from common.runs.store import Store
from common.runs.survey import Survey, survey
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
        "--device",
        default="auto",
        help="auto (default), cpu, cuda, or several: cuda:0,cuda:1; of workers elsewhere: the kind to take",
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
        "--dry-run",
        action="store_true",
        help="say how long it would take, and what is missing",
    )
    found.add_argument("--status", action="store_true", help="say how far it is, from the folder alone")
    found.add_argument("--wait", action="store_true", help="for another command that is at the same folder")
    rates = found.add_mutually_exclusive_group()
    rates.add_argument(
        "--rates", type=Path, metavar="JSON", help="of --dry-run: by what scripts.benchmark --json measured"
    )
    rates.add_argument(
        "--measure",
        action="store_true",
        help="of --dry-run: time the networks on --device, seconds each",
    )
    found.add_argument("--verbose", action="store_true", help="of --dry-run: list the cells")
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


def _log(folder: Path) -> logging.Logger:
    """Return a logger to a file of this sweep's own."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    handler = logging.FileHandler(folder / name, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.Logger("sweep")
    log.addHandler(handler)
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
                inputs, args.data_root, args.allow_missing, args.weights_dir, device, loaders, found.targets
            )
        )
        return
    from common.runs import cluster, dask_place  # Dask is asked for only where it is needed

    place = dask_place.Place(
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
        found, count = survey(todo, inputs, args), args.device.count(",") + 1
        print("\n".join(preview(places, cells, todo, found, store, rates, count, args.verbose)))
        return 0
    if args.rates or args.measure or args.verbose:
        raise UserError("--rates, --measure and --verbose are of --dry-run: add it")
    check_targets([args.results / INDEX], [], [inputs.data_root(args.data_root)])
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
    _settle(cells, todo, found, store, log)
    runnable = [cell for cell in todo if not found.reason(cell)]
    work = jobs(runnable)
    if args.part is not None:
        mine = {(cell.id, job.seed) for job in part(jobs(cells), *args.part) for cell in job.cells}
        work = [job.only(cell for cell in job.cells if (cell.id, job.seed) in mine) for job in work]
        work = [job for job in work if job.cells]
    index = Index(places, store)
    progress = Progress({cell.id: known_as[cell.id] for cell in runnable}, inputs.cpu_seconds, log)
    device = None if "auto" in devices else kind(devices[0])
    sweep = Sweep(store, found.targets, found.sources, found.seconds, progress, index.add, device=device)
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
    return Rates(inputs.cpu_seconds, "4 CPU cores", "docs/speed.md; --rates or --measure for others")


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
