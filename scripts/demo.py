"""The whole story in a few minutes: a trained network, photographs that it was not made for, and what
adaptation does to them.

    python -m scripts.demo --out results/demo

MetaIQA's network, trained on degraded photographs (weights/demo), scores others that lost light and were
denoised and brightened, which it never saw: as it is, and adapted by each method. Writes DIR/summary.json and
DIR/index.html.
"""

import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from common.photographs import Photograph
from common.protocols import METHODS, Setting
from common.report import sections
from common.report.page import page
from common.runs.cell import Scores, run_cells, summary, with_std
from common.system.cli import Parser, positive
from common.system.device import choose, default_episodes, default_workers, environment
from common.system.errors import command
from common.system.output import check_targets, whole_file, write_json
from data import inputs
from data.csv_folder import DATASET
from data.dataset import read_dataset
from data.demo import target_versions, write
from weights.manifest import SourceFile
from weights.networks import BACKBONES

WEIGHTS = Path(__file__).parent.parent / "weights/demo/metaiqa.safetensors"
SHOWN = ("rotation", "gc", "rank", "rank+gc")
LABEL = "stops of light"
WIDTH = 11


def table(results: Mapping[str, dict]) -> str:
    """The methods as people read them on a terminal."""
    lines = [f"{'':{WIDTH}s}{'SROCC':>16s}{'PLCC':>16s}   gain in SROCC, 95% interval"]
    first = next(iter(results.values()))
    lines.append(
        f"{'source':{WIDTH}s}"
        + "".join(
            f"{with_std(first['source'][metric], plus_minus='+-'):>16s}" for metric in ("srocc", "plcc")
        )
    )
    for name, result in results.items():
        line = f"{name:{WIDTH}s}" + "".join(
            f"{with_std(result['adapted'][metric], plus_minus='+-'):>16s}" for metric in ("srocc", "plcc")
        )
        gain, interval = result["srocc_gain"]["mean"], result["srocc_gain"]["interval_95"]
        if interval is not None:
            line += f"   {gain:+.3f}, {interval[0]:+.3f} to {interval[1]:+.3f}"
        lines.append(line)
    return "\n".join(lines)


def brief(results: Mapping[str, dict]) -> dict:
    """What summary.json says of each method."""
    first = next(iter(results.values()))
    methods = {
        "source": {
            **{metric: first["source"][metric] for metric in ("srocc", "plcc")},
            "n": first["n_images"],
        }
    }
    for name, result in results.items():
        methods[name] = {
            **{metric: result["adapted"][metric] for metric in ("srocc", "plcc")},
            "n": result["n_images"],
            "srocc_gain": result["srocc_gain"],
        }
    return methods


def story(
    results: Mapping[str, dict],
    found: Mapping[str, Scores],
    photographs: Sequence[Photograph],
    seconds: float,
    where: dict,
) -> str:
    """The page. where: versions and hardware."""
    best = found["rank+gc"]
    seeds = len(best.seeds)
    return page(
        "Test-time adaptation of an image quality network",
        [
            "<p class='lead'>MetaIQA's network was trained on photographs degraded by compression, noise, blur and reduction. "
            f"Here it meets {len(photographs)} images of another kind: photographs that lost light step by step, and were "
            "denoised and brightened again. It adapts without labels: on every batch of 8 images it takes three steps on the "
            "affine parameters of its batch normalisation, answers, and returns to where it was.</p>",
            f"<p>The true quality is the number of stops of light lost, which the network does not see. Mean and standard "
            f"deviation are over {seeds} seeds (crops, flips, batches, projection head); intervals are over images.</p>",
            "<h2>What each method gains</h2>",
            f"<p>By these intervals, adaptation {escape(sections.verdict(results))}.</p>",
            sections.methods(results),
            "<p class='note'>Three photographs with a made-up fault are a demonstration, not evidence. docs/experiments.md has "
            "the study that goes with it, on human scores too, and says what helps and hurts and why.</p>",
            "<h2>The photographs, scored before and after rank+gc</h2>",
            sections.strips(best, photographs, LABEL),
            "<h2>Score against true quality</h2>",
            sections.scatter(best, photographs, LABEL),
            "<h2>Gained and lost</h2>",
            sections.places(best, photographs),
            "<h2>The distortion that the rank loss compares by</h2>",
            sections.chosen(best, photographs),
            "<h2>Loss per step</h2>",
            sections.losses(found),
            "<h2>How this was made</h2>",
            "<pre>python -m scripts.demo\n"
            "python -m scripts.reproduce_cell --backbone metaiqa --weights weights/demo/metaiqa.safetensors \\\n"
            f"    --data-root results/demo/photographs --method rank+gc --seeds {seeds}   # the same scores, one method</pre>",
            f'<p class="note">{seconds:.0f} s for {len(SHOWN)} methods x {seeds} seeds x {len(photographs)} images. '
            + escape(", ".join(f"{name} {value}" for name, value in where.items()))
            + "</p>",
        ],
    )


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m scripts.demo", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("results/demo"), help="folder to write to; default: results/demo"
    )
    parser.add_argument(
        "--seeds", default=3, type=positive, metavar="N", help="run seeds 0 to N-1; default: 3"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    args = parser.parse_args(argv)
    started = time.perf_counter()
    folder, summary_file, page_file = (
        args.out / "photographs",
        args.out / "summary.json",
        args.out / "index.html",
    )
    check_targets([summary_file, page_file], [WEIGHTS])
    device = choose(args.device)
    print(f"making the photographs in {folder}", flush=True)
    write(folder, target_versions())
    photographs = read_dataset(DATASET, folder).photographs
    protocol = BACKBONES["metaiqa"].protocols["paper"]
    network = inputs.network("metaiqa", SourceFile(WEIGHTS), device)
    print(f"{len(photographs)} images, {args.seeds} seeds, {len(SHOWN)} methods on {device}", flush=True)
    scores = run_cells(
        network.wrap,
        photographs,
        [Setting(protocol, METHODS[name]) for name in SHOWN],
        seeds=range(args.seeds),
        at_once=default_episodes(device),
        workers=default_workers(device),
    )
    found = dict(zip(SHOWN, scores))
    results = {name: summary(one, photographs) for name, one in found.items()}
    seconds, where = time.perf_counter() - started, environment(device)
    weights = {**network.record, "file": WEIGHTS.name}
    write_json(
        summary_file,
        {
            "methods": brief(results),
            "seeds": args.seeds,
            "weights": weights,
            "seconds": seconds,
            "environment": where,
        },
    )
    with whole_file(page_file) as file:
        file.write(story(results, found, photographs, seconds, where))
    print(table(results))
    print(f"by these intervals, adaptation {sections.verdict(results)}")
    print(f"{seconds:.0f} s; {summary_file}; look at {page_file}")


if __name__ == "__main__":
    raise SystemExit(main())
