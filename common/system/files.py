"""Files that are read: ordinary ones, and no larger than what they should be."""

import json
import os
from pathlib import Path
from typing import Any

from common.system.errors import UserError


def need_file(path: Path, what: str = "file") -> None:
    """Raise UserError unless an ordinary file is there.

    A pipe would be waited for without end, and a device never ends. what: the file should be, in words.
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: no such {what}")
    if not os.path.isfile(path):
        raise UserError(f"{path} is no ordinary file, and no {what}")


def read_text(path: Path, what: str, most: int = 1 << 26) -> str:
    """Return the text of a file, whole.

    most: bytes of the largest file that is read. Raises UserError where there is no such file, or where it
    is larger, or no UTF-8.
    """
    need_file(path, what)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path} has more than {most} bytes, as no {what} has: is it another file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read as a {what}: save it as UTF-8") from None


def read_json(path: Path, what: str) -> Any:
    """Return what a file of JSON holds. Raises UserError where there is no such file, or it holds none."""
    try:
        return json.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a {what} ({error})") from None
