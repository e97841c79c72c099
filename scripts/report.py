"""Show what a sweep measured beside what the paper published, in the paper's layout.

    python -m scripts.report results/paper --out results/report

Writes DIR/index.html, which needs nothing beside itself, DIR/report.md and DIR/report.tex. It works while the
sweep is running, too: what is missing is marked as missing.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from common.report.collected import PROTOCOLS, Paper, Variant, check_known, of_networks, select_sweep, sweeps
from common.report.story import TITLE, Report, introduction, report_page
from common.report.tables import Tally
from common.report.text import latex, markdown
from common.runs.folders import Results
from common.runs.grid import PAPER_PLACES, SIMILAR_DMOS, Entry, paper_grid
from common.system.cli import Parser, finite, natural, positive
from common.system.errors import UserError, command
from common.system.output import check_targets, whole_file
from data.catalogue import DATASETS, ROOT, data_root, folder_of
from data.dataset import read_available
from weights.networks import BACKBONES, experiments


def grid(variant: Variant) -> Iterator[Entry]:
    """Yield every place of the paper, with its cell."""
    entries = paper_grid(
        experiments(), variant.protocol, range(variant.seeds), variant.limit, variant.similar or SIMILAR_DMOS
    )
    return (entry for entry in entries if entry.place in PAPER_PLACES)


PAPER = Paper(grid, BACKBONES, DATASETS)


def image_paths(root: Path | None, dataset: str, subset: str) -> Mapping[str, Path]:
    """Find the images of a data set that are on this machine, by name."""
    if root is None:
        return {}
    try:
        reading = read_available(DATASETS[dataset], folder_of(DATASETS[dataset], root), subset)
    except UserError:  # then the page shows names
        return {}
    return {photograph.key: photograph.path for photograph in reading.photographs}


def parser() -> Parser:
    """Return the parser of the command line."""
    options = Parser(prog="python -m scripts.report", description=(__doc__ or "").split("\n\n")[0])
    options.add_argument(
        "results", type=Path, metavar="RESULTS", help="folder of a sweep: --results of scripts.all_expt"
    )
    options.add_argument(
        "--out", type=Path, default=Path("results/report"), help="folder to write to; default: results/report"
    )
    options.add_argument(
        "--data-root",
        type=Path,
        help="folder of the data sets, for thumbnails; default: $IQA_DATA_ROOT, data/raw",
    )
    options.add_argument(
        "--tables",
        nargs="+",
        choices=PAPER_PLACES,
        metavar="N",
        help=f"show these alone, of {' '.join(PAPER_PLACES)}",
    )
    options.add_argument(
        "--backbones", nargs="+", choices=list(BACKBONES), metavar="NAME", help="show these networks alone"
    )
    whole = "; default: what most of the cells have"
    options.add_argument("--protocol", choices=PROTOCOLS, help=f"paper or released{whole}")
    options.add_argument("--seeds", type=positive, metavar="N", help=f"seeds 0 to N-1{whole}")
    options.add_argument(
        "--limit-images", type=natural, metavar="N", help=f"N images of each data set, 0 for all{whole}"
    )
    options.add_argument(
        "--similar-dmos", nargs=2, type=finite, metavar=("LOW", "HIGH"), help=f"bounds of Figure 4{whole}"
    )
    return options


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    has_data = args.data_root or os.environ.get("IQA_DATA_ROOT") or ROOT.exists()
    root = data_root(args.data_root) if has_data else None
    results = Results.read(args.results)
    check_known(results, PAPER)
    page_file, markdown_file, latex_file = outputs = [
        args.out / name for name in ("index.html", "report.md", "report.tex")
    ]
    check_targets(outputs, [], [args.results] + [root] * (root is not None))

    paper = replace(PAPER, places=args.tables, networks=args.backbones)
    results = of_networks(results, paper)
    candidates = sweeps(results, paper)
    asked = {
        "protocol": args.protocol,
        "seeds": args.seeds,
        "limit": args.limit_images,
        "similar": args.similar_dmos and tuple(args.similar_dmos),
    }
    sweep = select_sweep(candidates, asked, results, paper)
    if not sweep.entries:
        raise UserError(
            "no place of the paper is in these --tables of these --backbones: widen one of the two"
        )
    found = Report.of(sweep, [other for other in candidates if other.known - sweep.known])
    paragraphs = introduction(found)
    contents = {
        page_file: report_page(found, partial(image_paths, root), args.out),
        markdown_file: markdown(TITLE, paragraphs, found.all_tables),
        latex_file: latex(TITLE, paragraphs, found.all_tables),
    }
    for path, content in contents.items():
        with whole_file(path) as file:
            file.write(content)
    progress, _, _, *remarks = paragraphs
    print(
        "\n".join([progress, *remarks, *(f"{table.name}: {Tally.of([table])}" for table in found.all_tables)])
    )
    print(f"look at {page_file}")


if __name__ == "__main__":
    raise SystemExit(main())
