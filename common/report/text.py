"""Write tables as Markdown and as LaTeX."""

import re
from collections.abc import Callable, Iterable

from common.report.numbers import MINUS, minus
from common.report.tables import TICK, Head, Table, Tally, Value
from common.runs.results import signed

LATEX = {
    "\\": r"\textbackslash{}",
    **{special: f"\\{special}" for special in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    MINUS: "$-$",
    "×": r"$\times$",
    TICK: "*",
}
MOST_ROWS = 12  # of a table on a page of LaTeX; the paper's largest has as many
PREAMBLE = r"""\documentclass[a4paper]{article}
\usepackage{booktabs}
\setlength{\textwidth}{545pt}
\setlength{\oddsidemargin}{-47pt}
\setlength{\textheight}{740pt}
\setlength{\topmargin}{-50pt}
\setlength{\tabcolsep}{2.2pt}
\setlength{\parindent}{0pt}
\begin{document}
"""


def heading(head: Head) -> str:
    """Write a heading and its note on one line."""
    return head.text + (f" ({head.note})" if head.note else "")


def markdown(title: str, paragraphs: Iterable[str], tables: Iterable[Table]) -> str:
    """Write a document of tables, with paragraphs before them."""
    parts = [f"# {title}", *map(_md, paragraphs)]
    for table in tables:
        names = " | ".join(_md(", ".join(map(heading, column))) for column in table.columns)
        lines = [f"| | {names} |", "|---" * (1 + len(table.columns)) + "|"]
        for row, head in enumerate(table.rows):
            cells = (_md_cell(table, table.values.get((row, column))) for column in range(len(table.columns)))
            lines.append(f"| {_md(', '.join(map(heading, head)))} | {' | '.join(cells)} |")
        parts += [f"## {table.name}", _md(table.title) + ".", "\n".join(lines), _md(str(Tally.of([table])))]
        parts += [f"{mark}: {_md(remark)}" for remark, mark in table.notes.items()]
    return "\n\n".join(parts) + "\n"


def _md(text: str) -> str:
    return re.sub(
        r"([\\`*_\[\]|~])", r"\\\1", " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    )


def _md_cell(table: Table, value: Value | None) -> str:
    if value is None:
        return ""
    first = f"**{value.measured_text}**" if value.measured else f"— {value.missing}"
    lines = [first + f" ({table.marks(value)})" * bool(value.remarks)]
    if value.published is not None:
        lines.append(", ".join(filter(None, (f"paper {value.published_text}", value.difference_text))))
    if value.gain is not None:
        lines.append(", ".join(filter(None, (f"gain {value.gain_text}", value.verdict))))
    return "<br>".join(lines)


def latex(title: str, paragraphs: Iterable[str], tables: Iterable[Table]) -> str:
    """Write a document of booktabs tables, with paragraphs before them; it compiles by itself."""
    parts = (part for table in tables for part in table.parts(MOST_ROWS))
    body = [rf"\section*{{{escaped(title)}}}", *map(escaped, paragraphs), *map(_latex_table, parts)]
    return PREAMBLE + "\n\n".join(body) + "\n\n\\end{document}\n"


def escaped(text: str) -> str:
    """Escape plain text for LaTeX; what its fonts lack becomes a question mark."""
    known = (LATEX.get(letter, letter if letter < "\u0250" else "?") for letter in " ".join(text.split()))
    return re.sub("-(?=-)", "-{}", "".join(known))


def _gain(value: Value) -> str:
    return "" if value.gain is None or value.gain.mean is None else minus(signed(value.gain.mean))


def _bound(value: Value, side: int) -> str:
    """Write the lower (0) or upper (1) end of the interval of the gain."""
    interval = None if value.gain is None else value.gain.interval
    return "" if interval is None else minus(signed(interval[side]))


# The lines of a row: what each is called, and its text for a value.
LINES: tuple[tuple[str, Callable[[Value], str]], ...] = (
    ("", lambda value: value.measured_text),
    ("published", lambda value: value.published_text),
    ("difference", lambda value: value.difference_text),
    ("gain over the source", _gain),
    ("95 % interval from", lambda value: _bound(value, 0)),
    ("to", lambda value: _bound(value, 1)),
)


def _latex_table(table: Table) -> str:
    width = len(table.columns)
    lines = [
        r"\begin{table}[p]\centering\scriptsize",
        rf"\textbf{{{escaped(table.name)}.}} {escaped(table.title)}.\\[4pt]",
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
    ]
    for spans in table.column_spans():
        for texts in ([head.text for head, _ in spans], [head.note for head, _ in spans]):
            if any(texts):
                cells = (
                    rf"\multicolumn{{{n}}}{{r}}{{{escaped(text)}}}" for text, (_, n) in zip(texts, spans)
                )
                lines.append(" & ".join(["", *cells]) + r" \\")
    for upper, rows in table.blocks():
        lines.append(r"\midrule")
        if upper is not None:
            lines.append(rf"\multicolumn{{{width + 1}}}{{l}}{{\textbf{{{escaped(heading(upper))}}}}} \\")
        for row in rows:
            lines += _latex_row(table, row)
    lines += [
        r"\bottomrule",
        r"\end{tabular}\\[4pt]",
        r"\parbox{0.95\textwidth}{" + escaped(str(Tally.of([table]))),
    ]
    lines += [rf"\\ {mark}: {escaped(remark)}" for remark, mark in table.notes.items()]
    return "\n".join(lines) + "}\n\\end{table}"


def _label(text: str) -> str:
    """Write the heading of a row, on several lines where it is long."""
    if len(text) <= 40:
        return escaped(text)
    return rf"\parbox[t]{{0.4\textwidth}}{{\raggedright {escaped(text)}}}"


def _latex_row(table: Table, row: int) -> list[str]:
    values = [table.values.get((row, column)) for column in range(len(table.columns))]
    lines = []
    for name, text_of in LINES:
        texts = [escaped(text_of(value)) if value is not None else "" for value in values]
        if not name:
            marks = (table.marks(value) if value is not None else "" for value in values)
            texts = [
                text + (rf"\textsuperscript{{{mark}}}" if mark else "") for text, mark in zip(texts, marks)
            ]
        if any(texts):
            label = rf"\quad {escaped(name)}" if name else _label(heading(table.rows[row][-1]))
            lines.append(" & ".join([label, *texts]) + r" \\")
    return lines
