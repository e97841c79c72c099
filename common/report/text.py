"""Tables as Markdown and as LaTeX."""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from common.report.tables import Head, Table, Tally, Value
from common.runs.cell import with_std

TICK = "✓"
LATEX = {
    "\\": r"\textbackslash{}",
    **{special: f"\\{special}" for special in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    TICK: "*",
}
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


def change(value: float) -> str:
    """A difference with its sign, unless it is shown as zero."""
    text = f"{value:+.3f}"
    return text if float(text) else "0.000"


def between(interval: Sequence[float]) -> str:
    """An interval of differences."""
    return f"{change(interval[0])}, {change(interval[1])}"


def measured(value: Value) -> str:
    """What was measured, or why nothing was."""
    return value.missing if value.measured is None else with_std(value.measured)


def printed(value: Value) -> str:
    """The published value as the paper prints it."""
    return "" if value.published is None else f"{value.published:.{value.digits}f}"


def difference(value: Value) -> str:
    """Measured less published, ticked where they agree."""
    return "" if value.difference is None else change(value.difference) + f" {TICK}" * value.alike


def heading(head: Head) -> str:
    return head.text + (f" ({head.note})" if head.note else "")


def markdown(title: str, said: Iterable[str], tables: Iterable[Table]) -> str:
    """A document of tables. said: paragraphs before them."""
    parts = [f"# {title}", *map(_md, said)]
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
    first = f"**{measured(value)}**" if value.measured else f"— {value.missing}"
    lines = [first + f" ({table.marks(value)})" * bool(value.remarks)]
    if value.published is not None:
        lines.append(", ".join(filter(None, (f"paper {printed(value)}", difference(value)))))
    if value.gain is not None:
        shown = "" if value.interval is None else f" [{between(value.interval)}], {value.verdict}"
        lines.append(f"gain {change(value.gain)}{shown}")
    return "<br>".join(lines)


def latex(title: str, said: Iterable[str], tables: Iterable[Table]) -> str:
    """A document of booktabs tables, which compiles by itself. said: paragraphs before them."""
    body = [rf"\section*{{{escaped(title)}}}", *map(escaped, said), *map(_latex_table, tables)]
    return PREAMBLE + "\n\n".join(body) + "\n\n\\end{document}\n"


def escaped(text: str) -> str:
    """Plain text for LaTeX; what its fonts lack becomes a question mark."""
    known = (LATEX.get(letter, letter if letter < "\u0250" else "?") for letter in " ".join(text.split()))
    return re.sub("-(?=-)", "-{}", "".join(known))


# The lines of a row: what each is called, and what it says of a value.
LINES: tuple[tuple[str, Callable[[Value], str]], ...] = (
    ("", measured),
    ("published", printed),
    ("difference", difference),
    ("gain over the source", lambda value: "" if value.gain is None else change(value.gain)),
    ("95 % interval from", lambda value: "" if value.interval is None else change(value.interval[0])),
    ("to", lambda value: "" if value.interval is None else change(value.interval[1])),
)


def _latex_table(table: Table) -> str:
    width = len(table.columns)
    lines = [
        r"\begin{table}[p]\centering\scriptsize",
        rf"\textbf{{{escaped(table.name)}.}} {escaped(table.title)}.\\[4pt]",
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
    ]
    for heads in zip(*table.columns):
        spans = [(head, len(list(group))) for head, group in groupby(heads)]
        for said in ([head.text for head, _ in spans], [head.note for head, _ in spans]):
            if any(said):
                cells = (rf"\multicolumn{{{n}}}{{r}}{{{escaped(text)}}}" for text, (_, n) in zip(said, spans))
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


def _latex_row(table: Table, row: int) -> list[str]:
    values = [table.values.get((row, column)) for column in range(len(table.columns))]
    lines = []
    for name, say in LINES:
        said = [
            re.sub(r"-(?=\d)", "$-$", escaped(say(value))) if value is not None else "" for value in values
        ]
        if not name:
            marks = (table.marks(value) if value is not None else "" for value in values)
            said = [
                text + (rf"\textsuperscript{{{mark}}}" if mark else "") for text, mark in zip(said, marks)
            ]
        if any(said):
            label = rf"\quad {escaped(name)}" if name else escaped(heading(table.rows[row][-1]))
            lines.append(" & ".join([label, *said]) + r" \\")
    return lines
