"""Check that networks, losses and adaptation compute what the authors' released code computes, to 1e-6 in
float64.

    python -m scripts.verify_reference tests/golden/*.npz

Each file holds what the released code gave on weights and inputs that anyone can rebuild from the seed in it.
Prints the largest error of every array, relative to the array's scale, and ends in `ok` or `FAIL` (exit
status 0 or 1).
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.adapter import Adapter, Source, StackedBatches, score_source
from common.distortions import TYPES, blur
from common.protocols import METHODS, Method, Protocol
from common.system.cli import Parser
from common.system.errors import UserError, command
from common.y import YNetwork
from weights.networks import BACKBONES

TOLERANCE = 1e-6
STRENGTHS = {"compression": ("comp", 0.8, 0.2), "noise": ("nos", 1.0, 0.3)}  # name, high, low
META = (
    "backbone",
    "seed",
    "batch",
    "niter",
    "lr",
    "p",
    "temperature",
    "sigma_high",
    "sigma_low",
    "head",
    "keys",
)
STORED = 512  # about how many values of a long array a file keeps


def rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def recipe_weight(key: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Value of the state-dict entry `key`."""
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
    """n normalised images, (n, 3, side, side): 16 x 16 blocks plus noise, contrast growing with the index."""
    draw = rng(seed, name)
    blocks = draw.standard_normal((n, 3, side // 16, side // 16)).repeat(16, axis=2).repeat(16, axis=3)
    contrast = np.linspace(0.4, 1.6, n)[:, None, None, None]
    return contrast * blocks + 0.3 * draw.standard_normal((n, 3, side, side))


@dataclass(frozen=True)
class Reference:
    """One file: meta says what was run, arrays what came out."""

    meta: dict
    arrays: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> "Reference":
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            meta = json.loads(str(arrays.pop("meta")))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not a reference file ({error})") from None
        lacking = [name for name in META if not isinstance(meta, dict) or name not in meta]
        lacking += [name for name in ("source", "features") if name not in arrays]
        if lacking:
            raise UserError(f"{path}: not a reference file, it lacks {', '.join(lacking)}")
        if meta["backbone"] not in BACKBONES:
            raise UserError(f"{path}: backbone {meta['backbone']!r} is none of {', '.join(BACKBONES)}")
        return cls(meta, arrays)

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(name.split("/")[0] for name in self.arrays if "/" in name))

    def network(self) -> nn.Module:
        network = BACKBONES[self.meta["backbone"]].network().double()
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
        """The head's entries in the file are the linear layers in their order, under the numbers of the
        release."""
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
        """The batch, with the pairs of every distortion type."""
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


def method_of(run: str, meta: dict) -> Method:
    base = METHODS["rank"] if run in TYPES else METHODS.get(run)
    if base is None:
        raise UserError(f"the file has a run {run!r} that is not known here")
    return replace(base, distortion=run if run in TYPES else "best", p=meta["p"], niter=meta["niter"])


def thinned(x: Tensor) -> np.ndarray:
    return x.detach().flatten()[:: max(1, x.numel() // STORED)].numpy()


def computed(reference: Reference, runs: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a file that stand for these runs or for none, computed here."""
    backbone = BACKBONES[reference.meta["backbone"]]
    protocol = backbone.protocols["released"]
    for name in ("lr", "temperature"):
        if reference.meta[name] != getattr(protocol, name):
            raise UserError(
                f"the file was made with {name} {reference.meta[name]}, the protocol has {getattr(protocol, name)}"
            )
    network, images = reference.network(), reference.images()
    ynet = backbone.wrap(network, protocol)
    chooses = "gaps" in reference.arrays or any(METHODS[run].types for run in runs if run in METHODS)
    source = score_source(ynet, images, protocol, chooses)
    yield "source", source.scores.numpy()
    if chooses:
        yield "gaps", source.gaps.numpy()
        yield "choice", source.choice.numpy()
    with torch.no_grad():
        features = ynet.features(images.clean)
    yield "features", features[:, :: features.shape[1] // reference.arrays["features"].shape[1]].numpy()
    for run in runs:
        reference.fill_head(ynet, run)
        yield from computed_run(run, ynet, protocol, method_of(run, reference.meta), images, source)


def computed_run(
    run: str, ynet: YNetwork, protocol: Protocol, method: Method, images: StackedBatches, source: Source
) -> Iterator[tuple[str, np.ndarray]]:
    adapter = Adapter(ynet, protocol, method)
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
    yield f"{run}/prediction", adapter.answer(images, state).numpy()


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected magnitude; infinite where the shapes differ or a
    value is NaN."""
    if found.shape != expected.shape:
        return float("inf")
    difference = np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(float).tiny)
    return float(difference) if np.isfinite(difference) else float("inf")


def verify(path: Path, only: Sequence[str] | None = None) -> bool:
    """Compare one file, or only some of its runs, and print how each array fares."""
    reference = Reference.read(path)
    runs = reference.runs if only is None else list(only)
    unknown = [run for run in runs if run not in reference.runs]
    if unknown or not runs:
        raise UserError(
            f"{path}: no run {', '.join(unknown)}; its runs are {', '.join(reference.runs) or 'none'}"
        )
    print(f"{path}: {reference.meta['backbone']}, seed {reference.meta['seed']}", flush=True)
    wanted = {name for name in reference.arrays if "/" not in name or name.split("/")[0] in runs}
    agreed = True
    for name, found in tqdm(
        computed(reference, runs), total=len(wanted), unit="array", leave=False, disable=None
    ):
        if name not in wanted:  # a file need not store all that is computed
            continue
        wanted.remove(name)
        largest = error(found, reference.arrays[name])
        agreed &= largest <= TOLERANCE
        tqdm.write(f"  {name:32s} {largest:8.1e}  {'ok' if largest <= TOLERANCE else 'FAIL'}")
    for name in sorted(wanted):
        agreed = False
        print(f"  {name:32s} {'-':>8s}  FAIL: not computed here")
    return agreed


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m scripts.verify_reference", description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz")
    parser.add_argument(
        "--runs",
        nargs="+",
        metavar="RUN",
        help="only these, of rank gc rank+gc rotation and the distortion types",
    )
    args = parser.parse_args(argv)
    agreed = [verify(path, args.runs) for path in args.files]
    print("ok" if all(agreed) else "FAIL")
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    raise SystemExit(main())
