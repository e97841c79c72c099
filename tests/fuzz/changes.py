"""Changes to files: of bytes, numbers and pieces, of the whole or of a file in an archive."""

import io
import struct
import zipfile
from typing import Any

from hypothesis import strategies as st

NUMBERS = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 20,
    0x7FFFFFFF,
    0xFFFFFFFF,
    (1 << 63) - 1,
    (1 << 64) - 1,
]
PACKED = [
    struct.pack(form, number)
    for number in NUMBERS
    for form in ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")
    if number < 1 << 8 * struct.calcsize(form)
]
TEXTS = [
    *(b"-1", b"1e308", b"NaN", b"null", b"1_0", b"9" * 400, b"[" * 3000, b"{}", b"[]", b'""', b"true"),
    *(b"../", b"/etc/passwd", b"\x00", b"\x1b[31m", b"\xff\xfe", b"\xed\xa0\x80", b",", b"\n", b'"', b"\r\n"),
    *(b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>", b"&b;", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    *(b"cos\nsystem\n", b"\x85R", b"g0\n", b"p0\n", b"0", b"(", b"t", b"Q", b"s", b"b", b"\x93", b"\x81"),
]
AT = st.floats(0, 1, exclude_max=True)
CHANGE = st.one_of(
    st.tuples(st.just("put"), AT, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("put"), AT, st.sampled_from(PACKED)),
    st.tuples(st.just("insert"), AT, st.sampled_from(TEXTS)),
    st.tuples(st.just("put"), AT, st.sampled_from(TEXTS)),
    st.tuples(st.just("drop"), AT, st.integers(1, 100)),
    st.tuples(st.just("repeat"), AT, st.integers(1, 100)),
    st.tuples(st.just("cut"), AT, st.just(0)),
    st.tuples(st.just("move"), AT, AT),
)
CHANGES = st.lists(CHANGE, min_size=1, max_size=5)


def changed(content: bytes, changes: list[Any]) -> bytes:
    """Return the content after the changes, one after another."""
    for kind, at, more in changes:
        place = int(at * len(content))
        before, after = content[:place], content[place:]
        if kind == "put":
            content = before + more + after[len(more) :]
        elif kind == "insert":
            content = before + more + after
        elif kind == "drop":
            content = before + after[more:]
        elif kind == "repeat":
            content = before + after[:40] * more + after
        elif kind == "cut":
            content = before
        else:
            other = int(more * len(content))
            content = before + content[other : other + 40] + after
    return content


def changed_inside(content: bytes, member: int, changes: list[Any]) -> bytes:
    """Return an archive after the changes to one of its files, with the checksums that it then has."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        members = {info: archive.read(info) for info in infos}
    chosen = infos[member % len(infos)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for info, data in members.items():
            data = changed(data, changes) if info is chosen else data
            archive.writestr(info.filename, data, compress_type=info.compress_type)
    return buffer.getvalue()
