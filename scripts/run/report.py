"""What scripts.report does."""

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from common.report.collected import Paper, Variant, check_known, of_networks, select_sweep, sweeps
from common.report.story import TITLE, Report, introduction, report_page
from common.report.tables import Tally
from common.report.text import latex, markdown
from common.runs.folders import Results
from common.runs.grid import PAPER_PLACES, SIMILAR_DMOS, Entry, paper_grid
from common.system.errors import UserError
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


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    has_data = args.data_root or os.environ.get("IQA_DATA_ROOT") or ROOT.exists()
    root = data_root(args.data_root) if has_data else None
    results = Results.read(args.results)
    check_known(results, PAPER)
    page_file, markdown_file, latex_file = outputs = [
        args.out / name for name in ("index.html", "report.md", "report.tex")
    ]
    check_targets(outputs, [], [args.results, *([] if root is None else [root]), *results.data_folders])

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
