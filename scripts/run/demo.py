"""What scripts.demo does."""

import argparse
import time
from collections.abc import Mapping

from common.protocols import METHODS, TUNED, Setting
from common.report.demo_page import METRICS, advice, demo_page, methods_json
from common.report.sections import verdicts
from common.runs.cell import run_cells
from common.runs.results import OverSeeds, Summary, summarise
from common.runs.tuned import run_tuned
from common.system.checksums import file_sha256
from common.system.device import choose, default_episodes, default_workers, environment
from common.system.output import check_targets, whole_file, write_json
from data.csv_folder import DATASET
from data.dataset import read_dataset
from data.demo import FAULTS, versions, write
from weights.trained import SHIPPED, trained_source


def methods_table(summaries: Mapping[str, Summary]) -> str:
    """Write the methods' metrics for a terminal. summaries: by method."""

    def line(name: str, metrics: Mapping[str, OverSeeds], gain: str = "") -> str:
        cells = (f"{metrics[metric].text(plus_minus='+-'):>16s}" for metric in METRICS)
        return f"{name:11s}{''.join(cells)}   {gain}".rstrip()

    source = next(iter(summaries.values())).source
    head = f"{'':11s}{'SROCC':>16s}{'PLCC':>16s}   gain in SROCC, 95% interval"
    rows = (line(name, summary.adapted, summary.gain.text()) for name, summary in summaries.items())
    return "\n".join([head, line("source", source), *rows])


def run(args: argparse.Namespace, typed: str) -> None:
    """Run the command; typed: as somebody would type it again."""
    started = time.perf_counter()
    folder = args.out / "photographs"
    summary_file, page_file = args.out / "summary.json", args.out / "index.html"
    check_targets([summary_file, page_file], [SHIPPED])
    device = choose(args.device)
    print(f"making the photographs in {folder}", flush=True)
    fault = FAULTS[args.target]
    write(folder, versions(fault))
    photographs = read_dataset(DATASET, folder).photographs
    source = trained_source(SHIPPED)
    ynet = source.ynet.to(device)
    shown = dict.fromkeys((*args.methods, "rank+gc"))  # in their order
    print(f"{len(photographs)} images, {args.seeds} seeds, {len(shown) + 1} methods on {device}", flush=True)
    seeds, workers = range(args.seeds), default_workers(device)
    runs = run_cells(
        ynet,
        photographs,
        [Setting(source.protocol, METHODS[name]) for name in shown],
        seeds=seeds,
        at_once=default_episodes(device),
        workers=workers,
    )
    tuned = run_tuned(ynet, photographs, TUNED, seeds=seeds, workers=workers)
    scores = {**dict(zip(shown, runs)), TUNED.name: tuned.scores}
    summaries = {name: summarise(one, photographs, by_group=True) for name, one in scores.items()}
    seconds, made_with = time.perf_counter() - started, environment(device)
    write_json(
        summary_file,
        {
            "methods": methods_json(summaries),
            "decisions": [decision._asdict() for decision in tuned.decisions],
            "seeds": args.seeds,
            "weights": {"file": SHIPPED.name, "sha256": file_sha256(SHIPPED)},
            "seconds": seconds,
            "environment": made_with,
        },
    )
    with whole_file(page_file) as file:
        file.write(
            demo_page(
                summaries,
                scores,
                tuned.decisions,
                photographs,
                fault.happened,
                fault.label,
                str(args.out),
                typed,
                seconds,
                made_with,
            )
        )
    print(methods_table(summaries))
    if words := verdicts(summaries):  # none where there are too few images for an interval
        print(f"by these intervals, adaptation {words}")
    print(f"tuned {tuned.decisions[0].sentence()} (first seed)")
    print(advice(summaries))
    print(f"{seconds:.0f} s; {summary_file}; look at {page_file}")
