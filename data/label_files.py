"""Label files as they come: CSV, spreadsheets, MATLAB files and plain lists."""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.system.errors import UserError, shown

if TYPE_CHECKING:  # slow to import, and images alone have no label file: so each function does that itself
    import pandas as pd

SPREADSHEETS = (".xlsx", ".ods")
HEADER_WITHIN = 20  # rows of a sheet
# What readers raise for a damaged file.
DAMAGED = (OSError, ValueError, TypeError, LookupError, EOFError, NotImplementedError, zlib.error)


def read_columns(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), sheet: str | None = None
) -> pd.DataFrame:
    """Return columns of a CSV file or of a spreadsheet, as text without spaces around it.

    columns: by their headers, which are matched exactly or else without regard to case and repeated spaces;
        the first one names the images.
    optional: columns that may be missing.
    sheet: the one to look at first. In a spreadsheet the table may start anywhere, and rows without an image
        are notes.

    Raises UserError where a column is missing or, in a CSV file, a row names no image.
    """
    import pandas as pd

    table = _from_spreadsheet(path, columns, sheet) if path.suffix.lower() in SPREADSHEETS else read_csv(path)
    headers = {column: _match(column, table.columns) for column in (*columns, *optional)}
    if missing := [column for column in columns if headers[column] is None]:
        raise UserError(f"{path}: no column {missing[0]!r}; its columns are {shown(table.columns)}")
    nameless = (table[headers[columns[0]]] == "").to_numpy()
    if nameless.any():
        row = int(nameless.argmax()) + 2  # as an editor counts
        raise UserError(f"{path}: row {row} has no {columns[0]}")
    return pd.DataFrame({column: table[header] for column, header in headers.items() if header is not None})


def read_csv(path: Path, header: int | None = 0) -> pd.DataFrame:
    """Return a CSV file as text; what is empty is ''."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            # Of fields beyond the header, such as decimal commas make.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                header=header,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                skipinitialspace=True,
                index_col=False,
            )
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read as a CSV file: save it as UTF-8") from None
    except (OSError, ValueError, pd.errors.ParserWarning) as error:  # a parser's errors are ValueErrors
        raise UserError(f"{path}: cannot be read as a CSV file ({str(error).splitlines()[0]})") from None
    table = table.fillna("").apply(lambda column: column.str.strip())
    table.columns = [str(column).strip() for column in table.columns]
    if repeated := table.columns[table.columns.duplicated()].tolist():
        raise UserError(f"{path}: more than one column {repeated[0]!r}: keep one")
    return table


def read_list(path: Path) -> list[tuple[str, str]]:
    """Return the two fields of every line, parted by a comma or by space; blank lines are skipped."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    found = []
    for number, line in enumerate(lines, start=1):
        fields = re.split(r"\s*,\s*|\s+", line.strip())
        if len(fields) == 2:
            found.append((fields[0], fields[1]))
        elif line.strip():
            raise UserError(f"{path}: line {number} has {len(fields)} fields, not 2: {line.strip()[:60]!r}")
    return found


def read_mat(path: Path, variable: str) -> np.ndarray:
    """Return a vector of a MATLAB file, (n,): numbers, or the strings of a cell array."""
    import scipy.io

    try:
        content = scipy.io.loadmat(path, variable_names=[variable], squeeze_me=True)
    except (*DAMAGED, scipy.io.matlab.MatReadError) as error:
        raise UserError(f"{path}: cannot be read as a MATLAB file ({error}); download it again") from None
    if variable not in content:
        raise UserError(f"{path}: no variable {variable!r}: is it another file of that name?")
    return np.atleast_1d(content[variable])


def number(text: str | float) -> float:
    """Return a number; NaN for what is none, so that all such rows can be named at once."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")


def _from_spreadsheet(path: Path, columns: Sequence[str], sheet: str | None) -> pd.DataFrame:
    """Return the table whose header has all columns."""
    import pandas as pd

    try:
        sheets = pd.read_excel(path, sheet_name=None, header=None, dtype=object)
    except (*DAMAGED, SyntaxError, zipfile.BadZipFile) as error:  # a SyntaxError of XML
        raise UserError(f"{path}: cannot be read as a spreadsheet ({error}); download it again") from None
    for name in sorted(sheets, key=lambda name: name != sheet):
        cells = sheets[name].apply(lambda column: column.map(_text))
        for row in range(min(HEADER_WITHIN, len(cells))):
            headers = [header for header in cells.iloc[row] if header]
            if all(_match(column, headers) for column in columns):
                table = cells.iloc[row + 1 :].set_axis(cells.iloc[row].to_list(), axis=1)
                table = table.loc[:, ~table.columns.duplicated()]
                return table[table[_match(columns[0], headers)] != ""]
    raise UserError(
        f"{path}: no sheet has the columns {', '.join(columns)} (sheets: {shown(sheets)}): "
        "is it another file?"
    )


def _match(column: str, headers: Sequence[str]) -> str | None:
    if column in headers:
        return column
    return next((header for header in headers if header.lower().split() == column.lower().split()), None)


def _text(cell: object) -> str:
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():  # a spreadsheet's 1600 may be 1600.0
        return str(int(cell))
    return str(cell).strip()
