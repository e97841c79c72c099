"""A list of experiments as a command: `main(argv, prog, experiments, inputs)`; see tres/all_expt.py."""

import argparse
import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from common.protocols import METHODS
from common.runs.cost import Rates, preview
from common.runs.grid import (
    EXTRA_PLACE,
    PAPER_PLACES,
    SIMILAR_DMOS,
    Cell,
    Entry,
    Experiment,
    paper_grid,
    place_name,
)
from common.runs.pool import run
from common.runs.progress import Progress
from common.runs.survey import Inputs, Survey, survey
from common.runs.sweep import Store, Worker, jobs
from common.system import cli
from common.system.cli import Parser, as_typed
from common.system.device import choose, default_workers, environment
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
    places = wanted(args, experiments)
    cells = list({entry.cell.id: entry.cell for entry in places}.values())
    store = Store(args.results)
    todo = [cell for cell in cells if not store.done(cell) and (args.retry_failed or not store.failed(cell))]
    if args.dry_run:
        rates = _rates(args, {cell.backbone for cell in todo}, experiments, inputs)
        found, count = survey(todo, inputs, args), args.device.count(",") + 1
        print("\n".join(preview(places, cells, todo, found, store, rates, count, args.verbose)))
        return 0
    if args.rates or args.measure or args.verbose:
        raise UserError("--rates, --measure and --verbose are of --dry-run: add it")
    check_targets([args.results / "result.json"], [], [inputs.data_root(args.data_root)])
    devices = [choose(name) for name in args.device.split(",")]
    found = survey(todo, inputs, args)
    store.prepare()
    log = _log(args.results / "logs")
    log.info("%s", as_typed(prog, argv))
    log.info("%s", environment(devices[0]))
    known_as = titles(places)
    _settle(cells, todo, found, store, log)
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
            print(f"{state}: {cell.id}  {known_as[cell.id]}: {store.reason(cell)}")
    for line in found.missing_lines(left):
        print(line)
    if failed:
        print("--retry-failed tries them again")
    return 1 if left else 0
