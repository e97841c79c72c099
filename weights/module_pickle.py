"""Checkpoints that pickle a whole nn.Module, read without running anything of theirs.

torch.load(weights_only=True) refuses such files, and in the older format it could not be told otherwise: they
announce each class of module, with its source code, as an external object. Here every opcode is interpreted
by hand, which Python's own unpickler does not allow for. A class becomes a name, an instance a bag of
attributes; what rebuilds a tensor is done here; any other call is refused. Nothing is imported, so nothing of
the file can run.
"""

import io
import math
import os
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C  # opens the format of torch.save before PyTorch 1.6
DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}

MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    EOFError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
)


class Refused(Exception):
    """The file asks for a call that rebuilds no tensor, or is not in a format of torch.save; the message says
    which."""

    def __init__(self, message: str):  # which quotes the file
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in message)[:200])


@dataclass(frozen=True)
class Name:
    """A class or function as the file names it; never looked up."""

    path: str


@dataclass
class Bag:
    """An instance of some class: its name and what the file wants to be its attributes."""

    kind: str
    attributes: dict = field(default_factory=dict)


@dataclass
class Storage:
    """Memory of tensors, of one dtype. Its data comes with the pickle in one format, and after it in the
    other."""

    data: Tensor


def read(path: Path) -> object:
    """What a file of torch.save holds, in either format, every nn.Module replaced by its state dict.

    Raises Refused for a call that rebuilds no tensor and for any other kind of file; OSError if it cannot be
    read.
    """
    try:
        with path.open("rb") as file:
            in_zip = zipfile.is_zipfile(file)
            file.seek(0)
            content = _read_zip(file) if in_zip else _read_legacy(file)
        return _without_modules(content)
    except MALFORMED as error:
        # Whatever a malformed stream runs into; a deep one ends in RecursionError, which is a RuntimeError.
        raise Refused(f"no well-formed checkpoint ({type(error).__name__}: {error})") from None


def state_dict(module: Bag) -> dict[str, Tensor]:
    """Parameters and persistent buffers of a module and of those below it, named as PyTorch names them."""
    found: dict[str, Tensor] = {}
    _collect(module, "", found, ())
    return found


def _collect(module: Bag, prefix: str, found: dict[str, Tensor], above: tuple[int, ...]) -> None:
    if not isinstance(module, Bag) or id(module) in above:
        raise Refused(f"{prefix or 'the module'} is no tree of modules")
    own = module.attributes
    for group in ("_parameters", "_buffers"):
        for key, value in own.get(group, {}).items():
            if value is not None and key not in own.get("_non_persistent_buffers_set", ()):
                found[prefix + key] = value
    for key, value in own.get("_modules", {}).items():
        if value is not None:
            _collect(value, f"{prefix}{key}.", found, (*above, id(module)))


def _without_modules(content: object) -> object:
    if isinstance(content, Bag) and "_modules" in content.attributes:
        return state_dict(content)
    if isinstance(content, dict):
        return {key: _without_modules(value) for key, value in content.items()}
    return content


def _read_zip(file: BinaryIO) -> object:
    with zipfile.ZipFile(file) as archive:
        folders = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(folders) != 1 or folders[0] + "constants.pkl" in archive.namelist():
            raise Refused("no archive of torch.save")
        folder = folders[0]
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise Refused(
                "a compressed archive, which torch.save does not write"
            )  # it could unpack to any size
        if folder + "byteorder" in archive.namelist() and archive.read(folder + "byteorder") != b"little":
            raise Refused("data of a big-endian machine")
        storages: dict[str, Storage] = {}

        def storage(dtype: torch.dtype, key: str, numel: int, view: object) -> Storage:
            if key not in storages:
                data = bytearray(archive.read(f"{folder}data/{key}"))
                if len(data) != numel * dtype.itemsize:
                    raise Refused(f"storage {key} has {len(data)} bytes, not {numel * dtype.itemsize}")
                storages[key] = Storage(
                    torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
                )
            return storages[key]

        return _interpret(io.BytesIO(archive.read(folder + "data.pkl")), storage)


def _read_legacy(file: BinaryIO) -> object:
    def none(*_: object) -> Storage:
        raise Refused("a tensor in the header")

    if _interpret(file, none) != MAGIC:
        raise Refused("no file of torch.save")
    _interpret(file, none)  # version of the format; there was only one
    system = _interpret(file, none)
    if not (isinstance(system, dict) and system.get("little_endian")):
        raise Refused("data of a big-endian machine")
    size = os.fstat(file.fileno()).st_size
    storages: dict[str, Storage] = {}

    def storage(dtype: torch.dtype, key: str, numel: int, view: tuple[str, int, int] | None) -> Storage:
        if key not in storages:
            if not 0 <= numel * dtype.itemsize <= size:
                raise Refused(f"storage {key} is larger than the file")
            storages[key] = Storage(torch.zeros(numel, dtype=dtype))
        whole = storages[key]
        return whole if view is None else Storage(whole.data[view[1] : view[1] + view[2]])

    content = _interpret(file, storage)
    keys = _interpret(file, none)
    if not isinstance(keys, list) or set(keys) != storages.keys():
        raise Refused("data of other storages than its tensors have")
    for key in keys:
        data = storages[key].data
        (numel,) = struct.unpack("<q", file.read(8))
        raw = file.read(data.nbytes)
        if numel != len(data) or len(raw) != data.nbytes:
            raise Refused(f"storage {key} is cut off")
        if raw:
            data.copy_(torch.frombuffer(bytearray(raw), dtype=data.dtype))
    return content


MARK = object()
CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: MARK,
}
LITERALS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"} | {
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
GET, PUT = {"GET", "BINGET", "LONG_BINGET"}, {"PUT", "BINPUT", "LONG_BINPUT"}
SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _interpret(file: BinaryIO, storage: Callable[..., Storage]) -> object:
    """Read one pickle up to its end. storage(dtype, key, numel, view) is asked for the memory of tensors."""
    stack: list = []
    memo: dict[int, object] = {}

    def to_mark() -> list:
        items = []
        while (item := stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def above(count: int) -> list:
        items = [stack.pop() for _ in range(count)]
        return items[::-1]

    for code, argument, _ in pickletools.genops(file):
        name = code.name
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name in GET:
            stack.append(memo[int(argument)])
        elif name in PUT:
            memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in SHORT_TUPLES:
            stack.append(tuple(above(SHORT_TUPLES[name])))
        elif name in ("TUPLE", "LIST"):
            stack.append({"TUPLE": tuple, "LIST": list}[name](to_mark()))
        elif name == "DICT":
            items = to_mark()
            stack.append(dict(zip(items[::2], items[1::2])))
        elif name in ("APPEND", "APPENDS"):
            items = above(1) if name == "APPEND" else to_mark()
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = above(2) if name == "SETITEM" else to_mark()
            _expect(stack[-1], dict).update(zip(items[::2], items[1::2]))
        elif name == "ADDITEMS":
            items = to_mark()
            _expect(stack[-1], set).update(items)
        elif name == "GLOBAL":
            stack.append(Name(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(Name(".".join(_expect(part, str) for part in above(2))))
        elif name == "BINPERSID":
            stack.append(_external(_expect(stack.pop(), tuple), storage))
        elif name == "REDUCE":
            called, arguments = above(2)
            stack.append(_call(_expect(called, Name), _expect(arguments, tuple)))
        elif name == "NEWOBJ":
            created, arguments = above(2)
            path = _expect(created, Name).path
            stack.append(_call(created, _expect(arguments, tuple)) if path in CALLS else Bag(path))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Bag):
                stack[-1].attributes.update(state if isinstance(state, dict) else {"state": state})
            elif not isinstance(
                stack[-1], OrderedDict
            ):  # whose attributes are notes on versions, read by nobody
                raise Refused(f"a state for a {type(stack[-1]).__name__}")
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise Refused(f"the opcode {name}")
    raise Refused("the end is missing")


def _expect(value: object, kind: type):
    if not isinstance(value, kind):
        raise Refused(f"a {type(value).__name__} in place of a {kind.__name__}")
    return value


def _external(identity: tuple, storage: Callable[..., Storage]) -> Name | Storage:
    """An external object: the class of a module (class, file, source code), or the memory of tensors."""
    what = _expect(identity[0], str)
    if what == "module":
        return _expect(identity[1], Name)
    if what != "storage":
        raise Refused(f"an external {what}")
    _, kind, key, _, numel, *view = identity
    dtype = DTYPES.get(_expect(kind, Name).path.rpartition(".")[2])
    if dtype is None:
        raise Refused(f"a storage of {kind.path}")
    return storage(dtype, _expect(key, str), _expect(numel, int), view[0] if view else None)


def _call(called: Name, arguments: tuple) -> object:
    if called.path not in CALLS:
        raise Refused(f"a call of {called.path}")
    return CALLS[called.path](*arguments)


def _tensor(
    storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    """A tensor on its storage, within its bounds. What may follow (gradient wanted, hooks) is of no use
    here."""
    data = _expect(storage, Storage).data
    last = offset + sum((side - 1) * step for side, step in zip(size, stride))
    length = math.prod(size)  # more than its storage has would be one that repeats itself, to any size
    if (
        min((offset, *size, *stride)) < 0
        or len(size) != len(stride)
        or length > len(data)
        or (length and last >= len(data))
    ):
        raise Refused("a tensor outside its storage")
    return data.as_strided(size, stride, offset)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return _expect(data, Tensor)


def _set(items: list = ()) -> set:
    return set(items)


def _ordered(items: list = ()) -> OrderedDict:
    return OrderedDict(tuple(pair) for pair in items)


CALLS: Mapping[str, Callable] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,  # before PyTorch 0.4.1
    "torch.nn.backends.thnn._get_thnn_function_backend": lambda: (
        None
    ),  # an attribute of every module before PyTorch 1.4
    "torch.Size": lambda *size: tuple(*size),
    "collections.OrderedDict": _ordered,
    "builtins.set": _set,
    "__builtin__.set": _set,
}
