"""Supervised training of a source network on human scores: what test-time adaptation starts from.

One recipe for every network: standardised scores, Huber and correlation loss, AdamW with warm-up and cosine.
`meta` instead learns over distortion types (Zhu et al., CVPR 2020). A teacher, another trained network, may
lend its features, which the first epochs learn, and its scores of the very view. docs/training.md says where
this differs from the papers.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torch.utils.data
from torch import Tensor, nn

from common.batches import Batch, Sample, Views, batch_order, load
from common.photographs import Photograph, read_rgb
from common.runs.metrics import agreement
from common.runs.scale import Scale
from common.system import torch_file
from common.system.errors import UserError, fault
from common.system.files import need_file
from common.system.output import whole_path
from common.system.seeds import digest, generator
from common.system.text import counted
from common.views import View
from common.y import YNetwork

KEEP = 1 << 29  # bytes of decoded photographs that a loader process keeps


@dataclass(frozen=True)
class Recipe:
    """How to train. Whatever decides the result is here, so that two runs of one recipe on one set agree."""

    seed: int = 0
    epochs: int = 20
    crops: int = 1  # random views of every photograph in an epoch
    batch_size: int = 32
    view: View = field(default_factory=View)  # of training; validation sees the one of the test
    small_epochs: int = 0  # how many epochs, the first, see views of `small` pixels instead
    small: int = 0
    distil_epochs: int = 0  # how many epochs, the first, learn the teacher's features and no scores
    distil: float = 0.5  # share of the teacher's scores in what the others learn, where there is a teacher
    lr: float = 1e-3  # at its peak
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of all steps
    correlation: float = 1.0  # weight of the correlation loss beside Huber's
    amp: bool = False  # bfloat16 where it is safe
    meta: bool = False  # over distortion types
    tasks: int = 4  # distortion types per step of `meta`
    inner_lr: float = 1e-3  # learning rate of the two inner steps of `meta`


class Parts(NamedTuple):
    """A data set in three parts, of which no two share a group."""

    train: list[Photograph]  # to learn from
    validation: list[Photograph]  # to choose the epoch by
    test: list[Photograph]  # to measure on

    def record(self) -> dict[str, dict[str, Any]]:
        """Return what a result says of each part: the number of images, and the groups."""
        return {
            name: {"images": len(part), "groups": sorted({photograph.group for photograph in part})}
            for name, part in self._asdict().items()
        }


@dataclass
class TrainingState:
    """Where a run stands, all of it tensors and numbers."""

    epoch: int  # how many are done
    best: float  # of the validation SROCC so far, -inf where it was never defined
    history: list[dict[str, float | None]]  # epoch, loss and validation_srocc of each epoch
    network: dict[str, Tensor]  # state dict
    optimiser: dict[str, Any]  # state dict
    bridge: dict[str, Tensor]  # state dict of the map to the teacher's features; empty without a teacher

    @property
    def improved(self) -> bool:
        """Whether the last epoch is better than all before; the first one always is."""
        *earlier, last = (row["validation_srocc"] for row in self.history)
        known = [srocc for srocc in earlier if srocc is not None]
        return not earlier or (last is not None and last > max(known, default=-math.inf))


def save_state(path: Path, config: dict[str, Any], state: TrainingState, seconds: float) -> None:
    """Write where a run of a configuration stands after so many seconds, at once or not at all."""
    with whole_path(path) as temporary:
        torch.save({"config": config, "progress": vars(state), "seconds": seconds}, temporary)


def load_state(path: Path, config: dict[str, Any]) -> tuple[TrainingState, float] | None:
    """Return where an interrupted run of this very configuration stood, and after how many seconds.

    None where there was none. Raises UserError for a file of another configuration, or a damaged one.
    """
    if not os.path.lexists(path):
        return None
    need_file(path, "file to go on from")
    try:
        found: Any = torch_file.read(path)
        state, seconds, before = TrainingState(**found["progress"]), float(found["seconds"]), found["config"]
        differing = sorted(name for name in config if before.get(name) != config[name])
    except Exception as error:  # as many kinds as there are ways to be damaged
        raise UserError(f"{path}: cannot be read ({fault(error)}); remove it to start again") from None
    if before != config:
        raise UserError(
            f"{path} is of a run with another {', '.join(differing)}: repeat its command, "
            "or leave out --resume"
        )
    return state, seconds


def check_size(network: nn.Module, size: int) -> None:
    """Raise UserError where the network cannot take images of this size."""
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, 3, size, size))
    except (RuntimeError, ValueError):
        raise UserError(
            f"this network does not take images of {size} x {size}: leave out --view-size"
        ) from None


def disjoint(
    photographs: Sequence[Photograph], seed: int, shares: tuple[float, float] = (0.15, 0.15)
) -> Parts:
    """Split by group: into the official parts where there are such, else at random by the seed.

    shares: of the groups for a validation and a test part that is drawn, each at least one group. Raises
    UserError where a group is in two official parts, or where too few groups are there to draw from.
    """
    official: dict[str, str] = {}  # by group
    for photograph in photographs:
        split = official.setdefault(photograph.group, photograph.split)
        if split != photograph.split:
            parts = " and ".join(sorted((split or "no", photograph.split or "no")))
            raise UserError(
                f"images of {photograph.group} are in {parts} part of the official split: keep one"
            )
    groups = sorted(official, key=lambda group: digest(seed, "split", group))
    held_out = {
        name: [group for group in groups if official[group] == name] for name in ("validation", "test")
    }
    free = [group for group in groups if official[group] not in held_out]
    drawn = {
        name: max(1, round(share * len(free))) for name, share in zip(held_out, shares) if not held_out[name]
    }
    if len(free) < sum(drawn.values()) + 1:
        raise UserError(
            f"{counted(len(groups), 'group')} of images cannot be split into training, validation and test: "
            "3 are needed"
        )
    for name, count in drawn.items():
        held_out[name], free = free[:count], free[count:]
    members = [set(free), set(held_out["validation"]), set(held_out["test"])]
    return Parts(*([p for p in photographs if p.group in part] for part in members))


def quality_loss(scores: Tensor, target: Tensor, correlation: float = 1.0) -> Tensor:
    """Return the Huber loss plus `correlation` times one minus Pearson's coefficient over the batch.

    scores, target: (N,), standardised.
    """
    a, b = scores - scores.mean(), target - target.mean()
    pearson = (a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-6)
    return F.huber_loss(scores, target) + correlation * (1 - pearson)


@dataclass(frozen=True)
class Teacher:
    """A trained network to learn from."""

    ynet: YNetwork
    output: tuple[float, float]  # what a mean score comes out as, and one deviation above it, less that

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Return the features of normalised images, (N, D), standardised over the batch."""
        found = self.ynet.features(x)
        return (found - found.mean(0)) / (found.std(0, correction=0) + 1e-3)

    @torch.no_grad()
    def scores(self, x: Tensor) -> Tensor:
        """Return the standardised scores of normalised images, (N,)."""
        return (self.ynet.predict(x) - self.output[0]) / self.output[1]


def learning_rate(step: int, steps: int, warmup: float) -> float:
    """Return the share of the peak: it rises linearly over the warm-up, then falls to zero as a cosine."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def predict(
    ynet: YNetwork, photographs: Sequence[Photograph], view: View, seed: int, workers: int
) -> np.ndarray:
    """Return the scores by the network in eval mode on one view of each photograph, (n,)."""
    ynet.network.eval()
    scores = np.empty(len(photographs))
    views = Views(photographs, seed, view)
    with torch.no_grad():
        for batch in load(views, batch_order(photographs, seed, 8), workers):
            scores[batch.indices] = ynet.predict(ynet.normalised(batch.clean)).float().cpu()
    return scores


class TrainingViews(torch.utils.data.Dataset):
    """Views of photographs, by (seed, side, index); what was decoded is kept while there is room."""

    def __init__(self, photographs: Sequence[Photograph], recipe: Recipe):
        self.photographs, self.recipe = photographs, recipe
        self.decoded: dict[Path, np.ndarray] = {}
        self.room = KEEP

    def __getitem__(self, at: tuple[int, int, int]) -> Sample | UserError:
        seed, side, index = at
        view = replace(self.recipe.view, size=side)
        return Views(self.photographs, seed, view, read=self._read)[index]

    def _read(self, path: Path) -> np.ndarray:
        if path not in self.decoded:
            image = read_rgb(path)
            if image.nbytes > self.room:
                return image
            self.room -= image.nbytes
            self.decoded[path] = image
        return self.decoded[path]


class Trainer:
    """Trains the network of `ynet` on the photographs of `parts.train`.

    output: what a mean score should come out as, and one standard deviation above it, less that.
    teacher: on the same device, with a Y that normalises alike; None for none.
    bar: called after every batch.
    """

    def __init__(
        self,
        ynet: YNetwork,
        parts: Parts,
        recipe: Recipe,
        *,
        output: tuple[float, float],
        test_view: View,
        teacher: Teacher | None = None,
        workers: int = 0,
        bar: Callable[[], object] = lambda: None,
    ):
        self.ynet, self.parts, self.recipe, self.output = ynet, parts, recipe, output
        self.test_view, self.teacher, self.workers, self.bar = test_view, teacher, workers, bar
        self.device = next(ynet.parameters()).device
        mos = np.array([photograph.mos for photograph in parts.train])
        self.scale = Scale.of(mos, output)
        self.target = torch.from_numpy((mos - mos.mean()) / mos.std()).float()
        ynet.network.requires_grad_(True)
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for parameter in ynet.network.parameters():
            (decayed if parameter.ndim > 1 else others).append(parameter)
        self.bridge = nn.Module()  # from the features to the teacher's
        if teacher is not None:
            self.bridge = nn.Linear(ynet.cut.width, teacher.ynet.cut.width).to(self.device)
            nn.init.zeros_(self.bridge.weight)  # the same whatever the state of the generators
            nn.init.zeros_(self.bridge.bias)
            decayed += self.bridge.parameters()
        groups = [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
        self.per_epoch = len(self._batches(0))

    @property
    def steps(self) -> int:
        """The number of batches of the whole run."""
        return self.recipe.epochs * self.per_epoch

    def epochs(self, start: TrainingState | None = None) -> Iterator[TrainingState]:
        """Train, from `start` if given, and yield after each epoch where the run stands.

        The tensors yielded are the live ones.
        """
        done, best, history = 0, -math.inf, []
        if start is not None:
            done, best, history = start.epoch, start.best, list(start.history)
            self.ynet.network.load_state_dict(start.network)
            self.optimiser.load_state_dict(start.optimiser)
            self.bridge.load_state_dict(start.bridge)
        rest = range(done, self.recipe.epochs)
        views = TrainingViews(self.parts.train, self.recipe)
        batches: Iterator[Batch] = load(
            views,
            [self._keyed(epoch, batch) for epoch in rest for batch in self._batches(epoch)],
            self.workers,
        )
        for epoch in rest:
            loss = self._epoch(epoch, batches)
            srocc = self.validate()
            history.append({"epoch": epoch + 1, "loss": loss, "validation_srocc": srocc})
            best = max(best, -math.inf if srocc is None else srocc)
            network, optimiser, bridge = self.ynet.network, self.optimiser, self.bridge
            yield TrainingState(
                epoch + 1, best, history, network.state_dict(), optimiser.state_dict(), bridge.state_dict()
            )

    def validate(self) -> float | None:
        """Return the SROCC on the groups set apart for it, None where it is not defined."""
        photographs = self.parts.validation
        scores = predict(self.ynet, photographs, self.test_view, self.recipe.seed, self.workers)
        if not np.isfinite(scores).all():
            raise UserError("training diverged: the scores are not finite; try a smaller --lr")
        return agreement(scores, np.array([photograph.mos for photograph in photographs]))["srocc"]

    def _epoch(self, epoch: int, batches: Iterator[Batch]) -> float:
        """Learn from the next `per_epoch` batches. Returns the mean loss."""
        recipe = self.recipe
        self.ynet.network.train()
        per_step = 2 * recipe.tasks if recipe.meta else 1
        total = torch.zeros((), device=self.device)
        waiting: list[Batch] = []
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self._seed(f"dropout {epoch}"))
            for i, batch in enumerate(itertools.islice(batches, self.per_epoch)):
                rate = recipe.lr * learning_rate(epoch * self.per_epoch + i, self.steps, recipe.warmup)
                waiting.append(batch)
                if len(waiting) == per_step:
                    total += self._meta_step(waiting, rate) if recipe.meta else self._step(batch, rate, epoch)
                    waiting.clear()
                self.bar()
        return float(total) * per_step / self.per_epoch

    def _seed(self, purpose: str) -> int:
        return int.from_bytes(digest(self.recipe.seed, purpose)[:7], "big")

    def _keyed(self, epoch: int, batch: Sequence[int]) -> list[tuple[int, int, int]]:
        """Return seed and side of the view and the photograph's index, for each index into `crops` passes."""
        n, recipe = len(self.parts.train), self.recipe
        side = recipe.small if epoch < recipe.small_epochs else recipe.view.size
        return [(self._seed(f"epoch {epoch} crop {index // n}"), side, index % n) for index in batch]

    def _batches(self, epoch: int) -> list[list[int]]:
        """Return batches of indices into `crops` passes over the training set.

        What does not fill a batch is left for other epochs.
        """
        recipe, n = self.recipe, len(self.parts.train)
        size = min(recipe.batch_size, n * recipe.crops)
        if recipe.meta:
            return self._task_batches(epoch, size)
        order = generator(recipe.seed, f"order {epoch}").permutation(n * recipe.crops)
        return [part.tolist() for part in np.split(order, range(size, len(order), size)) if len(part) == size]

    def _task_batches(self, epoch: int, size: int) -> list[list[int]]:
        """Return for each step, of each of `tasks` distortion types, a support and a query batch."""
        recipe, n = self.recipe, len(self.parts.train)
        kinds = sorted({photograph.kind for photograph in self.parts.train} - {"", "original"})
        members = {
            kind: np.array([i for i, p in enumerate(self.parts.train) if p.kind == kind]) for kind in kinds
        }
        if len(kinds) < 2:
            raise UserError(
                "meta-learning needs the distortion type of every image, and at least two types: "
                "use --recipe plain"
            )
        rng = generator(recipe.seed, f"tasks {epoch}")
        batches = []
        for _ in range(max(1, n * recipe.crops // (size * 2 * recipe.tasks))):
            for kind in rng.choice(len(kinds), recipe.tasks, replace=recipe.tasks > len(kinds)):
                own = members[kinds[kind]]
                drawn = rng.permuted(np.tile(own, -(-2 * size // len(own))))[: 2 * size]
                passes = rng.integers(recipe.crops, size=2 * size)
                batches += (passes * n + drawn).reshape(2, size).tolist()
        return batches

    def _amp(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.recipe.amp else nullcontext()

    def _images(self, batch: Batch) -> Tensor:
        return self.ynet.normalised(batch.clean).contiguous(memory_format=torch.channels_last)

    def _loss(self, batch: Batch) -> Tensor:
        x = self._images(batch)
        with self._amp():
            scores = self.ynet.predict(x)
        centre, spread = self.output
        target = self.target[batch.indices].to(self.device)
        if self.teacher is not None:
            target = target.lerp(self.teacher.scores(x).float(), self.recipe.distil)
        return quality_loss((scores.float() - centre) / spread, target, self.recipe.correlation)

    def _distillation_loss(self, batch: Batch) -> Tensor:
        """Return the mean squared error of the teacher's standardised features, as the bridge has them."""
        assert self.teacher is not None
        x = self._images(batch)
        with self._amp():
            features = self.bridge(self.ynet.features(x))
        return F.mse_loss(features.float(), self.teacher.features(x))

    def _step(self, batch: Batch, rate: float, epoch: int) -> Tensor:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss = self._distillation_loss(batch) if epoch < self.recipe.distil_epochs else self._loss(batch)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def _meta_step(self, batches: Sequence[Batch], rate: float) -> Tensor:
        """Take one step of meta-learning.

        From the same parameters, there is one Adam step on the support and one on the query batch of every
        type; then a share `rate` of the way to the mean of where they lead.
        """
        parameters = list(self.ynet.network.parameters())
        start = [parameter.detach().clone() for parameter in parameters]
        drift = [torch.zeros_like(parameter) for parameter in parameters]
        total = torch.zeros((), device=self.device)
        tasks = len(batches) // 2
        for support, query in zip(batches[::2], batches[1::2]):
            inner = torch.optim.Adam(parameters, lr=self.recipe.inner_lr)
            for batch in (support, query):
                inner.zero_grad()
                loss = self._loss(batch)
                loss.backward()
                inner.step()
            total += loss.detach() / tasks
            with torch.no_grad():
                for parameter, origin, sum_ in zip(parameters, start, drift):
                    sum_ += (origin - parameter) / tasks
                    parameter.copy_(origin)
        with torch.no_grad():
            for parameter, away in zip(parameters, drift):
                parameter.sub_(rate * away)
        return total
