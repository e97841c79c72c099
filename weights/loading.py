"""Checkpoints into networks, strictly, and without ever executing what a file brings along."""

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from common.system.errors import UserError
from weights import module_pickle

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "params",
    "model",
)  # under which training code stores a state dict
SPLIT = {
    "model_backbone_state_dict": "backbone.",
    "model_transformer_state_dict": "transformer.",
}  # two in one file

PYIQA_HYPERIQA = {  # IQA-PyTorch builds the same HyperIQA from lists of modules: its prefixes, and the authors'
    "base_model.": "res.",
    "conv1.": "conv1.",
    **{f"lda_modules.{i}.0.": f"res.lda{i + 1}_pool.0." for i in range(3)},
    **{f"lda_modules.{i}.3.": f"res.lda{i + 1}_fc." for i in range(3)},
    "lda_modules.3.2.": "res.lda4_fc.",
    **{f"fc_w_modules.{i}.": f"fc{i + 1}w_conv." for i in range(4)},
    "fc_w_modules.4.2.": "fc5w_fc.",
    **{f"fc_b_modules.{i}.2.": f"fc{i + 1}b_fc." for i in range(5)},
}

UNREADABLE = (
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    struct.error,
)


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill a network from a checkpoint: a state dict, bare or wrapped, of torch.save or safetensors.

    Every entry must fit by name and shape. Raises UserError that names the entries which do not.
    """
    fill(network, read_state_dict(path), path)


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """The same from what was read of the file already; path: what errors call it."""
    own, given = network.state_dict(), dict(state)
    for key in own.keys() - given.keys():
        if key.endswith(
            "num_batches_tracked"
        ):  # not in files of PyTorch before 0.4.1, and read by nobody here
            given[key] = own[key]
    missing, unknown = own.keys() - given.keys(), given.keys() - own.keys()
    misshapen = [
        f"{key} is {tuple(given[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & given.keys()
        if given[key].shape != own[key].shape
    ]
    faults = [
        f"{len(keys)} entries {what} ({', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if keys
    ]
    if not faults and any(value.is_meta for value in given.values()):
        faults = ["its tensors have no data"]
    if faults:
        raise UserError(
            f"{path} does not fit this network: {'; '.join(faults)}. Is it a checkpoint of another one?"
        )
    broken = sorted(
        key for key, value in given.items() if value.is_floating_point() and not value.isfinite().all()
    )
    if broken:
        raise UserError(
            f"{path} holds values that are not finite ({', '.join(broken[:3])}): the file is damaged"
        )
    network.load_state_dict(given)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint file, on the CPU."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = _content(path)
    except module_pickle.Refused as error:
        raise UserError(
            f"{path} holds more than tensors, or is no checkpoint: it was not loaded, since a pickle can execute code "
            f"({error}). Save the state dict alone"
        ) from None
    except (OSError, RuntimeError, EOFError, SafetensorError) as error:
        fault = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: cannot be read as a checkpoint ({fault})") from None
    return _unwrapped(content, path)


def _content(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE:  # more than tensors, perhaps a whole module; or damaged, which shows there again
        return module_pickle.read(path)


def _unwrapped(content: object, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict) and all(isinstance(content.get(part), dict) for part in SPLIT):
        content = {
            prefix + str(key): value for part, prefix in SPLIT.items() for key, value in content[part].items()
        }
    for _ in WRAPPERS:  # none is wrapped in more of them, and a file may wrap itself
        if isinstance(content, dict):
            content = next(
                (content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), content
            )
    if not _is_state_dict(content):
        raise UserError(f"{path} holds no state dict: save network.state_dict() of the source network")
    if all(key.startswith("module.") for key in content):  # of nn.DataParallel
        content = {key.removeprefix("module."): value for key, value in content.items()}
    if "lda_modules.0.0.weight" in content:
        content = {_renamed(key): value for key, value in content.items()}
    return dict(content)


def _is_state_dict(content: object) -> bool:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _renamed(key: str) -> str:
    prefix = next((prefix for prefix in PYIQA_HYPERIQA if key.startswith(prefix)), "")
    return PYIQA_HYPERIQA.get(prefix, "") + key.removeprefix(prefix)
