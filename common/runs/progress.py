"""How far a sweep is: bars on a terminal, lines elsewhere, and all of it in a log."""

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from common.runs.grid import Cell
from common.runs.jobs import Job
from common.runs.worker import Answer

MOST_BARS = 8  # of workers; more do not fit beside the log


@dataclass
class Doing:
    """What a worker is at."""

    host: str
    job: str = ""  # what people call it
    since: str = ""  # time of day at which it began
    bar: tqdm | None = None


class Progress:
    """Shows a bar over all the work and one for each worker's job, or lines without a terminal.

    titles: what people call each cell that is to do, by id.
    seconds: on a CPU for a forward pass of one image, by network.
    """

    def __init__(self, titles: Mapping[str, str], seconds: Mapping[str, float], log: logging.Logger):
        self.titles, self.seconds, self.log = titles, seconds, log
        self.done, self.images = 0, 0
        self.gone, self.left = 0.0, 0.0  # seconds of a CPU; only their ratio matters
        self.started = time.perf_counter()
        self.workers: dict[str, Doing] = {}
        self.left_out: dict[str, str] = {}  # workers that may not take part: why
        self.plain = not sys.stderr.isatty()
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"
        self.bar = tqdm(total=1.0, bar_format=form, smoothing=0.02, disable=self.plain)

    def remains(self, left: float) -> None:
        """Show how much is to come, in seconds of a CPU."""
        self.left = left
        self.bar.total = self.gone + left
        self.bar.set_description_str(f"{self.done} of {len(self.titles)} cells", refresh=False)
        self.bar.update(self.gone - self.bar.n)

    def joined(self, worker: str, host: str) -> None:
        """Show that a worker takes part."""
        self.log.info("%s on %s takes part", worker, host)
        form = "{desc}{postfix}: {percentage:3.0f}%|{bar}|"
        shown = sum(doing.bar is not None for doing in self.workers.values()) < MOST_BARS
        bar = tqdm(total=1.0, bar_format=form, leave=False) if shown and not self.plain else None
        self.workers[worker] = Doing(host, bar=bar)

    def refused(self, worker: str, host: str, reason: str) -> None:
        """Show that a worker may not take part."""
        self.left_out[f"{worker} on {host}"] = reason
        self._print(f"{worker} on {host} LEFT OUT: {reason}")

    def lost(self, worker: str, reason: str) -> None:
        """Show that a worker is no more."""
        doing = self.workers.pop(worker, None)
        if doing is not None and doing.bar is not None:
            doing.bar.close()
        self._print(f"{worker}{f' on {doing.host}' if doing else ''} LOST: {reason}")

    def begun(self, worker: str, job: Job, work: float) -> None:
        """Show that a worker is at a job.

        work: forward-equivalents of single images that are to come.
        """
        doing = self.workers[worker]
        doing.job, doing.since = job.name, time.strftime("%H:%M:%S")
        if doing.bar is not None:
            doing.bar.reset(work)
            doing.bar.set_description_str(job.name)
        self.log.info("%s: %s", worker, job.name)

    def worked(self, worker: str, backbone: str, answer: Answer) -> float:
        """Show what a worker has done; return it in seconds of a CPU."""
        doing = self.workers[worker]
        self.images += sum(len(batch["source"]) for _, _, batch in answer.episodes)
        for work in answer.work:
            if doing.bar is not None:
                doing.bar.set_postfix_str(work.what, refresh=False)
                doing.bar.update(work.amount)
        if answer.ended or answer.fault is not None:
            doing.job = ""
        taken = sum(work.amount for work in answer.work) * self.seconds[backbone]
        self.gone += taken
        return taken

    def finished(self, cell: Cell) -> None:
        """Show that the result of a cell is written."""
        self.done += 1
        self._print(f"{cell.id}  {self.titles[cell.id]}")

    def failed(self, cell: Cell, reason: str, details: str) -> None:
        """Show that a cell was given up. details: a traceback, for the log."""
        self._print(f"{cell.id}  {self.titles[cell.id]} FAILED: {reason}")
        if details:
            self.log.error(details)

    def status(self) -> dict[str, Any]:
        """Return how far it is, for somebody who has only the folder."""
        taken = time.perf_counter() - self.started
        return {
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
            "cells": len(self.titles),
            "done": self.done,
            "seconds_left": self._seconds_left(),
            "images_per_second": self.images / taken,
            "workers": [
                {"worker": worker, "host": doing.host, "job": doing.job, "since": doing.since}
                for worker, doing in self.workers.items()
            ],
            "left_out": self.left_out,
        }

    def close(self) -> None:
        """Remove the bars."""
        for doing in self.workers.values():
            if doing.bar is not None:
                doing.bar.close()
        self.bar.close()

    def _seconds_left(self) -> float | None:
        """Return for how long it will go on at the rate it had so far; None where that is not known."""
        taken = time.perf_counter() - self.started
        return taken * self.left / self.gone if self.gone else None

    def _print(self, line: str) -> None:
        self.log.info(line)
        if self.plain:
            left = self._seconds_left()
            shown = "?" if left is None else tqdm.format_interval(left)
            print(f"[{self.done} of {len(self.titles)} cells, {shown} left] {line}", flush=True)
        else:
            self.bar.write(line)
