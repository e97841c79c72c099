"""The paper's tables and figures: every cell of them, or some, into one folder; what is there already is not
repeated.

    python -m scripts.all_expt --data-root DIR --results results/paper --device cuda:0,cuda:1

RESULTS gets a folder per cell; python -m scripts.report RESULTS shows them. Stop it at any time: the same
command goes on.
"""

import argparse
import logging
import multiprocessing
import os
import queue
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

import hyperiqa.all_expt
import metaiqa.all_expt
import musiq.all_expt
import tres.all_expt
from common.protocols import METHODS, Setting
from common.runs.cell import forwards
from common.runs.grid import Cell, Entry, Experiment, Target, entries
from common.runs.sweep import Job, Store, TargetImages, Worker, jobs
from common.system.cli import Parser, finite, natural, positive
from common.system.device import choose, default_workers, environment
from common.system.errors import UserError, command
from common.system.output import check_targets
from data import inputs
from data.catalogue import DATASETS, TARGETS, data_root
from weights.manifest import SourceFile, located
from weights.networks import BACKBONES

EXPERIMENTS = {
    "tres": tres.all_expt.EXPERIMENTS,
    "musiq": musiq.all_expt.EXPERIMENTS,
    "hyperiqa": hyperiqa.all_expt.EXPERIMENTS,
    "metaiqa": metaiqa.all_expt.EXPERIMENTS,
}
PAPER = ("1", "2", "3", "4", "5", "6", "7", "8", "fig4", "fig5", "fig6")
PLACES = (*PAPER, "extra")
SIMILAR = (40.0, 50.0)  # the paper's own bounds are not known
CPU_SECONDS = {
    "tres": 0.099,
    "musiq": 0.133,
    "hyperiqa": 0.049,
    "metaiqa": 0.020,
}  # per forward of an image: docs/speed.md


def grid_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which variant of the paper's grid is meant."""
    parser.add_argument("--seeds", default=5, type=positive, metavar="N", help="seeds 0 to N-1; default: 5")
    parser.add_argument("--protocol", default="paper", choices=("paper", "released"), help="default: paper")
    parser.add_argument(
        "--limit-images", type=positive, metavar="N", help="only N images of each data set, always the same"
    )
    parser.add_argument(
        "--similar-dmos",
        nargs=2,
        type=finite,
        default=SIMILAR,
        metavar=("LOW", "HIGH"),
        help="bounds of Figure 4; default: 40 50",
    )


def grid(
    backbones: Iterable[str],
    protocol: str,
    seeds: int,
    limit: int | None = None,
    similar: Sequence[float] = SIMILAR,
) -> Iterator[Entry]:
    """Every place of the paper, with its cell. similar: DMOS bounds of Figure 4."""
    for name in backbones:
        experiments = [_within(one, similar) if one.place == "fig4" else one for one in EXPERIMENTS[name]]
        yield from entries(name, BACKBONES[name], experiments, protocol, range(seeds), limit)


def _within(experiment: Experiment, bounds: Sequence[float]) -> Experiment:
    return replace(
        experiment, targets=[replace(target, between=tuple(bounds)) for target in experiment.targets]
    )


def parser(backbones: Sequence[str]) -> Parser:
    whole = len(backbones) > 1
    found = Parser(
        prog=f"python -m {'scripts' if whole else backbones[0]}.all_expt",
        description=__doc__.split("\n\n")[0],
    )
    found.add_argument(
        "--tables",
        nargs="+",
        choices=PLACES,
        default=PAPER,
        metavar="N",
        help=f"of {' '.join(PLACES)}; default: all but extra",
    )
    found.add_argument(
        "--backbones", nargs="+", choices=backbones, default=backbones, help=f"default: {' '.join(backbones)}"
    )
    found.add_argument(
        "--datasets",
        nargs="+",
        choices=[module.DATASET.name for module in TARGETS],
        metavar="NAME",
        help="default: all that the tables name",
    )
    found.add_argument("--methods", nargs="+", choices=METHODS, help="default: all that the tables name")
    grid_options(found)
    found.add_argument(
        "--device", default="auto", help="auto (default), cpu, cuda, or several: cuda:0,cuda:1"
    )
    found.add_argument(
        "--workers", type=natural, metavar="W", help="loader processes of each device; by device if left out"
    )
    found.add_argument(
        "--data-root", type=Path, help="folder of the data sets; default: $IQA_DATA_ROOT, data/raw"
    )
    found.add_argument(
        "--allow-missing",
        action="store_true",
        help="go without images that are not there, and record how many",
    )
    found.add_argument("--weights-dir", type=Path, help="folder of the checkpoints; default: weights/files")
    found.add_argument("--results", type=Path, default=Path("results/paper"), help="default: results/paper")
    found.add_argument(
        "--dry-run", action="store_true", help="say what would be done, what is missing and what it costs"
    )
    found.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    return found


def wanted(args: argparse.Namespace) -> list[Entry]:
    """The places that were asked for, each with its cell."""
    found = [
        entry
        for entry in grid(args.backbones, args.protocol, args.seeds, args.limit_images, args.similar_dmos)
        if entry.place in args.tables
        and (args.datasets is None or entry.target.dataset in args.datasets)
        and (args.methods is None or entry.cell.method.name in args.methods)
    ]
    if not found:
        raise UserError(
            "no cell of the paper is all of that: widen --tables, --backbones, --datasets or --methods"
        )
    return found


Targets = dict[tuple[Target, int | None], TargetImages]


@dataclass(frozen=True)
class Survey:
    """What a sweep needs and this machine has. missing: why a checkpoint (by name) or a target cannot be
    had."""

    targets: Targets
    missing: dict[str | tuple[Target, int | None], str]
    sources: dict[str, SourceFile]  # the checkpoints that are there, by name

    def reason(self, cell: Cell) -> str | None:
        """Why a cell cannot be run, if it cannot."""
        return self.missing.get(cell.weights) or self.missing.get((cell.target, cell.limit))

    def size(self, cell: Cell) -> int:
        """Number of images, as published where they are not here."""
        if (cell.target, cell.limit) in self.targets:
            return len(self.targets[cell.target, cell.limit].photographs)
        subsets = DATASETS[cell.target.dataset].subsets
        whole = subsets[cell.target.subset or next(iter(subsets))] or 0
        return min(whole, cell.limit or whole)

    def seconds(self, job: Job) -> float:
        """What a job takes on a CPU."""
        first = job.cells[0]
        return self.size(first) * job.forwards * CPU_SECONDS[first.backbone]


def survey(cells: Iterable[Cell], root: Path | None, weights: Path | None, allow_missing: bool) -> Survey:
    """Look for every checkpoint and read every label file, once."""
    found = Survey({}, {}, {})
    for cell in cells:
        place = cell.target, cell.limit
        if place not in found.targets and place not in found.missing:
            try:
                found.targets[place] = inputs.images(*place, data_root(root), allow_missing)
            except UserError as error:
                found.missing[place] = str(error)
        if cell.weights not in found.sources and cell.weights not in found.missing:
            try:
                found.sources[cell.weights] = located(cell.weights, weights)
            except UserError as error:
                found.missing[cell.weights] = str(error)
    return found


def plan(
    places: Sequence[Entry], cells: Sequence[Cell], todo: Sequence[Cell], found: Survey, store: Store
) -> Iterator[str]:
    """What --dry-run prints."""
    done = {cell.id for cell in cells if store.done(cell)}
    left = {cell.id for cell in todo}
    for entry in places:
        cell = entry.cell
        state = "done" if cell.id in done else "failed before" if cell.id not in left else "to do"
        state = "cannot be run" if state == "to do" and found.reason(cell) else state
        yield f"{cell.id}  {place_name(entry.place):8s}  {entry.weights} on {entry.target}: {entry.setting}: {state}"
    for what, reason in found.missing.items():
        yield f"missing: {what if isinstance(what, str) else what[0]}: {reason}"
    images, views, shared, alone, seconds = 0, 0, 0.0, 0.0, 0.0
    for job in jobs(todo):
        size = found.size(job.cells[0])
        images += size
        views += size * len(job.cells)
        shared += size * job.forwards
        alone += size * sum(forwards([Setting(cell.protocol, cell.method)]) for cell in job.cells)
        seconds += found.seconds(job)
    failed = len(cells) - len(todo) - len(done)
    yield f"{len(places)} places, {len(cells)} cells, {len(done)} of them done, {failed} failed before (--retry-failed)"
    if todo:
        yield f"{images} views decoded once ({views} cell by cell), {shared:.3g} forward passes ({alone:.3g} cell by cell)"
        yield f"about {seconds / 3600:.1f} h on 4 CPU cores, by the rates of docs/speed.md; scripts.benchmark measures a GPU's"


def place_name(place: str) -> str:
    """As people speak of a table or figure."""
    if place == "extra":
        return "beyond the paper"
    return f"Figure {place[3:]}" if place.startswith("fig") else f"Table {place}"


def titles(places: Iterable[Entry]) -> dict[str, str]:
    """What people call each cell, by id: after the place where it stands first."""
    found: dict[str, str] = {}
    for entry in places:
        title = f"{entry.weights} on {entry.target}: {entry.setting} ({place_name(entry.place)})"
        found.setdefault(entry.cell.id, title)
    return found


class Progress:
    """A bar over all the work and one for the job in hand of each device, on a terminal; lines elsewhere; all
    of it in a log.

    total: seconds that the work takes on a CPU; only what is gone of them matters.
    """

    def __init__(self, total: float, named: Mapping[str, str], devices: int, log: logging.Logger):
        self.named, self.log = named, log
        self.total, self.gone, self.done, self.started = total, 0.0, 0, time.perf_counter()
        self.left = [(0.0, 0.0)] * devices  # work of the job in hand, and seconds per unit of it
        self.plain = not sys.stderr.isatty()
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"
        self.bar = tqdm(total=total, bar_format=form, smoothing=0.02, disable=self.plain)
        form = "{desc}{postfix}: {percentage:3.0f}%|{bar}|"
        self.inner = [
            tqdm(total=1.0, bar_format=form, disable=self.plain, leave=False) for _ in range(devices)
        ]
        self._advance(0.0)

    def job(self, device: int, name: str, backbone: str, work: float) -> None:
        self._drop(device)
        self.left[device] = work, CPU_SECONDS[backbone]
        self.inner[device].reset(work)
        self.inner[device].set_description_str(name)
        self.log.info("%s", name)

    def progress(self, device: int, what: str, work: float) -> None:
        left, cost = self.left[device]
        self.left[device] = left - work, cost
        self.inner[device].set_postfix_str(what, refresh=False)
        self.inner[device].update(work)
        self._advance(work * cost)

    def finished(self, device: int, cell: Cell) -> None:
        self.done += 1
        self._advance(0.0)
        self._say(f"{cell.id}  {self.named[cell.id]}")

    def failed(self, device: int, cell: Cell, reason: str, details: str) -> None:
        self._say(f"{cell.id}  {self.named[cell.id]} FAILED: {reason}")
        if details:
            self.log.error(details)

    def _drop(self, device: int) -> None:
        """What is left of a job when the next begins was there already, and took no time."""
        left, cost = self.left[device]
        self.total -= left * cost
        self.bar.total = self.total

    def lost(self, device: int, reason: str) -> None:
        self._say(f"device {device} LOST: {reason}")

    def close(self) -> None:
        for bar in (*self.inner, self.bar):
            bar.close()

    def _advance(self, seconds: float) -> None:
        self.gone += seconds
        self.bar.set_description_str(f"{self.done} of {len(self.named)} cells", refresh=False)
        self.bar.update(seconds)

    def _say(self, line: str) -> None:
        self.log.info(line)
        if self.plain:
            taken = time.perf_counter() - self.started
            left = tqdm.format_interval(max(0.0, taken * (self.total / self.gone - 1))) if self.gone else "?"
            print(f"[{self.done} of {len(self.named)} cells, {left} left] {line}", flush=True)
        else:
            self.bar.write(line)


@dataclass(frozen=True)
class Voice:
    """What the worker of one device reports, handed on to whoever owns the terminal."""

    device: int
    send: Callable[[tuple], object]

    def job(self, name: str, backbone: str, work: float) -> None:
        self.send(("job", self.device, name, backbone, work))

    def progress(self, what: str, work: float) -> None:
        self.send(("progress", self.device, what, work))

    def finished(self, cell: Cell) -> None:
        self.send(("finished", self.device, cell))

    def failed(self, cell: Cell, reason: str, details: str) -> None:
        self.send(("failed", self.device, cell, reason, details))


def _hear(report: Progress, message: tuple) -> None:
    name, *values = message
    getattr(report, name)(*values)


def _serve(
    todo: multiprocessing.Queue, messages: multiprocessing.Queue, number: int, make: Callable[[Voice], Worker]
) -> None:
    """The process of one of several devices: draws jobs until there is none left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one answers to Ctrl-C
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        make(Voice(number, messages.put)).run(iter(todo.get, None))
    except UserError as error:
        messages.put(("lost", number, str(error)))
    messages.put(None)


def _follow_parent() -> None:
    """End with the process that started this one, however it ended: nobody would hear of the rest."""
    multiprocessing.parent_process().join()
    os._exit(1)


def run(work: Sequence[Job], makes: Sequence[Callable[[Voice], Worker]], report: Progress) -> None:
    """Run the jobs: on one device in this process, on several in one process each, which draw from one queue.

    makes: for each device what makes its worker. Should a process die, the others go on without it.
    """
    if len(makes) == 1:
        makes[0](Voice(0, partial(_hear, report))).run(work)
        return
    lost: set[int] = set()
    context = multiprocessing.get_context("spawn")
    todo, messages = context.Queue(), context.Queue()
    for job in [*work, *[None] * len(makes)]:
        todo.put(job)
    processes = [
        context.Process(target=_serve, args=(todo, messages, number, make))
        for number, make in enumerate(makes)
    ]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes) or not messages.empty():
            with suppress(queue.Empty):
                if (message := messages.get(timeout=1)) is not None:
                    _hear(report, message)
            for number, process in enumerate(processes):
                if process.exitcode and number not in lost:
                    lost.add(number)
                    report.lost(number, f"its process died (exit status {process.exitcode})")
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _log(folder: Path) -> logging.Logger:
    """A log file of this sweep's own."""
    handler = logging.FileHandler(
        folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log", encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.Logger("sweep")
    log.addHandler(handler)
    return log


@command
def main(argv: Sequence[str] | None = None, backbones: Sequence[str] = tuple(EXPERIMENTS)) -> int:
    """backbones: those that may be asked for."""
    command_line = parser(backbones)
    args = command_line.parse_args(argv)
    if args.similar_dmos[0] >= args.similar_dmos[1]:
        raise UserError("--similar-dmos: the first bound must be below the second")
    root = None if args.dry_run else data_root(args.data_root)
    if root is not None:
        check_targets([args.results / "result.json"], [], [root])
    devices = [choose(name) for name in args.device.split(",")]
    places = wanted(args)
    named = titles(places)
    cells = list({entry.cell.id: entry.cell for entry in places}.values())
    store = Store(args.results)
    todo = [cell for cell in cells if not store.done(cell) and (args.retry_failed or not store.failed(cell))]
    found = survey(todo, args.data_root, args.weights_dir, args.allow_missing)
    if args.dry_run:
        print("\n".join(plan(places, cells, todo, found, store)))
        return 0
    store.prepare()
    log = _log(args.results / "logs")
    log.info("%s %s", command_line.prog, shlex.join(sys.argv[1:] if argv is None else argv))
    log.info("%s", environment(devices[0]))
    for cell in cells:
        if store.done(cell):
            store.clear(cell)  # a kill may have left something
    for cell in todo:
        store.clear_failure(cell)
        if reason := found.reason(cell):
            store.fail(cell, reason)
            log.info("%s  %s FAILED: %s", cell.id, named[cell.id], reason)
    work = jobs(cell for cell in todo if not found.reason(cell))
    report = Progress(
        sum(map(found.seconds, work)), {cell.id: named[cell.id] for cell in todo}, len(devices), log
    )
    load = partial(inputs.named_network, found.sources)
    makes = [
        partial(
            Worker,
            store,
            found.targets,
            load,
            device,
            default_workers(device) if args.workers is None else args.workers,
        )
        for device in devices
    ]
    try:
        run(work, makes, report)
    finally:
        report.close()
    missing = [cell for cell in cells if not store.done(cell)]
    failed = [cell for cell in missing if store.failed(cell)]
    print(f"{len(cells) - len(missing)} of {len(cells)} cells are in {args.results}, {len(failed)} failed")
    for cell in missing:
        print(
            f"{'failed' if cell in failed else 'unfinished'}: {cell.id}  {named[cell.id]}: {store.reason(cell)}"
        )
    if failed:
        print("--retry-failed tries them again")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
