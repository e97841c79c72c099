"""The paper's tables and figures: every cell of them, or some, into one folder; what is there already is not repeated.

python -m scripts.all_expt --data-root DIR --results results/paper --device cuda:0,cuda:1
"""

import argparse
import importlib
import logging
import multiprocessing
import queue
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from common.backbones import BACKBONES
from common.cli import Parser, natural, positive
from common.device import choose, file_sha256
from common.errors import UserError, command
from common.grid import Cell, Entry, Target, entries
from common.protocols import METHODS
from common.seeds import digest
from common.sweep import Images, Job, Network, Store, Worker, jobs
from data.catalogue import DATASETS, data_root, folder_of
from data.dataset import read
from weights.loading import load_weights
from weights.manifest import FILES, located

PLACES = ("1", "2", "3", "4", "5", "6", "7", "8", "fig4", "fig5", "fig6")


@dataclass(frozen=True)
class Disk:
    """Networks and images from the folders of this machine."""

    data_root: Path
    weights: Path
    allow_missing: bool = False

    def network(self, backbone: str, weights: str, device: torch.device) -> Network:
        file = located(weights, self.weights)
        network = BACKBONES[backbone].network()
        load_weights(network, file)
        network.to(device, memory_format=torch.channels_last)
        return Network(partial(BACKBONES[backbone].wrap, network), {"file": file.name, "sha256": file_sha256(file)})

    def images(self, target: Target, limit: int | None) -> Images:
        dataset = DATASETS[target.dataset]
        reading = read(dataset, folder_of(dataset, self.data_root), target.subset, None, self.allow_missing)
        photographs = reading.photographs
        if target.between is not None:
            low, high = target.between
            photographs = [p for p, score in zip(photographs, reading.published()) if low <= score <= high]
        if limit is not None:
            kept = set(sorted((p.key for p in photographs), key=lambda key: digest(0, "limit", key))[:limit])
            photographs = [p for p in photographs if p.key in kept]
        if len(photographs) < 2:
            raise UserError(f"{dataset.title}, {target}: {len(photographs)} images; a correlation needs at least 2")
        return Images(photographs, dataset.resize, reading.record())


def parser() -> Parser:
    found = Parser(prog="python -m scripts.all_expt", description=__doc__.split("\n\n")[0])
    found.add_argument(
        "--tables", nargs="+", choices=PLACES, default=PLACES, metavar="N", help=f"of {' '.join(PLACES)}; default: all"
    )
    found.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES), help="default: all four")
    found.add_argument("--datasets", nargs="+", choices=DATASETS, metavar="NAME", help="default: all that the tables name")
    found.add_argument("--methods", nargs="+", choices=METHODS, help="default: all that the tables name")
    found.add_argument("--seeds", default=5, type=positive, metavar="N", help="seeds 0 to N-1; default: 5")
    found.add_argument("--protocol", default="paper", choices=("paper", "released"), help="default: paper")
    found.add_argument("--device", default="auto", help="auto (default), cpu, cuda, or several: cuda:0,cuda:1")
    found.add_argument("--workers", type=natural, metavar="W", help="loader processes of each device; by device if left out")
    found.add_argument("--limit-images", type=positive, metavar="N", help="only N images of each data set, always the same")
    found.add_argument("--data-root", type=Path, help="folder of the data sets; default: $IQA_DATA_ROOT, data/raw")
    found.add_argument("--weights-dir", type=Path, default=FILES, help="folder of the checkpoints; default: weights/files")
    found.add_argument("--results", type=Path, default=Path("results/paper"), help="default: results/paper")
    found.add_argument("--dry-run", action="store_true", help="say what would be done, what is missing and what it costs")
    found.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    return found


def wanted(args: argparse.Namespace) -> list[Entry]:
    """The places that were asked for, each with its cell."""
    found = []
    for name in args.backbones:
        experiments = importlib.import_module(f"{name}.all_expt").EXPERIMENTS
        for entry in entries(name, BACKBONES[name], experiments, args.protocol, range(args.seeds), args.limit_images):
            asked = args.datasets is None or entry.target.dataset in args.datasets
            asked &= args.methods is None or entry.cell.method.name in args.methods
            if entry.place in args.tables and asked:
                found.append(entry)
    if not found:
        raise UserError("no cell of the paper is all of that: widen --tables, --backbones, --datasets or --methods")
    return found


def inputs_missing(cells: Iterable[Cell], disk: Disk) -> tuple[dict[str, str], dict[tuple, str], dict[tuple, int]]:
    """Checkpoints that are not there, targets that are not, each with the reason, and the number of images of the others."""
    weights, targets, sizes = {}, {}, {}
    for cell in cells:
        if cell.weights not in weights:
            try:
                weights[cell.weights] = "" if located(cell.weights, disk.weights).is_file() else "no such file"
            except UserError as error:
                weights[cell.weights] = str(error)
        key = cell.target, cell.limit
        if key not in targets:
            try:
                sizes[key] = len(disk.images(*key).photographs)
                targets[key] = ""
            except UserError as error:
                targets[key] = str(error)
    return {k: v for k, v in weights.items() if v}, {k: v for k, v in targets.items() if v}, sizes


class Progress:
    """Bars on a terminal, lines elsewhere, and everything in a log."""

    def __init__(self, total: float, cells: int, log: logging.Logger):
        self.log, self.cells, self.done, self.failures = log, cells, 0, {}
        self.plain = not sys.stderr.isatty()
        self.bar = tqdm(
            total=total,
            bar_format="{percentage:3.0f}%|{bar}| {desc}, {elapsed} gone, {remaining} left",
            smoothing=0.02,
            disable=self.plain,
        )
        self._describe("")

    def _describe(self, what: str) -> None:
        self.bar.set_description_str(f"{self.done} of {self.cells} cells{what}", refresh=False)

    def progress(self, what: str, work: float) -> None:
        self._describe(f", {what}")
        self.bar.update(work)

    def finished(self, cell: Cell, seconds: float) -> None:
        self.done += 1
        self.say(f"{cell.id}  {cell.weights} on {cell.target}: {cell.method.name}, {seconds:.0f} s")

    def failed(self, cell: Cell, reason: str, details: str) -> None:
        self.failures[cell.id] = cell, reason
        self.say(f"{cell.id}  {cell.weights} on {cell.target}: {cell.method.name} FAILED: {reason}")
        if details:
            self.log.error(details)

    def say(self, line: str) -> None:
        self.log.info(line)
        if self.plain:
            print(line, flush=True)
        else:
            self.bar.write(line)


@dataclass(frozen=True)
class Relay:
    """A report that hands everything on to the process that owns the terminal."""

    messages: object

    def __getattr__(self, name: str):
        return lambda *args: self.messages.put((name, args))


def _drain(todo, worker: Worker) -> None:
    """Run jobs until none is left; those that another process is at come last, and are waited for."""
    later = []
    while True:
        try:
            job = todo.get_nowait()
        except queue.Empty:
            break
        if not worker.run(job, wait=False):
            later.append(job)
    for job in later:
        worker.run(job, wait=True)


def _serve(todo, messages, store: Store, disk: Disk, device: str, workers: int | None) -> None:
    """What the process of one of several devices does."""
    _drain(todo, Worker(store, disk, torch.device(device), Relay(messages), workers))
    messages.put(("leaving", ()))


def run(
    work: Sequence[Job], store: Store, disk: Disk, devices: Sequence[torch.device], workers: int | None, report: Progress
) -> None:
    """Run the jobs, on one device in this process, on several in one process each, which draw from one queue."""
    if len(devices) == 1:
        todo = queue.SimpleQueue()
        for job in work:
            todo.put(job)
        _drain(todo, Worker(store, disk, devices[0], report, workers))
        return
    context = multiprocessing.get_context("spawn")
    todo, messages = context.Queue(), context.Queue()
    for job in work:
        todo.put(job)
    processes = [
        context.Process(target=_serve, args=(todo, messages, store, disk, str(device), workers), daemon=False)
        for device in devices
    ]
    for process in processes:
        process.start()
    alive = len(processes)
    try:
        while alive:
            try:
                name, args = messages.get(timeout=1)
            except queue.Empty:
                dead = [process for process in processes if process.exitcode not in (None, 0)]
                if dead:
                    raise UserError(f"{len(dead)} worker processes died; run the same command again to go on") from None
                continue
            if name == "leaving":
                alive -= 1
            else:
                getattr(report, name)(*args)
    finally:
        for process in processes:
            process.terminate() if alive else process.join()
