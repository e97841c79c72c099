"""Label files as they come: CSV, spreadsheets, MATLAB files and plain lists."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from common.system.errors import UserError, shown
from common.system.files import need_file, read_text
from common.system.text import counted, shortened

if TYPE_CHECKING:  # slow to import, and images alone have no label file: so each function does that itself
    import pandas as pd

SPREADSHEETS = (".xlsx", ".ods")
HEADER_WITHIN = 20  # rows of a sheet
COLUMNS = 10_000  # of a table; the largest data set has 200
LARGEST = 1 << 26  # bytes of a label file; those of the data sets have at most 2^23
UNPACK = Path(__file__).parent / "unpack.py"
PATIENCE = 60  # seconds for it, which gives up after 20 of computing
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
TOO_MUCH = 1e9  # for a score, on any scale; beyond, its square and its sums lose their meaning


class Table(NamedTuple):
    """Text without spaces around it; "" where nothing is."""

    header: list[str]
    rows: list[list[str]]  # as long as the header
    numbers: Sequence[int]  # of the rows, as an editor counts


def read_columns(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), sheet: str | None = None
) -> pd.DataFrame:
    """Return columns of a CSV file or of a spreadsheet, as text without spaces around it.

    columns: by their headers, which are matched exactly or else without regard to case and repeated spaces;
        the first one names the images.
    optional: columns that may be missing.
    sheet: the one to look at first. In a spreadsheet the table may start anywhere, and rows without an image
        are notes.

    Raises UserError where a column is missing, or there more than once with other contents or, in a CSV
    file, a row names no image.
    """
    import pandas as pd

    in_sheet = path.suffix.lower() in SPREADSHEETS
    table = _from_spreadsheet(path, columns, sheet) if in_sheet else read_csv(path)
    found: dict[str, list[str]] = {}
    for column in (*columns, *optional):
        places = _places(column, table.header)
        if any(row[place] != row[places[0]] for row in table.rows for place in places[1:]):
            raise UserError(f"{path}: more than one column {column!r}, which differ: keep one")
        if places:
            found[column] = [row[places[0]] for row in table.rows]
        elif column in columns:
            raise UserError(f"{path}: no column {column!r}; its columns are {shown(table.header)}")
    names = found[columns[0]]
    if in_sheet:
        named = [index for index, name in enumerate(names) if name]
        found = {column: [values[index] for index in named] for column, values in found.items()}
    elif "" in names:
        raise UserError(f"{path}: row {table.numbers[names.index('')]} has no {columns[0]}")
    return pd.DataFrame(found, dtype=str)


def read_csv(path: Path) -> Table:
    """Return a CSV file; blank lines are skipped, and short rows filled.

    Raises UserError where it is none, or where a row has more fields than the first one.
    """
    text = io.StringIO(read_text(path, "CSV file", LARGEST), newline="")
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        reader = csv.reader(text, skipinitialspace=True, strict=True)
        for row in reader:
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            width = len(rows[0] if rows else row)
            if len(row) > (width if rows else COLUMNS):
                raise ValueError(
                    f"row {reader.line_num} has {counted(len(row), 'field')}, the first one {width}"
                )
            rows.append([field.strip() for field in row] + [""] * (width - len(row)))
            numbers.append(reader.line_num)
        if not rows:
            raise ValueError("it is empty")
    except (csv.Error, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a CSV file ({error})") from None
    return Table(rows[0], rows[1:], numbers[1:])


def read_list(path: Path) -> list[tuple[str, str]]:
    """Return the two fields of every line, parted by a comma or by space; blank lines are skipped."""
    found = []
    for number, line in enumerate(read_text(path, "list", LARGEST).splitlines(), start=1):
        fields = [field.strip() for field in (line.split(",") if "," in line else line.split())]
        if len(fields) == 2:
            found.append((fields[0], fields[1]))
        elif fields:
            raise UserError(
                f"{path}: line {number} has {counted(len(fields), 'field')}, not 2: "
                f"{shortened(line.strip(), 60)!r}"
            )
    return found


def read_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Return vectors of a MATLAB file by their names, each (n,): numbers, or the strings of a cell array."""
    content = _unpacked(path, "MATLAB file", names)
    return [np.array(content[name], dtype=object) for name in names]


def number(text: str | float) -> float:
    """Return a number; NaN for what is none that a score can be, so that all such rows can be named at once.

    Python's own notations, such as 1_0, and digits of other scripts are no numbers in a label file.
    """
    if isinstance(text, str) and not NUMBER.fullmatch(text):
        return float("nan")
    value = float(text)
    return value if abs(value) <= TOO_MUCH else float("nan")


def _unpacked(path: Path, what: str, names: Sequence[str] = ()) -> Any:
    """Return what `data/unpack.py` makes of a file, in a process of its own with limits on time and memory.

    Raises UserError for a file that it cannot read, or that ends it.
    """
    need_file(path, what)
    if (size := path.stat().st_size) > LARGEST:
        raise UserError(f"{path} has {size} bytes, as no label file has: is it another file?")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads take memory
    try:
        child = subprocess.run(
            [sys.executable, UNPACK, path, *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            env=environment,
        )
        found = json.loads(child.stdout)
        reason = found.get("error") if isinstance(found, dict) else None
    except subprocess.TimeoutExpired:
        reason = f"reading it takes more than {PATIENCE} s"
    except ValueError:  # nothing, or not the whole
        reason = f"it ended the program that reads it, by status {child.returncode}"
    if reason is not None:
        raise UserError(f"{path}: cannot be read as a {what} ({shortened(reason)}); download it again")
    return found


def _from_spreadsheet(path: Path, columns: Sequence[str], sheet: str | None) -> Table:
    """Return the table whose header has all columns."""
    sheets = dict(_unpacked(path, "spreadsheet"))
    for name in sorted(sheets, key=lambda name: name != sheet):
        rows = sheets[name]
        for start, header in enumerate(rows[:HEADER_WITHIN]):
            if all(_places(column, header) for column in columns):
                width = len(header)
                body = [row[:width] + [""] * (width - len(row)) for row in rows[start + 1 :]]
                return Table(header, body, range(start + 2, len(rows) + 1))
    raise UserError(
        f"{path}: no sheet has the columns {', '.join(columns)} (sheets: {shown(sheets)}): "
        "is it another file?"
    )


def _places(column: str, header: Iterable[str]) -> list[int]:
    """Return where in the header a column is."""
    header = list(header)
    exact = [place for place, name in enumerate(header) if name == column]
    wanted = column.lower().split()
    return exact or [place for place, name in enumerate(header) if name.lower().split() == wanted]
