"""Checkpoints of whose pickles no tool would be the author: a few MB that ask for endless time or memory."""

import json
import pickle
import signal
import struct
import sys
import time
import zipfile
from pathlib import Path

from common.system.errors import UserError
from common.system.torch_file import MAGIC
from tests.memory import peak_megabytes
from weights.loading import read_state_dict


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def storage(numel: int = 4, key: bytes = b"0") -> bytes:
    return (
        b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(key) + text(b"cpu") + number(numel) + b"tQ"
    )


def tensor(numel: int = 4, size: bytes = b"", stride: bytes = b"K\x01\x85") -> bytes:
    size = size or number(numel) + b"\x85"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(numel) + b"K\0" + size + stride + b"\x89NtR"


def dictionary(*pairs: bytes) -> bytes:
    return b"}(" + b"".join(pairs) + b"u"


def many(count: int, value: bytes) -> bytes:
    """Pairs of a name and the value, each under another name."""
    return b"".join(text(b"%d" % n) + value for n in range(count))


def doubled(base: bytes, holder: bytes, times: int = 60) -> bytes:
    """An object that another holds twice, which another holds twice, and so on; holder: with @ for it."""
    return (
        base
        + b"p0\n"
        + b"".join(holder.replace(b"@", b"g%d\n" % n) + b"p%d\n" % (n + 1) for n in range(times))
    )


def attribute(name: bytes, value: bytes) -> bytes:
    """An instance of something with one attribute."""
    return b"cthere\nIs.None\n)\x81}" + text(name) + value + b"sb"


A, B, G = text(b"a"), text(b"b"), b"g0\n"
KEPT = b"p0\n"  # what G gets again
NONES = b"](" + b"N" * 100_000 + b"e" + KEPT
LONG = b"\x8b" + struct.pack("<i", 1 << 20) + b"\1" * (1 << 20) + KEPT  # a number of a million bytes
ORDERED = b"ccollections\nOrderedDict\n"
TWICE = dictionary(A, b"@", B, b"@")
EXHAUSTING = {
    "shared modules": doubled(attribute(b"_modules", b"}"), attribute(b"_modules", TWICE)),
    "shared dicts": doubled(b"}", TWICE),
    "a shared tuple as a key": doubled(b")", b"@@\x86") + b"}g60\nNs",
    "a shared tuple in a set": b"\x8f(" + doubled(b")", b"@@\x86") + b"\x90",
    "a long tuple as many keys": b"(" + b"N" * 100_000 + b"t" + KEPT + dictionary((G + b"N") * 300_000),
    "a large number as many keys": LONG + dictionary((G + b"N") * 300_000),
    "deep dicts": (b"}" + A) * 200_000 + b"N" + b"s" * 200_000,
    "deep lists": b"]" * 200_000 + b"a" * 199_999,
    "deep tuples": b")" + b"\x85" * 300_000,
    "text of 2^63 - 1 bytes": b"\x8d" + struct.pack("<Q", (1 << 63) - 1) + b"a",
    "bytes of 2^40": b"\x8e" + struct.pack("<Q", 1 << 40) + b"a",
    "a frame of 2^40": b"\x95" + struct.pack("<Q", 1 << 40) + b"N",
    "a line without end": b"V" + b"a" * 9_000,
    "millions of sets": b"](" + b"\x8f" * 8_000_000 + b"e",
    "millions of memo entries": b"N" + b"\x94" * 8_000_000,
    "memo entries that collide": b"N" + b"".join(b"p%d\n" % (n * ((1 << 61) - 1)) for n in range(100_000)),
    "a list as many dicts": b"](" + text(b"ab") * 100_000 + b"e" + KEPT + (ORDERED + G + b"\x85R") * 20_000,
    "a list as many sets": NONES + (b"cbuiltins\nset\n" + G + b"\x85R") * 20_000,
    "a list as many pairs": NONES + ORDERED + b"](" + G * 100_000 + b"e\x85R",
    "a state of many instances": dictionary(many(20_000, b"N"))
    + KEPT
    + (b"cthere\nIs.None\n)\x81" + G + b"b") * 20_000,
    "parameters of many modules": dictionary(many(300, tensor()))
    + KEPT
    + dictionary(many(50_000, attribute(b"_modules", b"}")[:-2] + b"s" + text(b"_parameters") + G + b"sb")),
    "a state dict under many names": dictionary(many(300, tensor())) + KEPT + dictionary(many(200_000, G)),
    "long names of classes": text(b"a" * 4_000_000) + KEPT + b"(" + (G + G + b"\x93") * 100_000 + b"t",
    "long names of entries": text(b"a" * 4_000_000)
    + KEPT
    + dictionary(G, dictionary(many(9_000, tensor())), A, dictionary(A, tensor())),
    "a shape of large numbers": LONG + tensor(size=b"(" + G * 64 + b"t", stride=b"(" + G * 64 + b"t"),
    "a tensor as a shape": tensor() + KEPT + tensor(size=G, stride=G),
    "tensors of one storage": dictionary(many(100, tensor(50_000))),
    "an identity of many parts": b"(" + b"N" * 100_000 + b"t" + KEPT + (G + b"Q") * 100_000,
}


def zipped(path, opcodes: bytes, numel: int = 4) -> None:
    """Write the format of torch.save since PyTorch 1.6, with one storage."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x04" + opcodes + b".")
        archive.writestr("x/data/0", bytes(4 * numel))


def legacy(path, opcodes: bytes, numel: int = 4) -> None:
    """Write the format before that."""
    keys = ["0"] if b"FloatStorage" in opcodes else []
    header = [pickle.dumps(value, 2) for value in (MAGIC, 1001, {"little_endian": True})]
    data = struct.pack("<q", numel) + bytes(4 * numel)
    path.write_bytes(
        b"".join(header) + b"\x80\x04" + opcodes + b"." + pickle.dumps(keys, 2) + data * len(keys)
    )


def main(folder: str) -> None:
    """Read every file of a folder as a checkpoint, and print what became of each as a line of JSON."""
    for path in sorted(Path(folder).iterdir()):
        before, begun = peak_megabytes(), time.perf_counter()
        signal.alarm(60)
        try:
            said = f"{len(read_state_dict(path))} entries"
        except UserError as error:
            said = str(error)
        seconds = time.perf_counter() - begun
        megabytes = peak_megabytes() - before
        print(
            json.dumps({"name": path.stem, "said": said, "seconds": seconds, "megabytes": megabytes}),
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1])
