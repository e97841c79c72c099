"""What a sweep measured beside what the paper published, in the paper's layout; also while the sweep is
running.

    python -m scripts.report results/paper --out results/report

Writes DIR/index.html, which needs nothing beside itself, DIR/report.md and DIR/report.tex. What is missing is
marked as missing.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.report import figures, sections
from common.report import text as markup
from common.report.page import chapter, figure, page, table, tiles
from common.report.tables import (
    PROTOCOLS,
    TOLERANCE,
    Result,
    Results,
    Sweep,
    Table,
    Tally,
    Variant,
    scores_of,
    speed,
    strangers,
    sweeps,
)
from common.report.tables import figures as numbers_of_figures
from common.report.tables import tables as numbers_of_tables
from common.runs.cell import with_std
from common.runs.grid import MAIN, Entry, Target
from common.system.cli import Parser, finite, natural, positive
from common.system.errors import UserError, command
from common.system.output import check_targets, whole_file
from data.catalogue import DATASETS, ROOT, data_root, folder_of
from data.dataset import read_available
from scripts import all_expt
from weights.networks import BACKBONES

TITLE = "TTA-IQA: published and measured"
NO_NUMBERS = (
    "The paper prints this as a figure without its numbers, so that there is nothing to compare with."
)


def grid(variant: Variant) -> Iterator[Entry]:
    """Every place of the paper, with its cell."""
    entries = all_expt.grid(
        BACKBONES, variant.protocol, variant.seeds, variant.limit, variant.similar or all_expt.SIMILAR
    )
    return (entry for entry in entries if entry.place in all_expt.PAPER)


def usual(entry: Entry) -> bool:
    """Whether a place has its network's protocol as it is."""
    return entry.cell.protocol in BACKBONES[entry.backbone].protocols.values()


def named(cell: Mapping) -> str:
    """A cell as people speak of it. cell: as in result.json."""
    target = Target(**{**cell["target"], "between": tuple(cell["target"]["between"] or ()) or None})
    return f"{cell['weights']} on {target}: {cell['method']['name']}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def progress(sweep: Sweep) -> str:
    """How far the sweep is."""
    done, failed, total = len(sweep.done), len(sweep.failed), len(sweep.ids)
    return f"{done} of {total} cells finished, {failed} failed, {total - done - failed} not run; {sweep.variant}."


class Remark(NamedTuple):
    """What a reader should know of the whole. options: of the command that shows more, if any."""

    text: str
    options: str = ""


def remarks(sweep: Sweep, others: Sequence[Sweep]) -> list[Remark]:
    """What a reader should know of the whole."""
    found = []
    if sweep.variant.limit is not None:
        found.append(
            Remark(
                f"At most {sweep.variant.limit} images of each data set were scored. That tells whether everything runs, not how "
                "well: such values are marked, and not compared with the paper's."
            )
        )
    for other in others:
        cells = len(other.known - sweep.known)
        found.append(
            Remark(
                f"The folder also holds {cells} cells of another variant, {other.variant}:",
                other.variant.options,
            )
        )
    for what, name in (("versions of the code", "commit"), ("devices", "device")):
        counted = Counter(str(result.found["environment"].get(name, "unknown")) for result in sweep.done)
        if len(counted) > 1:
            listed = ", ".join(f"{value} ({n} cells)" for value, n in sorted(counted.items()))
            found.append(Remark(f"Several {what}: {listed}."))
    return found


def made_by(sweep: Sweep) -> str:
    """Code, packages and devices."""
    parts = []
    for name, before in (("commit", "code "), ("torch", "torch "), ("device", "on ")):
        values = sorted({str(result.found["environment"].get(name, "unknown")) for result in sweep.done})
        parts += [before + " and ".join(values)] * bool(values)
    return ", ".join(parts)


def header(sweep: Sweep, others: Sequence[Sweep]) -> Iterator[str]:
    """Where the sweep is."""
    done, failed, total = len(sweep.done), len(sweep.failed), len(sweep.ids)
    yield (
        '<p class="lead">Every value that the paper publishes, where it stands in the paper, beside what this code measures.</p>'
    )
    yield tiles(
        [
            (f"{done} of {total}", "cells finished"),
            (str(failed), "cells failed"),
            (str(total - done - failed), "cells not run"),
            (
                f"{sum(r.found['n_images'] * len(r.config['seeds']) for r in sweep.done):,}",
                "images scored, over all cells and seeds",
            ),
            (duration(sum(r.run["seconds"] for r in sweep.done)), "of computing, over all cells"),
        ]
    )
    yield (
        f'<div class="bar"><i style="width:{100 * done / total:.2f}%"></i>'
        f'<i class="worse" style="width:{100 * failed / total:.2f}%"></i></div>'
    )
    yield f'<p class="note">{escape("; ".join(filter(None, (str(sweep.variant), made_by(sweep)))))}.</p>'
    for remark in remarks(sweep, others):
        options = f"<br><code>{escape(remark.options)}</code>" if remark.options else ""
        yield f'<p class="callout">{escape(remark.text)}{options}</p>'


def glance(shown: Sequence[Table], drawn: Sequence[Table]) -> Iterator[str]:
    """What the tables come to, and how to read them."""
    yield sections.overview([*shown, *drawn])
    yield (
        f'<p class="note">Of the values on the paper\'s images, those within {TOLERANCE} of the published one, and those within '
        f"{TOLERANCE} or two standard deviations over seeds, whichever is more. Helped and harmed: the 95 % interval of the gain "
        "in SROCC over the source leaves out zero. The paper prints no numbers for its figures.</p>"
    )
    legend = f"<div><h3>How to read the tables</h3>{sections.LEGEND}</div>"
    yield f'<div class="pair">{"".join(versus(shown))}{legend}</div>'


def versus(shown: Sequence[Table]) -> Iterator[str]:
    """All measured values against the published ones."""
    groups = {DATASETS[target.dataset].title: [] for target in MAIN} | {"others": []}
    for one in shown:
        for value in one.values.values():
            if value.comparable:
                of = value.dataset if value.dataset in groups else "others"
                groups[of].append((value.published, value.measured["mean"]))
    if any(groups.values()):
        caption = f"Every value of Tables 1 to 8 that compares; the band is {TOLERANCE} wide on either side."
        yield figure(figures.agreement(groups, TOLERANCE), caption)


def bars(one: Table) -> str:
    """Figures 4 and 5 as they are in the paper."""
    nothing = {"mean": None, "std": None}
    rows = {
        row[-1].text: {
            column[-1].text: ((of := one.values[i, k].measured or nothing)["mean"], of["std"])
            for k, column in enumerate(one.columns)
        }
        for i, row in enumerate(one.rows)
    }
    return figures.bars(rows, "SROCC")


def steps(one: Table) -> str:
    """Figure 6 as it is in the paper."""
    measured = [one.values[k, 0].measured for k in range(len(one.rows))]
    mean, std = (
        np.array([np.nan if m is None or m[of] is None else m[of] for m in measured])
        for of in ("mean", "std")
    )
    std = np.where(np.isnan(std), 0, std)
    level = None if np.isnan(mean[0]) else ("Baseline", mean[0], std[0])
    return figures.curves({"rank+gc": (mean[1:], std[1:])}, "steps", "SROCC", level=level)


def drawing(one: Table) -> Iterator[str]:
    """One of Figures 4 to 6, and its numbers."""
    yield f'<p class="note">{NO_NUMBERS}</p>'
    if any(value.measured is not None for value in one.values.values()):
        drawn = figure(
            steps(one) if one.name == "Figure 6" else bars(one), "Mean and standard deviation over seeds."
        )
        yield f'<div class="pair">{drawn}{sections.numbers(one)}</div>'
    else:
        yield sections.numbers(one)


def closer(sweep: Sweep, root: Path | None) -> Iterator[str]:
    """Of every network and data set of Table 1, what both losses did to the images."""
    paths = cache(lambda name, subset: _paths(name, subset, root))
    for entry in sweep.entries:
        result = sweep.outcome(entry)
        if (
            entry.place != "1"
            or not (entry.cell.method.rank and entry.cell.method.group)
            or not isinstance(result, Result)
        ):
            continue
        dataset = DATASETS[entry.target.dataset]
        scores, photographs = scores_of(result, paths(dataset.name, result.config["data"]["subset"]))
        label = result.config["data"]["score_column"] + (", negated" if not dataset.larger_is_better else "")
        before, after = (with_std(result.found[which]["srocc"]) for which in ("source", "adapted"))
        yield f"<details><summary>{escape(entry.weights)} on {dataset.title}<small>SROCC {before} → {after}</small></summary>"
        left = sections.scatter(scores, photographs, label) + sections.places(scores, photographs)
        right = sections.chosen(scores, photographs) + sections.losses({entry.cell.method.name: scores})
        yield f'<div class="pair"><div>{left}</div><div>{right}</div></div>'
        yield sections.extremes(scores, photographs, label)
        yield "</details>"


def _paths(name: str, subset: str, root: Path | None) -> dict[str, Path]:
    """The images of a data set that are on this machine, by name."""
    if root is None:
        return {}
    try:
        found = read_available(DATASETS[name], folder_of(DATASETS[name], root), subset)
    except UserError:  # then the page shows names
        return {}
    return {photograph.key: photograph.path for photograph in found.photographs}


def speeds(sweep: Sweep) -> Iterator[str]:
    """Images per second."""
    found = speed(sweep, usual)
    if found:
        methods = list(dict.fromkeys(method for row in found.values() for method in row))
        rows = []
        for (device, backbone), row in found.items():
            shown = (
                f"{row[name]:,.{0 if row[name] >= 10 else 1}f}" if name in row else "—" for name in methods
            )
            rows.append([escape(f"{backbone}, {device}"), *shown])
        yield table(["", *methods], rows)
        yield (
            '<p class="note">An image counts once per seed. Cells that run together share loading and the passes of the source, '
            "and each has its part of that in its time.</p>"
        )


def used(sweep: Sweep) -> Iterator[str]:
    """Data and checkpoints that the results were made from."""
    data, weights = {}, {}
    for result in sweep.done:
        record, file = result.config["data"], result.config["weights_file"]
        data[
            tuple(str(record[key]) for key in ("dataset", "subset", "score_column", "direction", "missing"))
        ] = record
        weights[result.config["weights"], Path(file["file"]).name, file["sha256"]] = file
    if data:
        yield table(
            ("data set", "subset", "score", "direction", "missing images", "label file"),
            (
                [escape(DATASETS[key[0]].title), *map(escape, key[1:]), escape(Path(r["label_file"]).name)]
                for key, r in data.items()
            ),
            "text",
        )
        rows = (
            [escape(name), escape(file), f"<code>{sha256[:16]}…</code>"] for name, file, sha256 in weights
        )
        yield table(("network, source", "file", "SHA-256"), rows, "text")


def failures(sweep: Sweep) -> Iterator[str]:
    """Why cells failed, and which."""
    places: dict[str, list[str]] = {}
    for entry in sweep.entries:
        places.setdefault(entry.cell.id, []).append(f"{all_expt.place_name(entry.place)}, {entry.setting}")
    reasons: dict[str, list[str]] = {}
    for name, failure in sweep.results.failed.items():
        where = "; ".join(places.get(name, ["not in this variant of the paper's tables"]))
        reasons.setdefault(failure.reason, []).append(f"{named(failure.cell)} ({where})")
    for reason, cells in reasons.items():
        yield f'<p>{escape(reason)}</p><ul class="note">{"".join(f"<li>{escape(cell)}</li>" for cell in cells)}</ul>'


def others_found(found: Sequence[Result]) -> Iterator[str]:
    """Results that belong to no place of the paper."""
    if found:
        yield '<p class="note">Finished cells that belong to no place of the paper.</p>'
        rows = []
        for result in found:
            config = result.config
            gain, interval = result.found["srocc_gain"]["mean"], result.found["srocc_gain"]["interval_95"]
            said = (
                ""
                if gain is None
                else markup.change(gain) + ("" if interval is None else f" [{markup.between(interval)}]")
            )
            seeds = f"{config['protocol']['name']}, {len(config['seeds'])} seeds"
            values = (with_std(result.found["adapted"][metric]) for metric in ("srocc", "plcc"))
            rows.append(
                [
                    escape(named(config)),
                    escape(seeds),
                    *values,
                    said,
                    f"{result.found['n_images']:,}",
                    result.id,
                ]
            )
        yield table(("", "protocol", "SROCC", "PLCC", "gain in SROCC", "images", "cell"), rows)


def story(results: Results, sweep: Sweep, others: Sequence[Sweep], root: Path | None) -> str:
    """The page."""
    shown, drawn = numbers_of_tables(sweep, DATASETS), numbers_of_figures(sweep, DATASETS)
    parts = [("glance", "At a glance", "", list(glance(shown, drawn)))]
    for one in shown:
        tally = f'<p class="note">{escape(str(Tally.of([one])))}</p>'
        parts.append((one.anchor, one.name, one.title, [tally, sections.numbers(one)]))
    parts += [(one.anchor, one.name, one.title, list(drawing(one))) for one in drawn]
    parts += [
        (
            "images",
            "Images before and after",
            "both losses, networks and data sets of Table 1",
            list(closer(sweep, root)),
        ),
        ("failures", "Failures", "", list(failures(sweep))),
        ("speed", "Images per second", "", list(speeds(sweep))),
        ("inputs", "Data and checkpoints", "", list(used(sweep))),
        ("others", "Other results", "", list(others_found(strangers(results, [sweep, *others])))),
        (
            "made",
            "How this was made",
            "",
            [f"<pre>python -m scripts.report RESULTS --out DIR {sweep.variant.options}</pre>"],
        ),
    ]
    parts = [part for part in parts if part[3]]
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _, _ in parts)
    body = [*header(sweep, others), f"<nav>{links}</nav>"]
    for anchor, title, note, content in parts:
        body += [chapter(anchor, title, note), *content]
    return page(TITLE, body, wide=True)


def said(sweep: Sweep, others: Sequence[Sweep], shown: Iterable[Table]) -> list[str]:
    """What comes before the tables where there is text alone."""
    return [
        progress(sweep),
        str(Tally.of(shown)),
        f"A value is mean and standard deviation over seeds. Below it: the published value, and the difference from it, "
        f"{markup.TICK} where that is at most {TOLERANCE} or two standard deviations; the gain in SROCC over the source on the "
        "same views, with its paired 95 % bootstrap interval over images. The paper prints no numbers for its figures.",
        *(" ".join(filter(None, remark)) for remark in remarks(sweep, others)),
    ]


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m scripts.report", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "results", type=Path, metavar="RESULTS", help="folder of a sweep: --results of scripts.all_expt"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/report"), help="folder to write to; default: results/report"
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        help="folder of the data sets, for thumbnails; default: $IQA_DATA_ROOT, data/raw",
    )
    whole = "; default: what most of the cells have"
    parser.add_argument("--protocol", choices=PROTOCOLS, help=f"paper or released{whole}")
    parser.add_argument("--seeds", type=positive, metavar="N", help=f"seeds 0 to N-1{whole}")
    parser.add_argument(
        "--limit-images", type=natural, metavar="N", help=f"N images of each data set, 0 for all{whole}"
    )
    parser.add_argument(
        "--similar-dmos", nargs=2, type=finite, metavar=("LOW", "HIGH"), help=f"bounds of Figure 4{whole}"
    )
    args = parser.parse_args(argv)
    asked = {
        "protocol": args.protocol,
        "seeds": args.seeds,
        "limit": args.limit_images,
        "similar": args.similar_dmos and tuple(args.similar_dmos),
    }
    root = (
        data_root(args.data_root)
        if args.data_root or os.environ.get("IQA_DATA_ROOT") or ROOT.exists()
        else None
    )
    results = Results.read(args.results)
    outputs = page_file, markdown_file, latex_file = [
        args.out / name for name in ("index.html", "report.md", "report.tex")
    ]
    check_targets(outputs, [], [args.results] + [root] * (root is not None))
    found = sweeps(results, grid)
    sweep = chosen(found, asked, results)
    others = [other for other in found if other.known - sweep.known]
    shown = numbers_of_tables(sweep, DATASETS)
    text = said(sweep, others, shown)
    shown += numbers_of_figures(sweep, DATASETS)
    for path, content in (
        (page_file, story(results, sweep, others, root)),
        (markdown_file, markup.markdown(TITLE, text, shown)),
        (latex_file, markup.latex(TITLE, text, shown)),
    ):
        with whole_file(path) as file:
            file.write(content)
    print(
        "\n".join(
            [text[0], *text[3:], *(f"{one.name}: {Tally.of([one])}" for one in shown), f"look at {page_file}"]
        )
    )


def chosen(found: Sequence[Sweep], asked: Mapping, results: Results) -> Sweep:
    """The first variant that is as was asked for, else an empty one. asked: fields of `Variant`, None where
    anything will do, and a limit of 0 for none."""
    wanted = {name: value for name, value in asked.items() if value is not None}
    if "limit" in wanted:
        wanted["limit"] = wanted["limit"] or None
    for sweep in found:
        variant = sweep.variant._replace(similar=wanted.get("similar", sweep.variant.similar))
        if all(getattr(variant, name) == value for name, value in wanted.items()):
            return Sweep(variant, list(grid(variant)), results)
    variant = Variant(**wanted)
    return Sweep(variant, list(grid(variant)), results)


if __name__ == "__main__":
    raise SystemExit(main())
