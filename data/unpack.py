"""The content of one MATLAB file or spreadsheet as JSON: a process of its own, run by `data.label_files`.

What reads these formats is large, partly in C, and was not written against malice: a file of a few KB can
crash it, or have it take all time and memory there are. Here that ends this process alone, within limits.
Nothing of the project is imported, and of the libraries only the one for the format.

    python data/unpack.py FILE VARIABLE ...     # prints {"VARIABLE": [number or text, ...], ...}
    python data/unpack.py FILE                  # prints [[SHEET, [[text, ...], ...]], ...]

In place of these it prints {"error": REASON}, and nothing where it was ended.
"""

import contextlib
import io
import json
import math
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

MEMORY = 1 << 30  # bytes of address space
SECONDS = 20  # of computing
CELLS = 4_000_000  # of all sheets, empty ones before others among them; no data set has 200,000
ROW = 20  # cells that a row counts for beside its own
LETTERS = 10  # that count for a cell more

Cell = float | str
Rows = Iterable[Sequence[object]]


class TooLarge(Exception):
    """Raised for a file that holds more than a label file does."""


def limit() -> None:
    """Bound what this process may use, where the system can do that."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, 0),  # of a file that is written: none is
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS takes none of memory
            resource.setrlimit(what, (most, most))


def variables(path: str, names: Sequence[str]) -> dict[str, list[Cell]]:
    """Return vectors of a MATLAB file: numbers, or the strings of a cell array."""
    import numpy as np
    from scipy.io import matlab

    content = matlab.loadmat(path, variable_names=names, squeeze_me=True)
    found: dict[str, list[Cell]] = {}
    for name in names:
        if name not in content:
            raise ValueError(f"no variable {name!r}: is it another file of that name?")
        values = np.atleast_1d(content[name])
        if values.ndim != 1:
            raise ValueError(f"{name} is no vector, but {' x '.join(map(str, values.shape))}")
        found[name] = [_plain(value, name) for value in values.tolist()]
    return found


def _plain(value: object, name: str) -> Cell:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return float(value)
    raise ValueError(f"{name} holds neither numbers nor names alone")


def xlsx(path: str) -> Iterator[tuple[str, Rows]]:
    """Yield name and rows of each sheet."""
    import openpyxl

    with open(path, "rb") as file:  # not by its name, which may end in .ods
        book = openpyxl.load_workbook(io.BytesIO(file.read()), True, data_only=True, keep_links=False)
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # what the file says of its size is not to be relied on
        yield sheet.title, sheet.iter_rows(values_only=True)


def ods(path: str) -> Iterator[tuple[str, Rows]]:
    """Yield name and rows of each sheet."""
    from odf.namespaces import TABLENS
    from odf.opendocument import load
    from odf.table import Table

    for sheet in load(path).getElementsByType(Table):
        yield sheet.attributes.get((TABLENS, "name"), ""), _ods_rows(sheet)


def _ods_rows(sheet: Any) -> Iterator[Sequence[object]]:
    """Yield the rows; what is repeated, empty cells and rows too, stands in the file once with a number."""
    from odf.namespaces import TABLENS
    from odf.table import TableRow

    kinds = ((TABLENS, "table-cell"), (TABLENS, "covered-table-cell"))
    empty_rows = 0
    for row in sheet.getElementsByType(TableRow):
        cells: list[object] = []
        empty = 0
        for cell in row.childNodes:
            if getattr(cell, "qname", None) not in kinds:
                continue
            value, repeated = (
                _ods_value(cell),
                int(cell.attributes.get((TABLENS, "number-columns-repeated"), 1)),
            )
            if value is None:
                empty += repeated
            elif len(cells) + empty + repeated > CELLS:
                raise TooLarge
            else:
                cells += [None] * empty + [value] * repeated
                empty = 0
        repeated = int(row.attributes.get((TABLENS, "number-rows-repeated"), 1))
        if not cells:
            empty_rows += repeated
            continue
        for _ in range(empty_rows):
            yield ()
        empty_rows = 0
        for _ in range(repeated):
            yield cells


def _ods_value(cell: Any) -> object:
    from odf.namespaces import OFFICENS, TEXTNS
    from odf.teletype import extractText

    kind = cell.attributes.get((OFFICENS, "value-type"))
    if kind is None:
        return None
    if kind in ("float", "percentage", "currency"):
        return float(cell.attributes[(OFFICENS, "value")])
    paragraphs = [part for part in cell.childNodes if getattr(part, "qname", None) == (TEXTNS, "p")]
    return "\n".join(map(extractText, paragraphs)) or None


def sheets(path: str) -> list[tuple[str, list[list[str]]]]:
    """Return the sheets of a spreadsheet with the text of their cells, without empty ones at the ends."""
    found = []
    left = CELLS
    with zipfile.ZipFile(path) as archive:
        kind = xlsx if "xl/workbook.xml" in archive.namelist() else ods
    for name, rows in kind(path):
        table: list[list[str]] = []
        for row in rows:
            left -= ROW + len(row)
            if left < 0:
                raise TooLarge
            texts = [_text(cell) for cell in row]
            left -= sum(map(len, texts)) // LETTERS
            if left < 0:
                raise TooLarge
            while texts and not texts[-1]:
                texts.pop()
            table.append(texts)
        while table and not table[-1]:
            table.pop()
        found.append((name, table))
    return found


def _text(cell: object) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():  # a spreadsheet's 1600 may be 1600.0
        return str(int(cell))
    return str(cell).strip()


def main(path: str, names: Sequence[str]) -> None:
    limit()
    found: object
    try:
        found = variables(path, names) if names else sheets(path)
    except TooLarge:
        found = {"error": f"it has more than {CELLS} cells, or as much text"}
    except MemoryError:
        found = {"error": f"reading it takes more than {MEMORY >> 30} GiB of memory"}
    except Exception as error:  # of dozens of kinds
        found = {"error": str(error) or type(error).__name__}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path = [folder for folder in sys.path if folder != here]  # its modules are no libraries
    main(sys.argv[1], sys.argv[2:])
