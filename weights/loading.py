"""Loading checkpoints into networks, strictly, and without ever executing what a file brings along."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from common.system import torch_file
from common.system.errors import UserError, fault, shown
from common.system.files import need_file
from common.system.output import whole_path
from common.system.text import counted
from weights.manifest import SourceFile
from weights.networks import BACKBONES

WRAPPERS = ("state_dict", "model_state_dict", "params", "model")  # names under which training code stores one
Rename = Callable[[dict[str, Tensor]], dict[str, Tensor]]

DTYPES = set(torch_file.DTYPES.values())
SHARED = 4  # how many times the size of its file the tensors of a checkpoint may have together


def load_weights(network: nn.Module, path: Path, rename: Rename = dict) -> None:
    """Fill a network from a checkpoint: a state dict, bare or wrapped, of torch.save or safetensors.

    rename: to the network's names, from those of other projects that build it; Backbone.rename.
    Every entry must fit by name and shape. Raises UserError that names the entries which do not.
    """
    fill(network, rename(read_state_dict(path)), path)


def network_with(name: str, source: SourceFile, device: torch.device) -> nn.Module:
    """Return the named network with the weights of a checkpoint, on the device.

    Raises UserError where the checkpoint is of another network, damaged, or not the file that was downloaded.
    """
    source.verify(name)
    network = BACKBONES[name].network()
    load_weights(network, source.path, BACKBONES[name].rename)
    return network.to(device).to(memory_format=torch.channels_last)


def save_weights(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str], half: bool = False
) -> None:
    """Write a state dict as safetensors, at once or not at all.

    metadata: what the file says of itself. half: whether to store floating-point weights in half precision.
    """
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu().clone()
        for name, tensor in state.items()
    }
    with whole_path(path) as temporary:
        # Not save_file, whose files nobody but their owner may read.
        temporary.write_bytes(save({name: x.contiguous() for name, x in tensors.items()}, dict(metadata)))


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Fill a network from what was read of a file already, in the same way; errors call the file `path`."""
    own, given = network.state_dict(), dict(state)
    for key in own.keys() - given.keys():
        if key.endswith("num_batches_tracked"):  # not in files of PyTorch before 0.4.1; read by nobody here
            given[key] = own[key]
    missing, unknown = own.keys() - given.keys(), given.keys() - own.keys()
    misshapen = [
        f"{key} is {tuple(given[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & given.keys()
        if given[key].shape != own[key].shape
    ]
    faults = [
        f"{counted(len(keys), 'entry', 'entries')} {what} ({shown(sorted(keys))})"
        for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if keys
    ]
    if faults:
        raise UserError(
            f"{path} does not fit this network: {'; '.join(faults)}. Is it a checkpoint of another one?"
        )
    broken = sorted(
        key for key, value in given.items() if value.is_floating_point() and not value.isfinite().all()
    )
    if broken:
        raise UserError(f"{path} holds values that are not finite ({shown(broken)}): the file is damaged")
    network.load_state_dict(given)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return names and tensors of a checkpoint file, on the CPU.

    Where it holds the state dicts of several modules, their entries are called MODULE.ENTRY.
    Raises UserError for anything else than state dicts of dense, real tensors.
    """
    need_file(path, "checkpoint")
    try:
        content = load_file(path) if is_safetensors(path) else torch_file.read(path)
    except torch_file.Refused as error:
        raise UserError(
            f"{path} holds more than tensors, or is no checkpoint: it was not loaded, since a pickle can "
            f"execute code ({error}). Save the state dict alone"
        ) from None
    except Exception as error:  # of the file system, or of safetensors
        raise UserError(f"{path}: cannot be read as a checkpoint ({fault(error)})") from None
    state = _unwrapped(content, path)
    odd = [f"{key} is {value.dtype}" for key, value in state.items() if value.dtype not in DTYPES]
    if odd:
        raise UserError(f"{path} holds tensors that no network here has ({shown(odd)}): is it another file?")
    # Tensors may share their memory, as tied weights do: who copies each could be made to fill all memory.
    if sum(value.nbytes for value in state.values()) > SHARED * path.stat().st_size:
        raise UserError(f"{path} holds tensors of {SHARED} times its size: it was not loaded")
    return state


def is_safetensors(path: Path) -> bool:
    """Return whether a file is one of safetensors, by its name or, as while it arrives, by how it begins."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"  # after eight bytes of length; pickles and archives have none there


def _unwrapped(content: object, path: Path) -> dict[str, Tensor]:
    for _ in WRAPPERS:  # none is wrapped in more of them, and a file may wrap itself
        if isinstance(content, dict):
            wrapped = (content[name] for name in WRAPPERS if isinstance(content.get(name), dict))
            content = next(wrapped, content)
    state = content if _is_state_dict(content) else _joined(content)
    if state is None:
        raise UserError(f"{path} holds no state dict: save network.state_dict() of the source network")
    if all(key.startswith("module.") for key in state):  # of nn.DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def _joined(content: object) -> dict[str, Tensor] | None:
    """Return the entries of several state dicts in one file; None where there are not several."""
    if not isinstance(content, dict) or len(content) > 100:
        return None
    parts = {name: value for name, value in content.items() if _is_state_dict(value)}
    entries, letters = sum(map(len, parts.values())), max(map(len, map(str, parts)), default=0)
    if len(parts) < 2 or entries > torch_file.ENTRIES or letters > torch_file.NAME:  # a part may be shared
        return None
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}
