"""Jobs: cells that share a network, images and views, for one seed; and what is needed to run them."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.photographs import Photograph
from common.runs.cell import Plan, shared_inputs
from common.runs.grid import Cell, Target
from common.y import YNetwork


@dataclass(frozen=True)
class TargetImages:
    """The images of a target on this machine."""

    photographs: Sequence[Photograph]
    record: dict[str, Any]  # what a result says of them

    @cached_property
    def digest(self) -> str:
        """Hash the images' names, in their order, and the sizes of their files."""
        listed = ((photograph.key, os.path.getsize(photograph.path)) for photograph in self.photographs)
        return hashlib.sha256(json.dumps(list(listed)).encode()).hexdigest()


class LoadedNetwork(NamedTuple):
    """A source on its device."""

    wrap: Callable[..., YNetwork]  # makes the Y that a protocol asks for
    record: dict[str, Any]  # what a result says of the weights: file, sha256


@dataclass(frozen=True)
class Inputs:
    """What a sweep asks of the folders of data and checkpoints; data/inputs.py has it.

    Its functions are found by their names, so that it can be sent to other machines.
    """

    data_root: Callable[[Path | None], Path]  # the folder of the data sets, given that of the command line
    images: Callable[[Target, int | None, Path, bool], TargetImages]  # of target, limit, root, allow_missing
    published_size: Callable[[Target], int]  # number of images, by those who published the data set
    origin: Callable[[str], str]  # where a data set is to be had
    checkpoint: Callable[[str, Path | None], Any]  # a checkpoint, by name, in a folder; has `record`
    network: Callable[[str, Any, torch.device], LoadedNetwork]  # of (backbone, checkpoint, device)
    cpu_seconds: Mapping[str, float]  # of a forward pass of one image, by backbone


@dataclass(frozen=True)
class Job:
    """Cells that share a network, images and views, for one seed: the unit that a worker takes."""

    cells: tuple[Cell, ...]
    seed: int

    @property
    def name(self) -> str:
        """What people call it."""
        first = self.cells[0]
        return f"{first.weights} on {first.target}, seed {self.seed}"

    @property
    def id(self) -> str:
        """16 hexadecimal digits that depend on its cells and its seed."""
        told = [*sorted(cell.id for cell in self.cells), str(self.seed)]
        return hashlib.sha256(" ".join(told).encode()).hexdigest()[:16]

    @property
    def network(self) -> tuple[str, str]:
        """The network that it loads: backbone, checkpoint."""
        return self.cells[0].backbone, self.cells[0].weights

    @property
    def forwards(self) -> int:
        """Forward-equivalents per image."""
        return Plan.of([cell.setting for cell in self.cells]).forwards

    def only(self, cells: Iterable[Cell]) -> "Job":
        """Return the job of some of its cells."""
        return Job(tuple(cells), self.seed)


def jobs(cells: Iterable[Cell]) -> list[Job]:
    """Group the distinct cells by what they share; the jobs of one network follow each other."""
    shared: dict[tuple, list[Cell]] = {}
    for cell in {cell.id: cell for cell in cells}.values():
        key = (
            (cell.backbone, cell.weights),
            (cell.target, cell.limit, cell.batch_size, cell.seeds),
            shared_inputs(cell.protocol),
            cell.setting.stateful,  # would keep the others from running several episodes at once
        )
        shared.setdefault(key, []).append(cell)
    return [Job(tuple(group), seed) for group in shared.values() for seed in group[0].seeds]


def part(work: Iterable[Job], number: int, of: int) -> list[Job]:
    """Return the share of one of several machines that know nothing of each other: every `of`-th job by id.

    work: all jobs, also those that are done, so that the shares stay what they are.
    """
    mine = {job.id for job in sorted(work, key=lambda job: job.id)[number - 1 :: of]}
    return [job for job in work if job.id in mine]
