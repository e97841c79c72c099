"""Study whether adaptation helps on a data set: every loss, and one setting at a time around rank+gc.

    python -m scripts.study --backbone metaiqa --weights FILE --data-root DIR --out results/study

Writes OUT/study.json and OUT/study.md, a table with the gain of every setting over the source on the very
same views, and its interval. docs/experiments.md was made from these.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.runs.cell import run_cells
from common.runs.results import Scores, Summary, summarise
from common.runs.study import PARTS, Row, rows, that_share
from common.system import cli
from common.system.cli import Parser, as_typed
from common.system.device import choose, default_episodes, default_workers, environment
from common.system.errors import command
from common.system.output import check_targets, whole_file, write_json
from common.y import Backbone
from data import inputs
from data.catalogue import DATASETS, data_root, folder_of
from data.dataset import read_dataset
from weights.manifest import located
from weights.networks import BACKBONES

PROG = "python -m scripts.study"
FORMAT = 1  # of study.json


def parser() -> Parser:
    """Return the parser of the command."""
    found = Parser(prog=PROG, description=__doc__.split("\n\n")[0])
    cli.add_backbone(found, BACKBONES)
    cli.add_dataset(found, DATASETS)
    cli.add_data_root(found)
    cli.add_weights(found, required=True)
    found.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all of them")
    cli.add_seeds(found)
    cli.add_device(found)
    found.add_argument(
        "--out", type=Path, default=Path("results/study"), help="folder to write to; default: results/study"
    )
    return found


def table(found: Sequence[tuple[Row, Summary]]) -> str:
    """Return the rows in Markdown."""
    lines = [
        "| setting | source SROCC | SROCC | PLCC | gain in SROCC | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for row, summary in found:
        gain, interval = summary.gain.mean, summary.gain.interval
        cells = (
            row.name,
            summary.source["srocc"].text(),
            summary.adapted["srocc"].text(),
            summary.adapted["plcc"].text(),
            "" if gain is None else f"{gain:+.3f}",
            "" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def row_to_json(row: Row, scores: Scores, summary: Summary, backbone: Backbone) -> dict[str, Any]:
    """Return what study.json says of a row."""
    protocol, method = row.setting
    method = backbone.cut(protocol).with_default_adapt(method)
    return {
        "part": row.part,
        "name": row.name,
        "batch_size": row.batch_size,
        "setting": asdict(method) | {"protocol": asdict(protocol)},
        **summary.to_json(),
        "seconds": scores.seconds,
        "images_per_second": scores.source.size / scores.seconds,
    }


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(argv)
    root = data_root(args.data_root)
    folder, weights = folder_of(DATASETS[args.dataset], root), located(args.weights)
    json_file, markdown_file = args.out / "study.json", args.out / "study.md"
    check_targets([json_file, markdown_file], [weights.path], [root, folder])
    device = choose(args.device)
    reading = read_dataset(DATASETS[args.dataset], folder)
    backbone = BACKBONES[args.backbone]
    network = inputs.network(args.backbone, weights, device)
    listed = rows(backbone.protocols["paper"], backbone.protocols["released"])
    wanted = [row for row in listed if row.part in args.parts]
    scores: dict[Row, Scores] = {}
    for together in that_share(wanted):
        print(", ".join(row.name for row in together), flush=True)
        several = run_cells(
            network.wrap,
            reading.photographs,
            [row.setting for row in together],
            seeds=range(args.seeds),
            batch_size=together[0].batch_size,
            at_once=1 if together[0].setting.stateful else default_episodes(device),
            workers=default_workers(device),
        )
        scores |= zip(together, several)
    found = [(row, summarise(scores[row], reading.photographs)) for row in wanted]
    write_json(
        json_file,
        {
            "format": FORMAT,
            "command": as_typed(PROG, argv),
            "data": reading.record(),
            "weights": network.record,
            "seeds": args.seeds,
            "environment": environment(device),
            "rows": [row_to_json(row, scores[row], summary, backbone) for row, summary in found],
        },
    )
    text = table(found)
    with whole_file(markdown_file) as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    raise SystemExit(main())
