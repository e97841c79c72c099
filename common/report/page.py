"""Render HTML pages that need nothing beside themselves: style, figures and photographs are in one file.

Python gathers what a page shows; the templates beside this file say how. They escape whatever is not markup.
"""

import base64
import io
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from common.photographs import read_rgb
from common.report.numbers import minus

FOLDER = Path(__file__).parent


class Drawing(NamedTuple):
    """A figure of a page."""

    svg: Markup
    caption: str


class Thumbnail(NamedTuple):
    """A photograph scaled down."""

    name: str
    uri: str  # the image itself, as a data URI


def relative_url(path: Path, folder: Path) -> str:
    """Return the link from a page in a folder to a file: relative, unless the two are on different drives."""
    try:
        link = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on Windows
        return path.resolve().as_uri()
    return quote(os.fsencode(link))


def thumbnail(path: Path, side: int = 220) -> Thumbnail:
    """Scale a photograph down to `side` pixels on its longer side.

    Raises UserError where it cannot be read.
    """
    small = Image.fromarray(read_rgb(path))
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return Thumbnail(path.stem, f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}")


def render(template: str, **values: Any) -> str:
    """Return the page that a template of this folder makes of some values."""
    css = Markup((FOLDER / "report.css").read_text(encoding="utf-8"))
    return _templates().get_template(template).render(css=css, **values)


@cache
def _templates() -> Environment:
    """Return the templates of this folder; they refuse a value that is not there."""
    found = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["minus"] = minus
    return found
