"""Reading files of torch.save, without running anything of theirs and within bounds.

torch.load(weights_only=True) refuses a file that pickles a whole nn.Module, and a crafted one of a few KB
crashes it or keeps it busy for ever. Here a class becomes a name, an instance its attributes alone; what
rebuilds a tensor is done here; any other call is refused. Nothing is imported, so nothing of the file can
run. Nothing is reserved that the file does not hold, and work and memory for all else have a fixed bound.

The reader derives from the unpickler that is written in Python, pickle._Unpickler, since the one in C cannot
be made as strict by overriding its methods:

- Its BUILD calls `__setstate__` of, or sets attributes on, whatever the file puts there, a real Tensor for
  example; its APPEND, SETITEM and ADDITEMS call methods of it.
- Its EXT1, EXT2 and EXT4 may take a real class from a cache of copyreg, past find_class.
- It reserves memory for the largest index that a PUT names: ten bytes of a file can ask for 32 GB.
- It hashes a nested tuple as deep as the file likes, which ends in a crash of the process.
"""

import io
import itertools
import math
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor

from common.system.text import printable, shortened

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

# What a file may ask for, an order of magnitude above the whole training state of the networks here.
PICKLED = 1 << 23  # bytes of all its pickles, where an opcode counts for OPCODE at least
OPCODE = 8  # an object takes up to 200 bytes, and one byte of a file makes one
COPIED = 1 << 21  # entries of containers that calls and attributes take over, which may be shared
CALL = 8  # entries that a call counts for beside its own: a tensor takes 10 microseconds
DIRECTORY = 1 << 24  # bytes of an archive's list of files
ENTRIES = 100_000  # of a state dict, and of the modules it is made from
DEPTH = 100  # of modules, and of dicts, in each other
NAME = 1000  # letters of an entry's name


class Refused(Exception):
    """Raised for a file that asks for more than tensors, or is in no format of torch.save.

    The message says which.
    """

    def __init__(self, message: str):  # which quotes the file
        super().__init__(shortened(printable(message[:1000]), 200))


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
            end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # as zipfile.is_zipfile, but it says where
            if end and end[zipfile._ECD_SIZE] > DIRECTORY:  # type: ignore[attr-defined]
                raise Refused("an archive of too many files")
            file.seek(0)
            content = _read_zip(file) if end else _read_legacy(file)
        return _without_modules(content, {}, DEPTH, itertools.count())
    except (Refused, OSError):
        raise
    except Exception as error:  # whatever a malformed stream runs into
        raise Refused(f"no well-formed checkpoint ({type(error).__name__}: {error})") from None


def state_dict(module: Instance) -> dict[str, Tensor]:
    """Return parameters and persistent buffers of a module and of those below it, under PyTorch's names."""
    return dict(_entries(module, "", DEPTH, itertools.count()))


def _entries(module: Instance, prefix: str, depth: int, seen: Iterator[int]) -> Iterator[tuple[str, Tensor]]:
    """Yield the entries of a module. What is below it may be shared, so that a small file holds endless ones.

    seen: counts what is looked at.
    """
    if not isinstance(module, Instance) or not depth:
        raise Refused(f"{shortened(prefix, 60) or 'the module'} is no tree of modules")
    own = module.attributes
    hidden = _expect(own.get("_non_persistent_buffers_set", set()), set)
    for group in ("_parameters", "_buffers", "_modules"):
        for key, value in own.get(group, {}).items():
            if next(seen) > ENTRIES or len(prefix) + len(key) > NAME:
                raise Refused(f"modules of more than {ENTRIES} entries, or with names of {NAME} letters")
            if value is None or key in hidden:
                continue
            if group == "_modules":
                yield from _entries(value, f"{prefix}{key}.", depth - 1, seen)
            else:
                yield prefix + key, _expect(value, Tensor)


def _without_modules(content: object, known: dict[int, object], depth: int, seen: Iterator[int]) -> object:
    """Return the content with a state dict in place of every module.

    known: what was made of each dict and module, by its id: one may be shared, or hold itself. seen: as for
    `_entries`.
    """
    if id(content) in known:
        return known[id(content)]
    found: dict = {}
    if isinstance(content, Instance) and "_modules" in content.attributes:
        known[id(content)] = found
        found.update(_entries(content, "", DEPTH, seen))
    elif isinstance(content, dict):
        if not depth:
            raise Refused(f"dicts in each other, more than {DEPTH}")
        known[id(content)] = found
        found.update({key: _without_modules(value, known, depth - 1, seen) for key, value in content.items()})
    else:
        return content
    return found


def _read_zip(file: BinaryIO) -> object:
    with zipfile.ZipFile(file) as archive:
        folders = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(folders) != 1 or folders[0] + "constants.pkl" in archive.namelist():
            raise Refused("no archive of torch.save")
        folder = folders[0]
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            # It could unpack to any size.
            raise Refused("a compressed archive, which torch.save does not write")
        size = os.fstat(file.fileno()).st_size
        if sum(info.file_size for info in archive.infolist()) > size:
            raise Refused("an archive whose files overlap")
        if archive.getinfo(folder + "data.pkl").file_size > PICKLED:
            raise Refused(f"a pickle of more than {PICKLED} bytes")
        if folder + "byteorder" in archive.namelist() and archive.read(folder + "byteorder") != b"little":
            raise Refused("data of a big-endian machine")
        storages: dict[str, Storage] = {}

        def storage(dtype: torch.dtype, key: str, numel: int, view: object) -> Storage:
            if key not in storages:
                info = archive.getinfo(f"{folder}data/{key}")
                if info.file_size != numel * dtype.itemsize:
                    raise Refused(f"storage {key} has {info.file_size} bytes, not {numel * dtype.itemsize}")
                data = bytearray(info.file_size)
                with archive.open(info) as stored:
                    if stored.readinto(data) != len(data):  # type: ignore[attr-defined]
                        raise Refused(f"storage {key} is cut off")
                storages[key] = Storage(
                    torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
                )
            return storages[key]

        return _Reader(_Pickles(io.BytesIO(archive.read(folder + "data.pkl"))), storage).load()


def _read_legacy(file: BinaryIO) -> object:
    def none(*_: object) -> Storage:
        raise Refused("a tensor in the header")

    pickles = _Pickles(file)
    if _Reader(pickles, none).load() != MAGIC:
        raise Refused("no file of torch.save")
    _Reader(pickles, none).load()  # version of the format; there was only one
    system = _Reader(pickles, none).load()
    if not (isinstance(system, dict) and system.get("little_endian")):
        raise Refused("data of a big-endian machine")
    left = os.fstat(file.fileno()).st_size
    storages: dict[str, Storage] = {}

    def storage(dtype: torch.dtype, key: str, numel: int, view: tuple[str, int, int] | None) -> Storage:
        nonlocal left
        if key not in storages:
            if not 0 <= numel * dtype.itemsize <= left:
                raise Refused(f"storage {key} is larger than the file")
            left -= numel * dtype.itemsize
            storages[key] = Storage(torch.zeros(numel, dtype=dtype))
        whole = storages[key]
        return whole if view is None else Storage(whole.data[view[1] : view[1] + view[2]])

    content = _Reader(pickles, storage).load()
    keys = _Reader(pickles, none).load()
    if not isinstance(keys, list) or set(_keys(keys)) != storages.keys():
        raise Refused("data of other storages than its tensors have")
    for key in keys:
        data = storages[key].data
        (numel,) = struct.unpack("<q", file.read(8))
        memory = data.view(torch.uint8).numpy()
        if numel != len(data) or file.readinto(memory) != len(memory):  # type: ignore[attr-defined]
            raise Refused(f"storage {key} is cut off")
    return content


OPCODES = {opcode.code: opcode.name for opcode in pickletools.opcodes}
KEPT = (  # opcodes that pickle's own methods may carry out: none of them looks up, calls or fills an object
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1, pickle.LONG4),
    *(pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
    *(pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET),
    *(pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT),
    *(pickle.MEMOIZE, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID),
)


class _Pickles:
    """The pickles of a file, from where it stands. Raises Refused where they are more than PICKLED in all."""

    def __init__(self, file: BinaryIO):
        self.file, self.left = file, PICKLED

    def read(self, size: int) -> bytes:
        self._spend(size)  # before the file reserves memory for it
        return self.file.read(size)

    def readline(self) -> bytes:
        line = self.file.readline(self.left + 1)
        self._spend(len(line))
        return line

    def _spend(self, size: int) -> None:
        self.left -= max(size, OPCODE)
        if self.left < 0:
            raise Refused(f"pickles of more than {PICKLED} bytes")


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
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    memo: dict[int, Any]

    def __init__(self, file: _Pickles, storage: Callable[..., Storage]):
        super().__init__(
            file, encoding="latin-1"
        )  # whatever bytes Python 2 left in the source code of a class
        self.storage = storage
        self.left = COPIED

    def _copy(self, *containers: object) -> None:
        """Count the entries that are taken over. Raises Refused where they are more than COPIED in all."""
        self.left -= sum(len(one) for one in containers if isinstance(one, tuple | list | dict | set | str))
        if self.left < 0:
            raise Refused(f"more than {COPIED} entries of containers")

    def find_class(self, module: str, name: str) -> Name:
        if len(module) + len(name) > NAME:
            raise Refused(f"a class whose name has more than {NAME} letters")
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
        self.stack.append(self._call(_expect(called, Name), _expect(arguments, tuple)))

    def load_newobj(self) -> None:
        arguments, created = self.stack.pop(), self.stack.pop()
        path = _expect(created, Name).path
        self.stack.append(self._call(created, _expect(arguments, tuple)) if path in CALLS else Instance(path))

    def _call(self, called: Name, arguments: tuple) -> object:
        if called.path not in CALLS:
            raise Refused(OF_OTHERS.get(called.path, f"a call of {called.path}"))
        self.left -= CALL
        self._copy(arguments, *arguments)
        return CALLS[called.path](*arguments)

    def load_build(self) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if isinstance(built, Instance):
            self._copy(state)
            built.attributes.update(state if isinstance(state, dict) else {"state": state})
        elif not isinstance(built, OrderedDict):  # whose attributes are notes on versions, read by nobody
            raise Refused(f"a state for a {type(built).__name__}")

    def load_put(self) -> None:
        if not 0 <= (index := int(self.readline())) < 1 << 31:  # larger ones can be made to collide
            raise Refused("an object of an impossible number")
        self.memo[index] = self.stack[-1]

    def load_frame(self) -> None:
        self.read(8)  # how much could be read at once

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
            pickle.FRAME[0]: load_frame,
            pickle.PUT[0]: load_put,
        }
    )


def _keys(keys: Iterable) -> list:
    """Return the keys of a dict or set as they are.

    Raises Refused for what no state needs. Hashing a tuple goes down without any limit: a deep one would end
    in a crash, a shared or long one would take for ever, and so would large numbers that collide.
    """
    found = list(keys)
    for key in found:
        if isinstance(key, tuple) and (len(key) > 8 or any(isinstance(part, tuple) for part in key)):
            raise Refused("a nested tuple as a key")
        for part in key if isinstance(key, tuple) else (key,):
            if not isinstance(part, str | Name | Tensor | None) and not (
                isinstance(part, int) and abs(part) < 1 << 20
            ):
                raise Refused(f"a key of type {type(part).__name__}, or a large one")
    return found


def _expect(value: object, kind: type[T] | tuple[type[T], ...]) -> T:
    """Return the value, which must be of this type, or of one of these. Raises Refused for another."""
    if not isinstance(value, kind):
        wanted = kind[0] if isinstance(kind, tuple) else kind
        raise Refused(f"a {type(value).__name__} in place of a {wanted.__name__}")
    return value


def _external(identity: tuple, storage: Callable[..., Storage]) -> Name | Storage:
    """Return an external object: the class of a module (class, file, source code), or memory of tensors."""
    if len(identity) > 6:
        raise Refused("an external object of many parts")
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


def _tensor(
    storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    """Return a tensor on its storage, within its bounds.

    What may follow (gradient wanted, hooks) is of no use here.
    """
    data = _expect(storage, Storage).data
    if len(_expect(size, tuple)) > 64 or len(_expect(stride, tuple)) > 64:
        raise Refused("a tensor of more than 64 dimensions")
    if not all(isinstance(number, int) and abs(number) < 1 << 48 for number in (offset, *size, *stride)):
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


def _set(items: list | tuple = ()) -> set:
    return set(_keys(_expect(items, (list, tuple))))


def _ordered(items: list | tuple = ()) -> OrderedDict:
    if any(len(pair) != 2 for pair in _expect(items, (list, tuple))):  # a long one may be shared
        raise Refused("an OrderedDict of other things than pairs")
    _keys(key for key, _ in items)
    return OrderedDict(items)


CALLS: Mapping[str, Callable] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,  # before PyTorch 0.4.1
    # An attribute of every module before PyTorch 1.4.
    "torch.nn.backends.thnn._get_thnn_function_backend": lambda: None,
    "torch.Size": lambda size=(): _expect(size, tuple),
    "torch.device": lambda *_: Instance("torch.device"),
    "_codecs.encode": lambda text, encoding: _expect(text, str).encode("latin-1"),  # bytes, by protocol 2
    "collections.OrderedDict": _ordered,
    "builtins.set": _set,
    "__builtin__.set": _set,
}
OF_OTHERS = {  # tensors that no network here has
    "torch.serialization._get_layout": "a sparse tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without data",
}
