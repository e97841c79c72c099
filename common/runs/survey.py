"""What a sweep needs, as far as this machine has it."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.runs.grid import Cell, Target
from common.runs.sweep import Job, LoadedNetwork, TargetImages
from common.system.errors import UserError


@dataclass(frozen=True)
class Inputs:
    """What a sweep asks of the folders of data and checkpoints; data/inputs.py has it."""

    datasets: Sequence[str]  # names of the data sets that an experiment may adapt to
    data_root: Callable[[Path | None], Path]  # the folder of the data sets, given that of the command line
    images: Callable[[Target, int | None, Path, bool], TargetImages]  # of target, limit, root, allow_missing
    published_size: Callable[[Target], int]  # number of images, by those who published the data set
    checkpoint: Callable[[str, Path | None], Any]  # a checkpoint, by name, in a folder
    network: Callable[[str, Any, torch.device], LoadedNetwork]  # of (backbone, checkpoint, device)
    cpu_seconds: Mapping[str, float]  # of a forward pass of one image, by backbone


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
