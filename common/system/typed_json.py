"""Values of JSON brought to declared types, strictly: what a file holds is what the code says it holds."""

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from common.system.files import need_file


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises UserError where it is no ordinary file; OSError, ValueError or RecursionError where it holds none.
    """
    need_file(path, "file of results")
    return typed(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))


def typed(kind: Any, value: Any) -> Any:
    """Return a value of JSON as its type says: lists as tuples, objects as dataclasses or dicts.

    kind: Any, None, bool, int, float (which an int may stand for), str, a Literal, a tuple, a dict by str, a
        dataclass of such, or a union. A field that an object lacks has its default.

    Raises ValueError where the value is of another type, or a number is not finite or has more than 64 bits.
    """
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (UnionType, typing.Union):
        return _first(of, value)
    if origin is typing.Literal:
        if any(value == option and type(value) is type(option) for option in of):
            return value
    elif origin is tuple and isinstance(value, list):
        kinds = of[:1] * len(value) if of[1:] == (...,) else of
        if len(kinds) == len(value):
            return tuple(map(typed, kinds, value))
    elif origin is dict and isinstance(value, dict):
        return {name: typed(of[1], item) for name, item in value.items()}
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _fields(kind, value)
    elif _is_plain(kind, value):
        return value
    raise ValueError(f"{_short(value)} is no {kind if origin else kind.__name__}")


def _is_plain(kind: Any, value: Any) -> bool:
    if kind in (None, NoneType):
        return value is None
    if type(value) is int and abs(value) >= 2**63:
        return False
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return kind in (bool, int, str) and type(value) is kind


def _first(kinds: tuple[Any, ...], value: Any) -> Any:
    """Return the value as the first of several types that it is of."""
    for kind in kinds:
        try:
            return typed(kind, value)
        except ValueError as error:
            fault = error
    raise fault


def _fields(kind: Any, found: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in found.items():
        if name not in hints:
            raise ValueError(f"{_short(name)} is no field of {kind.__name__}")
        try:
            values[name] = typed(hints[name], value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default is not there
        raise ValueError(error) from None


def _short(value: object) -> str:
    """Return how people write a value, as far as it is short."""
    text = type(value).__name__ if isinstance(value, (list, dict)) else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
