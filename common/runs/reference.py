"""What the authors' released code gave on weights and inputs that anyone can rebuild; the same here.

Weights and images are drawn from a file's seed and their names.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.adapter import Adapter, Source, StackedBatches, score_source
from common.distortions import TYPES, blur
from common.protocols import METHODS, Method, Protocol
from common.system.errors import UserError, fault, shown
from common.system.files import need_file
from common.y import Backbone, YNetwork

STRENGTHS = {"compression": ("comp", 0.8, 0.2), "noise": ("nos", 1.0, 0.3)}  # name, high, low


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1000


def _shapes(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(shape, list) and all(type(side) is int for side in shape) for shape in value.values()
    )


META: dict[str, Callable[[Any], bool]] = {  # what is known of a file, and whether a value of it can be
    "backbone": lambda value: isinstance(value, str),
    "seed": _whole(0, (1 << 63) - 1),
    "batch": _whole(1, 64),
    "niter": _whole(1, 1000),
    "lr": _positive,
    "p": _positive,
    "temperature": _positive,
    "sigma_high": _positive,
    "sigma_low": _positive,
    "head": lambda value: isinstance(value, dict) and all(map(_shapes, value.values())),
    "keys": _shapes,
}
LARGEST = 1 << 28  # bytes of a file's arrays, unpacked; those of tests/golden have 2^18
STORED = 512  # about how many values of a long array a file keeps


def _runs(arrays: Mapping[str, np.ndarray]) -> list[str]:
    return list(dict.fromkeys(name.split("/")[0] for name in arrays if "/" in name))


def rng(seed: int, name: str) -> np.random.Generator:
    """Return the generator of everything that is called `name`."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def recipe_weight(key: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Return the value of the state-dict entry `key`."""
    draw = rng(seed, key)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        return draw.uniform(0.8, 1.2, shape)
    if key.endswith("running_mean"):
        return 0.05 * draw.standard_normal(shape)
    if len(shape) == 1:
        return 0.02 * draw.standard_normal(shape)
    gain = 0.6 if len(shape) == 4 else 1.0
    return draw.standard_normal(shape) * np.sqrt(gain / int(np.prod(shape[1:])))


def recipe_images(seed: int, name: str, n: int, side: int = 224) -> np.ndarray:
    """Return n normalised images, (n, 3, side, side): 16 x 16 blocks plus noise, of growing contrast."""
    draw = rng(seed, name)
    blocks = draw.standard_normal((n, 3, side // 16, side // 16)).repeat(16, axis=2).repeat(16, axis=3)
    contrast = np.linspace(0.4, 1.6, n)[:, None, None, None]
    return contrast * blocks + 0.3 * draw.standard_normal((n, 3, side, side))


@dataclass(frozen=True)
class Reference:
    """What the released code gave on weights and inputs that anyone can rebuild."""

    meta: dict[str, Any]  # what was run: backbone, seed, batch size, ...
    arrays: dict[str, np.ndarray]  # what came out, by name; RUN/NAME where it is of one run
    backbone: Backbone  # the network here

    @classmethod
    def read(cls, path: Path, backbones: Mapping[str, Backbone]) -> "Reference":
        """Read a file. Raises UserError where it is none of its kind, or of a network that is not there."""
        need_file(path, "reference file")
        try:
            with zipfile.ZipFile(path) as archive:
                if (unpacked := sum(info.file_size for info in archive.infolist())) > LARGEST:
                    raise ValueError(f"unpacked it has {unpacked} bytes")
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            meta = json.loads(str(arrays.pop("meta")))
            wrong = [name for name, fits in META.items() if not fits(meta[name])]
            wrong += [
                name for name, array in arrays.items() if array.dtype.kind not in "fiub" or not array.size
            ]
            wrong += ["source"] * (arrays["source"].ndim != 1) + ["features"] * (arrays["features"].ndim != 2)
            wrong += [
                f"head of {run}" for run in _runs(arrays) if not isinstance(meta["head"].get(run), dict)
            ]
            if wrong:
                raise ValueError(f"its {shown(wrong)} cannot be")
        except Exception as error:  # of as many kinds as there are ways to be damaged
            raise UserError(f"{path}: not a reference file ({fault(error)})") from None
        if meta["backbone"] not in backbones:
            raise UserError(f"{path}: backbone {meta['backbone']!r} is none of {', '.join(backbones)}")
        return cls(meta, arrays, backbones[meta["backbone"]])

    @property
    def runs(self) -> list[str]:
        """The runs that the file has arrays of."""
        return _runs(self.arrays)

    def network(self) -> nn.Module:
        """Return the network with the weights of the file's seed, in double precision."""
        network = self.backbone.network().double()
        own = network.state_dict()
        keys = {key: tuple(shape) for key, shape in self.meta["keys"].items()}
        if keys != {key: tuple(value.shape) for key, value in own.items()}:
            raise UserError(
                f"the {self.meta['backbone']} of the file has other state-dict entries than the one here"
            )
        weights = {
            key: own[key]
            if key.endswith(".filter")
            else torch.from_numpy(recipe_weight(key, shape, self.meta["seed"]))
            for key, shape in keys.items()
        }
        network.load_state_dict(weights)
        return network

    def fill_head(self, ynet: YNetwork, run: str) -> None:
        """Give the head the weights of the file's seed.

        Its entries in the file are the linear layers in their order, under the numbers of the release.
        """
        linears = [layer for layer in (ynet.head, ynet.classifier) if layer is not None]
        entries = iter(self.meta["head"][run].items())
        with torch.no_grad():
            for layer in linears:
                for parameter in (layer.weight, layer.bias):
                    entry = next(entries, None)
                    if entry is None:
                        return
                    key, shape = entry
                    if tuple(shape) != tuple(parameter.shape):
                        raise UserError(
                            f"the head of the file has {key} of {shape}, here {list(parameter.shape)}"
                        )
                    parameter.copy_(torch.from_numpy(recipe_weight(f"head.{key}", shape, self.meta["seed"])))

    def images(self) -> StackedBatches:
        """Return the batch, with the pairs of every distortion type."""
        seed, n = self.meta["seed"], self.meta["batch"]
        clean = recipe_images(seed, "clean", n)
        pairs = {
            kind: [
                clean + strength * rng(seed, f"{name}_{level}").standard_normal(clean.shape)
                for level, strength in (("high", high), ("low", low))
            ]
            for kind, (name, high, low) in STRENGTHS.items()
        }
        channels_last = [image.transpose(1, 2, 0) for image in clean]
        pairs["blur"] = [
            np.stack([blur(image, self.meta[f"sigma_{level}"]).transpose(2, 0, 1) for image in channels_last])
            for level in ("high", "low")
        ]
        versions = torch.from_numpy(np.stack([pairs[kind] for kind in TYPES]))
        return StackedBatches([n], TYPES, torch.from_numpy(clean), versions, torch.arange(n) % 4)


def method_of(run: str, meta: dict[str, Any]) -> Method:
    """Return the method of a run: one of METHODS, or rank with one distortion type."""
    base = METHODS["rank"] if run in TYPES else METHODS.get(run)
    if base is None:
        raise UserError(f"the file has a run {run!r} that is not known here")
    return replace(base, distortion=run if run in TYPES else "best", p=meta["p"], niter=meta["niter"])


def thinned(x: Tensor) -> np.ndarray:
    """Return about STORED of the values of a long tensor."""
    return x.detach().flatten()[:: max(1, x.numel() // STORED)].numpy()


def computed(reference: Reference, runs: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a file that stand for these runs or for none, computed here."""
    protocol = reference.backbone.protocols["released"]
    for name in ("lr", "temperature"):
        if reference.meta[name] != getattr(protocol, name):
            raise UserError(
                f"the file was made with {name} {reference.meta[name]}, "
                f"the protocol has {getattr(protocol, name)}"
            )
    network, images = reference.network(), reference.images()
    ynet = reference.backbone.wrap(network, protocol)
    ynet.mean.zero_()  # the images of a file are normalised
    ynet.std.fill_(1)
    chooses = "gaps" in reference.arrays or any(METHODS[run].types for run in runs if run in METHODS)
    source = score_source(ynet, images, protocol, chooses)
    yield "source", source.scores.numpy()
    if chooses:
        assert source.gaps is not None and source.choice is not None
        yield "gaps", source.gaps.numpy()
        yield "choice", source.choice.numpy()
    with torch.no_grad():
        features = ynet.features(images.clean)
    step = max(1, features.shape[1] // reference.arrays["features"].shape[1])
    yield "features", features[:, ::step].numpy()
    for run in runs:
        reference.fill_head(ynet, run)
        yield from computed_run(run, ynet, protocol, method_of(run, reference.meta), images, source)


def computed_run(
    run: str, ynet: YNetwork, protocol: Protocol, method: Method, images: StackedBatches, source: Source
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of one run: its losses, what was adapted, and the scores."""
    adapter = Adapter(ynet, protocol, method)
    assert adapter.adaptable is not None  # every run of a reference file adapts
    *_, (state, losses) = adapter.steps(images, source, adapter.groups(images, source), method.niter)
    yield f"{run}/loss", losses[:, 0].numpy()
    for kind, tensors, ending in (
        ("bn_weight", state.parameters, ".weight"),
        ("bn_bias", state.parameters, ".bias"),
        ("bn_running_mean", state.buffers, ".running_mean"),
        ("bn_running_var", state.buffers, ".running_var"),
    ):
        yield (
            f"{run}/{kind}",
            thinned(torch.cat([tensors[name + ending][0] for name in adapter.adaptable.layers])),
        )
    yield f"{run}/prediction", adapter.answer(images.clean, state).numpy()


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest expected magnitude.

    It is infinite where the shapes differ or a value is NaN.
    """
    if found.shape != expected.shape:
        return float("inf")
    difference = np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(float).tiny)
    return float(difference) if np.isfinite(difference) else float("inf")
