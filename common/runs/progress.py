"""How far a sweep is: bars on a terminal, lines elsewhere, and all of it in a log."""

import logging
import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from common.runs.sweep import CellFailed, CellFinished, Event, JobStarted, WorkDone


class Progress:
    """Shows a bar over all the work and one for the job in hand of each device, or lines without a terminal.

    total: seconds that the work takes on a CPU; only what is gone of them matters.
    titles: what people call each cell, by id.
    seconds: on a CPU for a forward pass of one image, by network.
    """

    def __init__(
        self,
        total: float,
        titles: Mapping[str, str],
        seconds: Mapping[str, float],
        devices: int,
        log: logging.Logger,
    ):
        self.titles, self.seconds, self.log = titles, seconds, log
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

    def tell(self, device: int, event: Event) -> None:
        """Show what the worker of a device has just done."""
        match event:
            case JobStarted(name, backbone, work):
                self._drop(device)
                self.left[device] = work, self.seconds[backbone]
                self.inner[device].reset(work)
                self.inner[device].set_description_str(name)
                self.log.info("%s", name)
            case WorkDone(what, work):
                left, cost = self.left[device]
                self.left[device] = left - work, cost
                self.inner[device].set_postfix_str(what, refresh=False)
                self.inner[device].update(work)
                self._advance(work * cost)
            case CellFinished(cell):
                self.done += 1
                self._advance(0.0)
                self._print(f"{cell.id}  {self.titles[cell.id]}")
            case CellFailed(cell, reason, details):
                self._print(f"{cell.id}  {self.titles[cell.id]} FAILED: {reason}")
                if details:
                    self.log.error(details)

    def lost(self, device: int, reason: str) -> None:
        """Show that a device does no more work."""
        self._print(f"device {device} LOST: {reason}")

    def close(self) -> None:
        """Remove the bars."""
        for bar in (*self.inner, self.bar):
            bar.close()

    def _drop(self, device: int) -> None:
        """Take what is left of a job off the total: when the next begins it was there already, at no cost."""
        left, cost = self.left[device]
        self.total -= left * cost
        self.bar.total = self.total

    def _advance(self, seconds: float) -> None:
        self.gone += seconds
        self.bar.set_description_str(f"{self.done} of {len(self.titles)} cells", refresh=False)
        self.bar.update(seconds)

    def _print(self, line: str) -> None:
        self.log.info(line)
        if self.plain:
            taken = time.perf_counter() - self.started
            left = tqdm.format_interval(max(0.0, taken * (self.total / self.gone - 1))) if self.gone else "?"
            print(f"[{self.done} of {len(self.titles)} cells, {left} left] {line}", flush=True)
        else:
            self.bar.write(line)
