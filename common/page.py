"""One HTML page that needs nothing beside itself: text, tables, figures and photographs in one file."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from common.images import read_rgb

CSS = """
:root { --ink: #222831; --faint: #6b7280; --line: #e3e7ec; --better: #00795a; --worse: #b3400a; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 15px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .5rem; padding-top: .8rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .5rem 0; }
p.lead { font-size: 1.05rem; }
small, figcaption, .note { color: var(--faint); font-size: .85rem; }
code, pre { font: .85rem ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
pre { background: #f6f7f9; padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .8rem .32rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--faint); font-size: .85rem; }
th:first-child, td:first-child { text-align: left; }
.better { color: var(--better); } .worse { color: var(--worse); }
figure { margin: .8rem 0; } figure svg { max-width: 100%; height: auto; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.6rem, 1fr)); gap: .7rem; margin: .6rem 0 1.2rem; }
.strip figure { margin: 0; } .strip img { width: 100%; display: block; border-radius: 4px; }
.strip figcaption { line-height: 1.35; padding-top: .25rem; font-variant-numeric: tabular-nums; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page. body: HTML."""
    content = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{CSS}</style>\n</head>\n'
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{content}\n</main>\n</body>\n</html>\n"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """header: text. rows: HTML of every cell."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'


def figure(svg: str, caption: str) -> str:
    """An SVG with text below it."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def thumbnail(path: Path, caption: str, side: int = 220) -> str:
    """A thumbnail with HTML below it. side: pixels of its longer side."""
    small = Image.fromarray(read_rgb(path))
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><img alt="{escape(path.stem)}" src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def signed(value: float, digits: int = 3) -> str:
    """A gain with its sign, coloured by it unless it is shown as zero."""
    text = f"{value:+.{digits}f}"
    return f'<span class="{"better" if value > 0 else "worse"}">{text}</span>' if float(text) else text
