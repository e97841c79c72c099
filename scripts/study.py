"""Does adaptation help here, and what does it depend on? Every loss, and one setting at a time around
rank+gc, on one data set.

    python -m scripts.study --backbone metaiqa --weights FILE --data-root DIR --out results/study

Writes OUT/study.json and OUT/study.md, a table with the gain of every setting over the source on the very
same views, and its interval. docs/experiments.md was made from these.
"""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common.protocols import METHODS, Protocol, Setting
from common.runs.cell import run_cells, shared_inputs, summary, with_std
from common.system.cli import Parser, positive
from common.system.device import choose, default_episodes, default_workers, environment
from common.system.errors import command
from common.system.output import check_targets, whole_file, write_json
from data import inputs
from data.catalogue import DATASETS, data_root, folder_of
from data.dataset import read_dataset
from weights.manifest import located
from weights.networks import BACKBONES

PARTS = ("methods", "steps", "lr", "forms", "statistics", "gradient", "head", "batch", "released")
BATCH_SIZE = 8


@dataclass(frozen=True)
class Row:
    """One row of the table. part: what it belongs to."""

    part: str
    name: str
    setting: Setting
    batch_size: int = BATCH_SIZE


def rows(paper: Protocol, released: Protocol) -> Iterator[Row]:
    """The settings; each differs from rank+gc under `paper`, batches of 8, in what its name says."""
    full = METHODS["rank+gc"]
    for method in METHODS.values():
        if method.adapts:
            yield Row("methods", method.name, Setting(paper, method))
    for niter in (0, 1, 2, 4, 5, 6):
        yield Row("steps", f"{niter} steps", Setting(paper, replace(full, niter=niter)))
    for lr in (1e-4, 3e-4, 3e-3, 1e-2):
        yield Row("lr", f"lr {lr:g}", Setting(replace(paper, lr=lr), full))
    yield Row("forms", "log of the mean", Setting(replace(paper, group_form="log-of-mean"), full))
    yield Row("forms", "temperature 1", Setting(replace(paper, temperature=1.0), full))
    for running_from in ("clean", "none"):
        yield Row(
            "statistics",
            f"running statistics from {running_from}",
            Setting(replace(paper, running_from=running_from), full),
        )
    yield Row(
        "statistics", "answer from batch statistics", Setting(replace(paper, answer_from="batch"), full)
    )
    for lr in (1e-2, 1e-1):  # what the gradient does where the statistics stay
        still = replace(paper, running_from="none", lr=lr)
        yield Row("gradient", f"lr {lr:g}, running statistics from none", Setting(still, full))
    head = replace(paper, cut=released.cut, projection=released.projection)
    yield Row("head", f"released head: {head.cut}, {head.projection}-d", Setting(head, full))
    for size in (4, 16):
        yield Row("batch", f"batches of {size}, gc", Setting(paper, METHODS["gc"]), size)
        yield Row("batch", f"batches of {size}, rank+gc", Setting(paper, full), size)
    for name in ("rotation", "gc", "rank", "rank+gc"):
        yield Row("released", f"released, {name}", Setting(released, METHODS[name]))


def shared(wanted: Sequence[Row]) -> list[list[Row]]:
    """Rows whose views and source scores are the same, and can be run together."""
    alike: dict[object, list[Row]] = {}
    for row in wanted:
        key = row.batch_size, row.setting.stateful, shared_inputs(row.setting.protocol)
        alike.setdefault(key, []).append(row)
    return list(alike.values())


def table(found: Sequence[tuple[Row, dict]]) -> str:
    """Markdown."""
    lines = [
        "| setting | source SROCC | SROCC | PLCC | gain in SROCC | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for row, result in found:
        gain, interval = result["srocc_gain"]["mean"], result["srocc_gain"]["interval_95"]
        lines.append(
            f"| {row.name} | {with_std(result['source']['srocc'])} | {with_std(result['adapted']['srocc'])} "
            f"| {with_std(result['adapted']['plcc'])} | {'' if gain is None else f'{gain:+.3f}'} "
            f"| {'' if interval is None else f'{interval[0]:+.3f} to {interval[1]:+.3f}'} |"
        )
    return "\n".join(lines) + "\n"


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m scripts.study", description=__doc__.split("\n\n")[0])
    parser.add_argument("--backbone", required=True, choices=BACKBONES)
    parser.add_argument("--dataset", default="csv", choices=DATASETS, help="default: csv")
    parser.add_argument(
        "--data-root",
        type=Path,
        help="folder of the data sets or of this one; default: $IQA_DATA_ROOT, data/raw",
    )
    parser.add_argument(
        "--weights",
        required=True,
        metavar="NAME|FILE",
        help="checkpoint: a file, or a name of weights/README.md",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all of them")
    parser.add_argument(
        "--seeds", default=5, type=positive, metavar="N", help="run seeds 0 to N-1; default: 5"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument(
        "--out", type=Path, default=Path("results/study"), help="folder to write to; default: results/study"
    )
    args = parser.parse_args(argv)
    root = data_root(args.data_root)
    folder, weights = folder_of(DATASETS[args.dataset], root), located(args.weights)
    outputs = args.out / "study.json", args.out / "study.md"
    check_targets(outputs, [weights.path], [root, folder])
    device = choose(args.device)
    reading = read_dataset(DATASETS[args.dataset], folder)
    backbone = BACKBONES[args.backbone]
    network = inputs.network(args.backbone, weights, device)
    wanted = [
        row
        for row in rows(backbone.protocols["paper"], backbone.protocols["released"])
        if row.part in args.parts
    ]
    found = []
    for together in shared(wanted):
        print(", ".join(row.name for row in together), flush=True)
        scores = run_cells(
            network.wrap,
            reading.photographs,
            [row.setting for row in together],
            seeds=range(args.seeds),
            batch_size=together[0].batch_size,
            at_once=1 if together[0].setting.stateful else default_episodes(device),
            workers=default_workers(device),
            resize=reading.dataset.resize,
        )
        found += [(row, summary(one, reading.photographs)) for row, one in zip(together, scores)]
    found.sort(key=lambda pair: wanted.index(pair[0]))
    write_json(
        outputs[0],
        {
            "command": f"python -m scripts.study {shlex.join(sys.argv[1:] if argv is None else argv)}",
            "data": reading.record(),
            "weights": network.record,
            "seeds": args.seeds,
            "environment": environment(device),
            "rows": [
                {"part": row.part, "name": row.name, "batch_size": row.batch_size, "setting":
                 asdict(backbone.cut(row.setting.protocol).with_default_adapt(row.setting.method))
                 | {"protocol": asdict(row.setting.protocol)}, **result}
                for row, result in found
            ],
        },
    )  # fmt: skip
    with whole_file(outputs[1]) as file:
        file.write(table(found))
    print(table(found))


if __name__ == "__main__":
    raise SystemExit(main())
