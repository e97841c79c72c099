"""Reading a checkpoint that pickles a whole nn.Module, without running anything of the file's.

torch.load(weights_only=True) refuses such files, and in the older format it could not be told otherwise: they
announce each class of module, with its source code, as an external object. Here a class becomes a name, an
instance its attributes alone; what rebuilds a tensor is done here; any other call is refused. Nothing is
imported, so nothing of the file can run.

The reader derives from the unpickler that is written in Python, pickle._Unpickler, since the one in C cannot
be made as strict by overriding its methods:

- Its BUILD calls `__setstate__` of, or sets attributes on, whatever the file puts there, a real Tensor for
  example; its APPEND, SETITEM and ADDITEMS call methods of it.
- Its EXT1, EXT2 and EXT4 may take a real class from a cache of copyreg, past find_class.
- It reserves memory for the largest index that a PUT names: ten bytes of a file can ask for 32 GB.
- It hashes a nested tuple as deep as the file likes, which ends in a crash of the process.
"""

import io
import math
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

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
    pickle.UnpicklingError,
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
    """Raised for a file that asks for more than tensors, or is in no format of torch.save.

    The message says which.
    """

    def __init__(self, message: str):  # which quotes the file
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in message)[:200])


@dataclass(frozen=True)
class Name:
    """A class or function as the file names it; it is never looked up."""

    path: str  # dotted


@dataclass
class Instance:
    """An instance of some class, as the file describes it; the class is never looked up."""

    kind: str  # dotted name of its class
    attributes: dict = field(default_factory=dict)  # what the file wants to be its attributes


@dataclass
class Storage:
    """The memory of one or more tensors, of one dtype.

    Its data comes with the pickle in the zip format, and after it in the older one.
    """

    data: Tensor  # flat


def read(path: Path) -> object:
    """Return what a file of torch.save holds, in either format, every nn.Module replaced by its state dict.

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


def state_dict(module: Instance) -> dict[str, Tensor]:
    """Return parameters and persistent buffers of a module and of those below it, under PyTorch's names."""
    found: dict[str, Tensor] = {}
    _collect(module, "", found, ())
    return found


def _collect(module: Instance, prefix: str, found: dict[str, Tensor], above: tuple[int, ...]) -> None:
    if not isinstance(module, Instance) or id(module) in above:
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
    if isinstance(content, Instance) and "_modules" in content.attributes:
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
            # It could unpack to any size.
            raise Refused("a compressed archive, which torch.save does not write")
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

        return _Reader(io.BytesIO(archive.read(folder + "data.pkl")), storage).load()


def _read_legacy(file: BinaryIO) -> object:
    def none(*_: object) -> Storage:
        raise Refused("a tensor in the header")

    if _Reader(file, none).load() != MAGIC:
        raise Refused("no file of torch.save")
    _Reader(file, none).load()  # version of the format; there was only one
    system = _Reader(file, none).load()
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

    content = _Reader(file, storage).load()
    keys = _Reader(file, none).load()
    if not isinstance(keys, list) or set(_keys(keys)) != storages.keys():
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


OPCODES = {opcode.code: opcode.name for opcode in pickletools.opcodes}
KEPT = (  # opcodes that pickle's own methods may carry out: none of them looks up, calls or fills an object
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1, pickle.LONG4),
    *(pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
    *(pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET),
    *(pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT),
    *(pickle.MEMOIZE, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID),
)


class _Dispatch(dict[int, Callable[..., None]]):
    """The method that carries out each opcode; every other opcode is refused."""

    def __missing__(self, code: int) -> Callable[..., None]:
        raise Refused(f"the opcode {OPCODES[chr(code)]}")


class _Reader(pickle._Unpickler):
    """Reads one pickle up to its end, out of names, instances and tensors.

    `storage` is called with (dtype, key, numel, view) for the memory of tensors.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: BinaryIO, storage: Callable[..., Storage]):
        super().__init__(
            file, encoding="latin-1"
        )  # whatever bytes Python 2 left in the source code of a class
        self.storage = storage

    def find_class(self, module: str, name: str) -> Name:
        return Name(f"{module}.{name}")

    def persistent_load(self, pid: object) -> Name | Storage:
        return _external(_expect(pid, tuple), self.storage)

    def load_append(self) -> None:
        item = self.stack.pop()
        _expect(self.stack[-1], list).append(item)

    def load_appends(self) -> None:
        items = self.pop_mark()
        _expect(self.stack[-1], list).extend(items)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append(dict(zip(_keys(items[::2]), items[1::2], strict=True)))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _expect(self.stack[-1], dict).update(zip(_keys([key]), [value]))

    def load_setitems(self) -> None:
        items = self.pop_mark()
        _expect(self.stack[-1], dict).update(zip(_keys(items[::2]), items[1::2], strict=True))

    def load_additems(self) -> None:
        items = self.pop_mark()
        _expect(self.stack[-1], set).update(_keys(items))

    def load_reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self.stack.append(_call(_expect(called, Name), _expect(arguments, tuple)))

    def load_newobj(self) -> None:
        arguments, created = self.stack.pop(), self.stack.pop()
        path = _expect(created, Name).path
        self.stack.append(_call(created, _expect(arguments, tuple)) if path in CALLS else Instance(path))

    def load_build(self) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if isinstance(built, Instance):
            built.attributes.update(state if isinstance(state, dict) else {"state": state})
        elif not isinstance(built, OrderedDict):  # whose attributes are notes on versions, read by nobody
            raise Refused(f"a state for a {type(built).__name__}")

    dispatch = _Dispatch(
        {code[0]: pickle._Unpickler.dispatch[code[0]] for code in KEPT}
        | {
            pickle.APPEND[0]: load_append,
            pickle.APPENDS[0]: load_appends,
            pickle.DICT[0]: load_dict,
            pickle.SETITEM[0]: load_setitem,
            pickle.SETITEMS[0]: load_setitems,
            pickle.ADDITEMS[0]: load_additems,
            pickle.REDUCE[0]: load_reduce,
            pickle.NEWOBJ[0]: load_newobj,
            pickle.BUILD[0]: load_build,
        }
    )


def _keys(keys: Iterable) -> list:
    """Return the keys of a dict or set as they are.

    Raises Refused for a tuple of tuples: hashing goes down without any limit, and a deep one would end in a
    crash.
    """
    found = list(keys)
    if any(isinstance(key, tuple) and any(isinstance(part, tuple) for part in key) for key in found):
        raise Refused("a nested tuple as a key")
    return found


def _expect(value: object, kind: type[T]) -> T:
    """Return the value, which must be of this type. Raises Refused for another."""
    if not isinstance(value, kind):
        raise Refused(f"a {type(value).__name__} in place of a {kind.__name__}")
    return value


def _external(identity: tuple, storage: Callable[..., Storage]) -> Name | Storage:
    """Return an external object: the class of a module (class, file, source code), or memory of tensors."""
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
    """Return a tensor on its storage, within its bounds.

    What may follow (gradient wanted, hooks) is of no use here.
    """
    data = _expect(storage, Storage).data
    if not all(isinstance(number, int) for number in (offset, *size, *stride)):
        raise Refused("a tensor whose shape is not of numbers")
    last = offset + sum((side - 1) * step for side, step in zip(size, stride))
    length = math.prod(size)
    inside = (
        min((offset, *size, *stride)) >= 0 and len(size) == len(stride) and (length == 0 or last < len(data))
    )
    if not inside or length > len(data):  # the second would repeat itself, to any size
        raise Refused("a tensor outside its storage")
    return data.as_strided(size, stride, offset)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return _expect(data, Tensor)


def _set(items: Sequence = ()) -> set:
    return set(_keys(items))


def _ordered(items: Sequence = ()) -> OrderedDict:
    pairs = [tuple(pair) for pair in items]
    _keys(key for key, _ in pairs)
    return OrderedDict(pairs)


CALLS: Mapping[str, Callable] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,  # before PyTorch 0.4.1
    # An attribute of every module before PyTorch 1.4.
    "torch.nn.backends.thnn._get_thnn_function_backend": lambda: None,
    "torch.Size": lambda *size: tuple(*size),
    "collections.OrderedDict": _ordered,
    "builtins.set": _set,
    "__builtin__.set": _set,
}
