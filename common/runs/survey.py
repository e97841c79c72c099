"""What a sweep needs, as far as this machine has it."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from common.runs.grid import Cell, Target
from common.runs.jobs import Inputs, Job, TargetImages
from common.system.errors import UserError


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

    def passes(self, job: Job) -> int:
        """Return the forward-equivalents of single images that a job takes."""
        return self.size(job.cells[0]) * job.forwards

    def seconds(self, job: Job) -> float:
        """Return what a job takes on a CPU."""
        return self.passes(job) * self.inputs.cpu_seconds[job.cells[0].backbone]

    def missing_lines(self, cells: Iterable[Cell]) -> Iterator[str]:
        """Yield a line for each thing that is missing: for how many of the cells, why, and what to do."""
        needed: Counter[tuple[str, str]] = Counter()
        for cell in cells:
            for what, key in (
                (cell.weights, cell.weights),
                (cell.target.dataset, (cell.target, cell.limit)),
            ):
                if (reason := self.missing.get(key)) is not None:
                    needed[what, reason] += 1
        for (what, reason), count in needed.items():
            yield f"missing: {what}, for {count} cells: {reason}"


def survey(cells: Iterable[Cell], inputs: Inputs, args: argparse.Namespace) -> Survey:
    """Look for every checkpoint and read every label file, once."""
    found = Survey(inputs, {}, {}, {})
    for cell in cells:
        target = cell.target, cell.limit
        if target not in found.targets and target not in found.missing:
            try:
                try:
                    root = inputs.data_root(args.data_root)
                except UserError as error:
                    origin = inputs.origin(cell.target.dataset)
                    raise UserError(f"{error}; to be had from {origin}") from None
                found.targets[target] = inputs.images(*target, root, args.allow_missing)
            except UserError as error:
                found.missing[target] = str(error)
        if cell.weights not in found.sources and cell.weights not in found.missing:
            try:
                found.sources[cell.weights] = inputs.checkpoint(cell.weights, args.weights_dir)
            except UserError as error:
                found.missing[cell.weights] = str(error)
    return found
