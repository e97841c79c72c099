"""Test batches: for a seed, the images in the order of hash(seed, key), each with its view and its distorted
copies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.distortions import LEVELS, Severities, distort, unit
from common.photographs import Photograph, read_rgb
from common.system.errors import UserError
from common.system.seeds import digest, generator
from common.views import Placement, View, second_view

T = TypeVar("T")


class Batch(NamedTuple):
    """N images. indices: (N,), into the list of photographs. clean: (N, 3, S, S), in [0, 1]. pairs: (T, 2, N,
    3, S, S), T types of distortion, high and low. quarter_turns: (N,), of the rotation task. enlarged: how
    many were smaller than the crop. second_views: (N, 3, S, S) of each kind that was asked for, in [0, 1]."""

    indices: Tensor
    clean: Tensor
    pairs: Tensor
    quarter_turns: Tensor
    enlarged: int
    second_views: Mapping[str, Tensor] = MappingProxyType({})

    def only(self, kept: Tensor) -> "Batch":
        """The images where `kept`, (N,), holds. `enlarged` stays."""
        second = {kind: views[kept] for kind, views in self.second_views.items()}
        return self._replace(
            indices=self.indices[kept],
            clean=self.clean[kept],
            pairs=self.pairs[:, :, kept],
            quarter_turns=self.quarter_turns[kept],
            second_views=second,
        )


class Views(Dataset):
    """Decodes photographs and makes their views; what comes out depends on (seed, key) alone."""

    def __init__(
        self,
        photographs: Sequence[Photograph],
        seed: int,
        view: View,
        types: Sequence[str] = (),
        severities: Severities = Severities(),
        resize: tuple[int, int] | None = None,
        read: Callable[[Path], np.ndarray] = read_rgb,
        second_views: Sequence[str] = (),
    ):
        self.photographs = photographs
        self.seed = seed
        self.view = view
        self.types = types
        self.severities = severities
        self.resize = resize
        self.read = read
        self.second_views = second_views

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> tuple | UserError:
        key = self.photographs[index].key
        try:
            image = self.read(self.photographs[index].path)
        except UserError as error:  # raised again by the process that owns the terminal
            return error
        place = Placement.draw(self.view, self.resize, self.seed, key)
        crop = place(image)
        pairs = [
            self._distorted(image, crop, place, kind, level, key) for kind in self.types for level in LEVELS
        ]
        turns = generator(self.seed, "rotation", key).integers(4)
        others = {
            kind: second_view(kind, image, self.view.size, self.resize, self.seed, key)
            for kind in self.second_views
        }
        return index, unit(crop), pairs, turns, place.enlarges(image), others

    def _distorted(
        self, image: np.ndarray, crop: np.ndarray, place: Placement, kind: str, level: str, key: str
    ) -> np.ndarray:
        whole = self.severities.whole_image and kind != "blur"
        distorted = distort(image if whole else crop, kind, level, self.severities, self.seed, key)
        return unit(place((distorted * 255).round().astype(np.uint8))) if whole else distorted


def collate(samples: Sequence[tuple | UserError]) -> Batch | UserError:
    """Samples of Views -> Batch, or the first error among them."""
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    indices, crops, pairs, turns, enlarged, others = zip(*samples)
    size = crops[0].shape[0]
    clean = np.empty((len(samples), 3, size, size), dtype=np.float32)
    distorted = np.empty((len(pairs[0]), *clean.shape), dtype=np.float32)
    for n, crop in enumerate(crops):
        clean[n] = crop.transpose(2, 0, 1)
        for version, image in enumerate(pairs[n]):
            distorted[version, n] = image.transpose(2, 0, 1)
    return Batch(
        torch.tensor(indices),
        torch.from_numpy(clean),
        torch.from_numpy(distorted).unflatten(0, (-1, 2))
        if len(distorted)
        else torch.empty(0, 2, *clean.shape),
        torch.tensor(turns),
        sum(enlarged),
        {
            kind: torch.from_numpy(np.stack([views[kind].transpose(2, 0, 1) for views in others]))
            for kind in others[0]
        },
    )


def batch_order(photographs: Sequence[Photograph], seed: int, batch_size: int) -> list[list[int]]:
    """Indices of each batch: sorted by hash(seed, key), cut into batches, the short last one kept."""
    order = sorted(range(len(photographs)), key=lambda i: digest(seed, "order", photographs[i].key))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)


def collate_readable(samples: Sequence[tuple | UserError]) -> tuple[Batch | None, dict[int, str]]:
    """Samples of Views -> the batch of those that can be read, if any, and why the others cannot, by their
    place."""
    faults = {place: str(sample) for place, sample in enumerate(samples) if isinstance(sample, UserError)}
    good = [sample for sample in samples if not isinstance(sample, UserError)]
    return collate(good) if good else None, faults


def load(
    views: Dataset,
    batches: Sequence[Sequence],
    workers: int,
    collate: Callable[[Sequence], T | UserError] = collate,
) -> Iterator[T]:
    """The batches of these indices into the views. Raises UserError at the first image that cannot be read,
    unless `collate` makes something else of it."""
    loader = DataLoader(
        views,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # the loader draws worker seeds, which nothing here reads: not from the global state
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch
