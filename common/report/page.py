"""One HTML page that needs nothing beside itself: text, tables, figures and photographs in one file."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from common.photographs import read_rgb

CSS = """
:root { color-scheme: light dark; --ink: #222831; --faint: #6b7280; --line: #e3e7ec; --axis: #c9ced6; --paper: #fff;
  --raised: #f6f7f9; --link: #0b5cad; --series: #0072b2;
  --better: #00795a; --worse: #b3400a; --better-bg: #e6f4ee; --worse-bg: #fbeae1; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe3e8; --faint: #9aa3af; --line: #2c333c; --axis: #4b5563; --paper: #14181d; --raised: #1d232a;
    --link: #7ab7f5; --series: #4ba3dd; --better: #4cc79a; --worse: #f0976a; --better-bg: #14332a; --worse-bg: #3b2318; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: var(--paper); font: 15px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
main.wide { max-width: 90rem; } .wide p.note { max-width: 60rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .5rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h2 small { font-weight: 400; margin-left: .4rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { max-width: 46rem; margin: .5rem 0; }
p.lead { font-size: 1.05rem; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
sup { font-size: .7em; line-height: 0; }
small, figcaption, .note { color: var(--faint); font-size: .85rem; }
code, pre { font: .85rem ui-monospace, "DejaVu Sans Mono", Menlo, monospace; overflow-wrap: anywhere; }
pre { background: var(--raised); padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .8rem .32rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--faint); font-size: .85rem; }
th:first-child, td:first-child { text-align: left; }
.better { color: var(--better); } .worse { color: var(--worse); }
figure { margin: .8rem 0; } figure svg { max-width: 100%; height: auto; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.6rem, 1fr)); gap: .7rem; margin: .6rem 0 1.2rem; }
.strip figure { margin: 0; } .strip img { width: 100%; display: block; border-radius: 4px; }
.strip figcaption { line-height: 1.35; padding-top: .25rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0 .6rem; }
.tiles div { background: var(--raised); border-radius: 8px; padding: .6rem .9rem .7rem; font-size: .85rem; color: var(--faint); }
.tiles b { display: block; font-size: 1.25rem; font-weight: 600; color: var(--ink); font-variant-numeric: tabular-nums; }
.bar { height: 6px; border-radius: 3px; background: var(--line); overflow: hidden; display: flex; margin: .4rem 0 1rem; }
.bar i { background: var(--ink); } .bar i.worse { background: var(--worse); }
.callout { border-left: 3px solid var(--axis); background: var(--raised); padding: .5rem .9rem; border-radius: 0 6px 6px 0; }
.paper { font-size: .9rem; margin-bottom: .3rem; }
.paper th, .paper td { padding: .34rem .5rem; vertical-align: top; text-align: left; }
.paper th[rowspan], .paper tbody th { position: sticky; left: 0; z-index: 1; background: var(--paper); padding-left: 0; }
.paper tbody th { color: var(--ink); font-weight: 500; font-size: .9rem; }
.paper small { display: block; font-weight: 400; color: var(--faint); }
.paper th[rowspan] { vertical-align: bottom; } .paper th[rowspan] small { font-size: .75rem; line-height: 1.4; }
.paper thead th.span { color: var(--ink); font-size: .95rem; }
.paper thead tr:not(:last-child) th:not([rowspan]) { border-bottom: 0; padding-bottom: 0; }
.paper .first { border-left: 1px solid var(--line); }
.paper .group th { font-weight: 600; padding-top: .9rem; }
.paper .first, .paper .first + td, .paper .first + th { padding-left: .7rem; }
.paper td span { display: block; line-height: 1.4; }
.paper td .said { font-size: .95rem; } .paper td .said i { font-style: normal; color: var(--faint); font-size: .85em; }
.paper td .then, .paper td .gain { color: var(--faint); font-size: .75rem; }
.text th, .text td { text-align: left; padding-right: 1.4rem; }
.glance th, .glance td { padding-right: 1.1rem; } .glance td:nth-child(2) { text-align: left; white-space: normal; }
.helped { background: var(--better-bg); } .helped .gain, .legend .helped { color: var(--better) !important; }
.harmed { background: var(--worse-bg); } .harmed .gain, .legend .harmed { color: var(--worse) !important; }
.legend { color: var(--faint); font-size: .85rem; max-width: 46rem; padding-left: 1.1rem; } .legend li { margin: .45rem 0; }
.legend b { color: var(--ink); font-weight: 500; } .legend .helped, .legend .harmed { padding: 0 .3rem; border-radius: 3px; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .9rem; margin: 1rem 0; }
.remarks { margin: .2rem 0; padding: 0; list-style: none; max-width: 60rem; } .remarks li { overflow-wrap: anywhere; }
details { border-bottom: 1px solid var(--line); } details > *:not(summary) { margin-left: 1.1rem; }
summary { cursor: pointer; padding: .5rem 0; font-variant-numeric: tabular-nums; } summary small { margin-left: .5rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 0 2rem; align-items: start; }
@media (max-width: 40rem) {
  main { padding: 1.2rem .9rem 3rem; } h1 { font-size: 1.4rem; } details > *:not(summary) { margin-left: 0; }
  .paper th, .paper td { padding: .3rem .55rem; }
  .paper tbody th { max-width: 7rem; white-space: normal; }
  .glance th:nth-child(2), .glance td:nth-child(2) { display: none; }
}
@page wide { size: landscape; margin: 10mm; }
@media print {
  html { font-size: 12px; } body { font-size: 12px; } main, main.wide { max-width: none; padding: 0; } main.wide { page: wide; }
  .scroll { overflow: visible; } .paper th, .paper td { padding: .2rem .4rem; }
  h2 { break-after: avoid; } tr, figure, .tiles { break-inside: avoid; } nav { display: none; }
  .helped, .harmed, .tiles div, .bar i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def page(title: str, body: Iterable[str], wide: bool = False) -> str:
    """A whole page. body: HTML. wide: for wide tables."""
    content = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{CSS}</style>\n</head>\n'
        f"<body>\n<main{' class=wide' * wide}>\n<h1>{escape(title)}</h1>\n{content}\n</main>\n</body>\n</html>\n"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """header: text. rows: HTML of every cell. kind: class in the style sheet."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    named = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{named}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'


def tiles(shown: Iterable[tuple[str, str]]) -> str:
    """Numbers to be seen first. shown: (number, what it is), text."""
    return f'<div class="tiles">{"".join(f"<div><b>{escape(number)}</b>{escape(what)}</div>" for number, what in shown)}</div>'


def chapter(anchor: str, title: str, note: str = "") -> str:
    """The heading of a part of a page, with a place to link to. note: text in small print."""
    return f'<h2 id="{anchor}">{escape(title)}{f" <small>{escape(note)}</small>" if note else ""}</h2>'


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
    return f'<figure><img alt="{escape(path.stem)}" src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def signed(value: float, digits: int = 3) -> str:
    """A gain with its sign, coloured by it unless it is shown as zero."""
    text = f"{value:+.{digits}f}"
    return f'<span class="{"better" if value > 0 else "worse"}">{text}</span>' if float(text) else text
