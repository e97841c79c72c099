"""Test batches: for a seed, the images in the order of hash(seed, key), with views and distorted copies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.distortions import LEVELS, WHOLE, Severities, distort, unit
from common.photographs import Photograph, read_rgb
from common.system.errors import UserError
from common.system.seeds import digest, generator
from common.views import Placement, View, second_view


class Sample(NamedTuple):
    """One photograph as the loader makes it; S is the side of the view."""

    number: int  # index into the list of photographs
    crop: np.ndarray  # (S, S, 3), uint8
    types: tuple[str, ...]  # of the distorted copies
    copies: list[np.ndarray]  # of each type high and low, (S, S, 3), uint8, or float32 in [0, 1]
    quarter_turns: int  # of the rotation task, 0..3
    enlarged: bool  # the photograph is smaller than the view, and was scaled up
    second_views: dict[str, np.ndarray]  # (S, S, 3), likewise, of each kind that was asked for


class Batch(NamedTuple):
    """N images, on the CPU: bytes where that is all there is to know of them, else in [0, 1]."""

    indices: Tensor  # (N,), into the list of photographs
    clean: Tensor  # (N, 3, S, S)
    types: tuple[str, ...]  # of the T pairs
    # T of (2, N, 3, S, S), the strongly and the weakly distorted copy (LEVELS), in one tensor or in several.
    pairs: Sequence[Tensor] | Tensor
    quarter_turns: Tensor  # (N,), of the rotation task
    enlarged: int = 0  # how many images were smaller than the view
    second_views: Mapping[str, Tensor] = MappingProxyType({})  # kind -> (N, 3, S, S)

    def only(self, kept: Tensor) -> "Batch":
        """Return the images where `kept`, (N,), holds. `enlarged` stays."""
        return self._replace(
            indices=self.indices[kept],
            clean=self.clean[kept],
            pairs=[pair[:, kept] for pair in self.pairs],
            quarter_turns=self.quarter_turns[kept],
            second_views={kind: views[kept] for kind, views in self.second_views.items()},
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
        read: Callable[[Path], np.ndarray] = read_rgb,
        second_views: Sequence[str] = (),
    ):
        self.photographs = photographs
        self.seed = seed
        self.view = view
        self.types = tuple(types)
        self.severities = severities
        self.read = read
        self.second_views = second_views

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> Sample | UserError:
        photograph = self.photographs[index]
        key, resize = photograph.key, photograph.resize
        try:
            image = self.read(photograph.path)
        except UserError as error:  # raised again by the process that owns the terminal
            return error
        place = Placement.draw(self.view, resize, self.seed, key)
        crop = place(image)
        return Sample(
            index,
            crop,
            self.types,
            [
                self._distorted(image, crop, place, kind, level, key)
                for kind in self.types
                for level in LEVELS
            ],
            int(generator(self.seed, "rotation", key).integers(4)),
            place.enlarges(image),
            {
                kind: second_view(kind, image, self.view.size, resize, self.seed, key)
                for kind in self.second_views
            },
        )

    def _distorted(
        self, image: np.ndarray, crop: np.ndarray, place: Placement, kind: str, level: str, key: str
    ) -> np.ndarray:
        if not self.severities.whole_image or kind == "blur":
            return distort(crop, kind, level, self.severities, self.seed, key)
        part = place.part(image)
        distorted = _bytes(distort(image, kind, level, self.severities, self.seed, key, part or WHOLE))
        return place.flipped(distorted) if part else place(distorted)


def _bytes(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else (image * 255).round().astype(np.uint8)


def collate(samples: Sequence[Sample | UserError]) -> Batch | UserError:
    """Put samples of Views into one batch, or return the first error among them."""
    good = []
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        good.append(sample)
    first = good[0]
    versions = list(zip(*(sample.copies for sample in good)))  # N copies, of each type high and low
    pairs = [versions[start : start + len(LEVELS)] for start in range(0, len(versions), len(LEVELS))]
    return Batch(
        torch.tensor([sample.number for sample in good]),
        _stacked([sample.crop for sample in good]),
        first.types,
        [_stacked(list(chain(*pair))).unflatten(0, (-1, len(good))) for pair in pairs],
        torch.tensor([sample.quarter_turns for sample in good]),
        sum(sample.enlarged for sample in good),
        {kind: _stacked([sample.second_views[kind] for sample in good]) for kind in first.second_views},
    )


def _stacked(images: Sequence[np.ndarray]) -> Tensor:
    """Return images, (S, S, 3), as (N, 3, S, S), channels last in memory; bytes if all of them are."""
    if len({image.dtype for image in images}) > 1:
        images = [unit(image) for image in images]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def shuffled(photographs: Sequence[Photograph], seed: int) -> list[int]:
    """Return the indices of the photographs in the order of hash(seed, key)."""
    return sorted(range(len(photographs)), key=lambda i: digest(seed, "order", photographs[i].key))


def by_mos(photographs: Sequence[Photograph], seed: int) -> list[int]:
    """Return the indices from the lowest MOS to the highest: a stream whose batches have one quality each."""
    return sorted(shuffled(photographs, seed), key=lambda i: photographs[i].mos)


Order = Callable[[Sequence[Photograph], int], list[int]]  # of photographs, from the seed


def cut(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut indices into batches; the last may be short."""
    return [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]


def batch_order(photographs: Sequence[Photograph], seed: int, batch_size: int) -> list[list[int]]:
    """Return the indices of each test batch of a seed."""
    return cut(shuffled(photographs, seed), batch_size)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)


def collate_readable(samples: Sequence[Sample | UserError]) -> tuple[Batch | None, dict[int, str]]:
    """Put the samples that can be read into one batch, if there are any, and say why the others cannot.

    Returns the batch and the reasons, by position among the samples.
    """
    faults = {position: str(found) for position, found in enumerate(samples) if isinstance(found, UserError)}
    good = [sample for sample in samples if not isinstance(sample, UserError)]
    batch = collate(good) if good else None
    assert not isinstance(batch, UserError)
    return batch, faults


def load(views: Dataset, batches: Sequence[list], workers: int) -> Iterator[Batch]:
    """Load the batches of these indices into the views. Raises UserError at an image that cannot be read."""
    for batch in _loader(views, batches, workers, collate):
        if isinstance(batch, UserError):
            raise batch
        yield batch


def load_readable(
    views: Dataset, batches: Sequence[list], workers: int
) -> Iterator[tuple[Batch | None, dict[int, str]]]:
    """Load the same without the images that cannot be read, and say why by their positions in the batch."""
    yield from _loader(views, batches, workers, collate_readable)


def _loader(views: Dataset, batches: Sequence[list], workers: int, collate: Callable) -> DataLoader:
    return DataLoader(
        views,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # it draws seeds that nothing reads: not from the global state
    )
