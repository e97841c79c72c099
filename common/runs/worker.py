"""A worker of a sweep: runs the episodes of one job after the other, and knows nothing of the results.

It is asked for a few seconds of work at a time, and answers with the episodes that it has finished. What it
dies with is what it had not answered yet.
"""

import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from common.runs.cell import FinishedEpisode, episodes_of
from common.runs.grid import Target
from common.runs.jobs import Inputs, Job, LoadedNetwork, TargetImages
from common.system.code import code_digest
from common.system.device import default_episodes, environment
from common.system.errors import UserError
from common.system.precision import PRECISIONS, precision

MUST_AGREE = ("torch", "torchvision", "numpy", "pillow", "opencv-python-headless", "opencv-python", "timm")


@dataclass(frozen=True)
class Expected:
    """What a worker must have to take part: else its numbers would be of something else."""

    code: str  # digest of the source files
    versions: Mapping[str, str]  # of the packages in MUST_AGREE, without what stands behind a "+"
    device: str | None  # cpu, cuda or mps; None: any
    images: Mapping[tuple[Target, int | None], str]  # by target and limit: TargetImages.digest
    weights: Mapping[str, str]  # by name of the checkpoint: sha256


@dataclass(frozen=True)
class Checked:
    """What a worker says before its first job."""

    reason: str | None  # why it cannot take part, in one line
    host: str
    device: str  # cpu, cuda or mps
    environment: Mapping[str, str | int]  # as results record it


@dataclass(frozen=True)
class Work:
    """Work that was done, for the bars."""

    what: str  # name of the method, or "source"
    amount: float  # forward-equivalents of single images


@dataclass
class Answer:
    """What a worker has finished of its job since it was last asked."""

    episodes: list[tuple[int, int, dict[str, Any]]] = field(default_factory=list)  # cell, batch, what it gave
    work: list[Work] = field(default_factory=list)
    ended: bool = False  # nothing of the job is left
    fault: str | None = None  # why it cannot go on, in one line
    details: str = ""  # its traceback, "" where the line says it all


def versions(found: Mapping[str, str | int]) -> dict[str, str]:
    """Return the versions that must agree, of an environment."""
    return {name: str(found[name]).partition("+")[0] for name in MUST_AGREE if name in found}


@dataclass
class Worker:
    """Runs jobs on one device."""

    inputs: Inputs
    root: Path | None  # folder of the data sets, None: by IQA_DATA_ROOT
    allow_missing: bool  # go without images that are not there
    weights: Path | None  # folder of the checkpoints
    device: torch.device
    loaders: int  # loader processes
    precision: str = PRECISIONS[0]
    targets: dict[tuple[Target, int | None], TargetImages] = field(default_factory=dict)
    network: tuple[tuple[str, str], LoadedNetwork] | None = None  # the last one, kept for the next job
    episodes: Iterator[tuple[int, int, dict[str, Any]]] | None = None  # of the job in hand
    work: list[Work] = field(default_factory=list)  # since it was last asked

    def check(self, expected: Expected) -> Checked:
        """Return whether code, packages, device, images and checkpoints are the launcher's."""
        found = environment(self.device)
        return Checked(self._fault(expected, found), socket.gethostname(), self.device.type, found)

    def begin(self, job: Job, done: Sequence[frozenset[int]], seconds: float) -> Answer:
        """Begin a job and work for some seconds. What it had in hand is dropped.

        done: of each cell, the batches that are there already. Those of a cell whose episodes depend on the
            ones before are all or none.
        """
        self.episodes, self.work = self._episodes(job, done), []
        return self.go_on(seconds)

    def go_on(self, seconds: float) -> Answer:
        """Work for some more seconds at the job in hand, for one episode at least."""
        assert self.episodes is not None
        answer = Answer()
        deadline = time.monotonic() + seconds
        try:
            with precision(self.precision, self.device):
                for episode in self.episodes:
                    answer.episodes.append(episode)
                    if time.monotonic() >= deadline:
                        break
                else:
                    answer.ended, self.episodes = True, None
        except Exception as error:  # of whatever kind: it has nothing to do with other jobs
            self.episodes = None
            known = isinstance(error, UserError)
            answer.fault = str(error) if known else f"{type(error).__name__}: {error}"
            answer.details = "" if known else "".join(traceback.format_exception(error))
        answer.work, self.work = self.work, []
        return answer

    def images(self, target: Target, limit: int | None) -> TargetImages:
        """Return the images of a target on this machine, which are looked for once."""
        if (target, limit) not in self.targets:
            root = self.inputs.data_root(self.root)
            self.targets[target, limit] = self.inputs.images(target, limit, root, self.allow_missing)
        return self.targets[target, limit]

    def _episodes(
        self, job: Job, done: Sequence[frozenset[int]]
    ) -> Iterator[tuple[int, int, dict[str, Any]]]:
        first = job.cells[0]
        network = self._network(*job.network)
        images = self.images(first.target, first.limit)
        name = str(environment(self.device)["device"])
        episodes = episodes_of(
            network.wrap,
            images.photographs,
            [cell.setting for cell in job.cells],
            job.seed,
            batch_size=first.batch_size,
            at_once=1 if first.setting.stateful else default_episodes(self.device),
            workers=self.loaders,
            finished=lambda setting, number: number in done[setting],
            tell=lambda what, size, forwards: self.work.append(Work(what, size * forwards)),
        )
        for episode in episodes:
            yield episode.setting, episode.number, {**_batch(episode), "device": name}

    def _network(self, backbone: str, weights: str) -> LoadedNetwork:
        if self.network is None or self.network[0] != (backbone, weights):
            self.network = None  # free the memory first
            checkpoint = self.inputs.checkpoint(weights, self.weights)
            self.network = (backbone, weights), self.inputs.network(backbone, checkpoint, self.device)
        return self.network[1]

    def _fault(self, expected: Expected, found: Mapping[str, str | int]) -> str | None:
        if (code := code_digest()) != expected.code:
            return f"its code is another one (digest {code[:12]}, here {expected.code[:12]}): use one commit"
        own = versions(found)
        for name in sorted({*own, *expected.versions}):
            if own.get(name) != expected.versions.get(name):
                return (
                    f"its {name} is {own.get(name, 'not there')}, here it is "
                    f"{expected.versions.get(name, 'not there')}: install the same"
                )
        if expected.device not in (None, self.device.type):
            return f"its device is {self.device.type}, that of the others {expected.device}"
        try:
            for (target, limit), digest in expected.images.items():
                if self.images(target, limit).digest != digest:
                    return f"its images of {target} are others, by their names and sizes: copy them anew"
            for name, sha256 in expected.weights.items():
                own_sha256 = self.inputs.checkpoint(name, self.weights).sha256
                if own_sha256 != sha256:
                    return f"its {name} has sha256 {own_sha256[:12]}, not {sha256[:12]}: copy it anew"
        except (UserError, OSError) as error:
            return str(error)
        return None


def _batch(episode: FinishedEpisode) -> dict[str, Any]:
    """Return a finished episode as the journal keeps it; `common.runs.store` has the inverse."""
    outcome = episode.outcome
    return {
        "source": outcome.source.tolist(),
        "adapted": outcome.adapted.tolist(),
        "choice": outcome.choice.tolist(),
        "losses": outcome.losses.tolist(),
        "group_left_out": outcome.group_left_out,
        "fell_back": outcome.fell_back,
        "enlarged": episode.batch.enlarged,
        "seconds": episode.seconds,
    }
