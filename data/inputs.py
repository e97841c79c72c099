"""Networks and images from the folders of this machine, as the commands ask for them."""

from functools import partial
from pathlib import Path

import torch

from common.photographs import Photograph
from common.runs.grid import Target
from common.runs.jobs import Inputs, LoadedNetwork, TargetImages
from common.system.errors import UserError
from common.system.seeds import digest
from common.system.text import counted
from data.catalogue import DATASETS, data_root, folder_of
from data.dataset import read_dataset
from weights.loading import network_with
from weights.manifest import SourceFile, located
from weights.networks import BACKBONES, CPU_SECONDS


def network(backbone: str, source: SourceFile, device: torch.device) -> LoadedNetwork:
    """Return the named network with the weights of a checkpoint, on the device, and what a result says of it.

    Raises UserError as `network_with` does.
    """
    module = network_with(backbone, source, device)
    return LoadedNetwork(partial(BACKBONES[backbone].wrap, module), source.record)


def images(target: Target, limit: int | None, root: Path, allow_missing: bool = False) -> TargetImages:
    """Return the photographs of a target below the data root.

    limit: only so many, those whose names have the smallest hashes.
    """
    dataset = DATASETS[target.dataset]
    reading = read_dataset(dataset, folder_of(dataset, root), target.subset, None, allow_missing)
    photographs = reading.photographs
    if target.between is not None:
        low, high = target.between
        photographs = [p for p, score in zip(photographs, reading.published()) if low < score <= high]
    photographs = limited(photographs, limit)
    if len(photographs) < 2:
        raise UserError(
            f"{dataset.title}, {target}: {counted(len(photographs), 'image')}; a correlation needs at least 2"
        )
    return TargetImages(photographs, reading.record())


def limited(photographs: list[Photograph], limit: int | None) -> list[Photograph]:
    """Return those whose names have the smallest hashes, so many, in their order; None: all."""
    if limit is None:
        return photographs
    by_hash = sorted((p.key for p in photographs), key=lambda key: digest(0, "limit", key))
    kept = set(by_hash[:limit])
    return [p for p in photographs if p.key in kept]


def published_size(target: Target) -> int:
    """Return the number of images of a target's subset as published, 0 where it is not known."""
    subsets = DATASETS[target.dataset].subsets
    return subsets[target.subset or next(iter(subsets))] or 0


def origin(dataset: str) -> str:
    """Return where a data set is to be had."""
    return DATASETS[dataset].source


INPUTS = Inputs(  # for the launcher in common/, which imports neither data/ nor weights/
    data_root=data_root,
    images=images,
    published_size=published_size,
    origin=origin,
    checkpoint=located,
    network=network,
    cpu_seconds=CPU_SECONDS,
)
