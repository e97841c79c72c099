"""One cell of a table: SROCC and PLCC of a network on a data set, by the source and after test-time
adaptation.

    python -m scripts.reproduce_cell --table 1 --backbone tres --dataset pipal --method rank+gc
    python -m scripts.reproduce_cell --backbone tres --dataset csv --data-root photos/ --weights tres.pth --method rank+gc

The first stands it beside what the paper published; the second is any network on any data set.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from common.distortions import TYPES
from common.protocols import METHODS, Method, Protocol, Setting
from common.runs.cell import run_cells, score_table, summary, with_std
from common.runs.grid import Cell, Entry, published
from common.system.cli import Parser, above_zero, natural, positive
from common.system.device import choose, default_episodes, default_workers, environment
from common.system.errors import UserError, command
from common.system.output import check_targets, write_csv, write_json
from common.y import ADAPTABLE
from data import inputs
from data.catalogue import DATASETS, data_root, folder_of
from data.dataset import read_dataset
from scripts.all_expt import PLACES, grid
from weights.manifest import located, read_manifest
from weights.networks import BACKBONES

TABLES = tuple(place for place in PLACES if place.isdigit())


def parser() -> Parser:
    found = Parser(
        prog="python -m scripts.reproduce_cell",
        description=__doc__.split("\n\n")[0],
    )
    found.add_argument(
        "--table", choices=TABLES, metavar="N", help="of the paper, 1 to 8: also print what was published"
    )
    found.add_argument("--backbone", required=True, choices=BACKBONES)
    found.add_argument("--dataset", default="csv", choices=DATASETS, help="default: csv")
    found.add_argument(
        "--data-root",
        type=Path,
        help="folder of the data sets or of this one; default: $IQA_DATA_ROOT, data/raw",
    )
    found.add_argument("--subset", help="part of the data set; data/README.md lists them and the default")
    found.add_argument(
        "--score-column", help="where a data set has several; default: the one of the authors' code"
    )
    found.add_argument(
        "--allow-missing",
        action="store_true",
        help="go without images that are not there, and record how many",
    )
    found.add_argument(
        "--weights",
        metavar="NAME|FILE",
        help="checkpoint: a file, or a name of weights/README.md; default: that of the table",
    )
    found.add_argument(
        "--weights-dir", type=Path, help="folder of checkpoints by name; default: weights/files"
    )
    found.add_argument("--method", default="rank+gc", choices=METHODS, help="default: rank+gc")
    found.add_argument("--protocol", default="paper", choices=("paper", "released"), help="default: paper")
    found.add_argument(
        "--seeds", default=5, type=positive, metavar="N", help="run seeds 0 to N-1; default: 5"
    )
    found.add_argument(
        "--batch-size", default=8, type=positive, metavar="N", help="images of an episode; default: 8"
    )
    found.add_argument(
        "--episodes", type=positive, metavar="E", help="episodes at once; by device if left out"
    )
    found.add_argument("--workers", type=natural, metavar="W", help="loader processes; by device if left out")
    found.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    found.add_argument("--json", type=Path, metavar="OUT.json", help="write configuration and metrics here")
    found.add_argument("--scores", type=Path, metavar="OUT.csv", help="write the scores of every image here")
    ablation = found.add_argument_group("ablations", "what is left out is the method's or the protocol's own")
    ablation.add_argument(
        "--distortion", choices=("best", *TYPES, "all"), help="pairs of the rank loss (Table 3)"
    )
    ablation.add_argument("--p", type=above_zero, help="share of a batch in a group (Table 4)")
    ablation.add_argument(
        "--groups", type=int, choices=(2, 3, 4), help="groups of the contrastive loss (Table 5)"
    )
    ablation.add_argument("--adapt", help=f"what adapts: {', '.join(ADAPTABLE)}, joined by + (Table 6)")
    ablation.add_argument(
        "--cut", help="where the extractor ends (Table 6): transformer, if LN or CLS adapts"
    )
    ablation.add_argument("--niter", type=natural, help="steps of an episode (Figure 6)")
    ablation.add_argument("--lr", type=above_zero, help="learning rate of Adam")
    ablation.add_argument("--weight", type=above_zero, help="lambda of Eq. 7")
    ablation.add_argument("--temperature", type=above_zero, help="of the contrastive losses")
    ablation.add_argument("--group-form", choices=("pairs", "mean-of-log", "log-of-mean"))
    ablation.add_argument(
        "--running-from", choices=("all", "clean", "none"), help="passes that move the BN statistics"
    )
    ablation.add_argument("--answer-from", choices=("running", "batch"), help="BN statistics of the answer")
    ablation.add_argument(
        "--leak-state",
        action="store_const",
        const=True,
        help="keep gradients and moments from episode to episode (release)",
    )
    return found


def settings(args: argparse.Namespace) -> tuple[Protocol, Method]:
    """The protocol and the method with the ablations that were asked for."""

    def given(*names: str) -> dict:
        return {name: getattr(args, name) for name in names if getattr(args, name) is not None}

    method = replace(METHODS[args.method], **given("distortion", "p", "groups", "niter"))
    if args.adapt is not None:
        method = replace(method, adapt=tuple(args.adapt.split("+")))
    if method.groups * method.p > 1:
        raise UserError(
            f"{method.groups} groups of {method.p} of a batch do not fit into it: choose a smaller --p or fewer --groups"
        )
    protocol = replace(
        BACKBONES[args.backbone].protocols[args.protocol],
        **given(
            "lr", "weight", "temperature", "group_form", "running_from", "answer_from", "leak_state", "cut"
        ),
    )
    if method.statistics_only and protocol.running_from == "none":
        raise UserError("bn-stats moves nothing with --running-from none: choose another")
    if args.cut is None and {"ln", "cls"} & set(method.adapt or ()):
        protocol = replace(protocol, cut="transformer")
    return protocol, BACKBONES[args.backbone].cut(protocol).with_default_adapt(method)


def table(result: dict) -> str:
    """The result as people read it."""
    rows = [f"{'':8s}  {'SROCC':>15s}  {'PLCC':>15s}  {'PLCC logistic':>15s}  {'KROCC':>15s}  {'RMSE':>15s}"]
    for which in ("source", "adapted"):
        cells = (
            with_std(result[which][name], 4, "+-")
            for name in ("srocc", "plcc", "plcc_logistic", "krocc", "rmse")
        )
        rows.append(f"{which:8s}  " + "  ".join(f"{cell:>15s}" for cell in cells))
    gain = result["srocc_gain"]
    if gain["interval_95"] is not None:
        low, high = gain["interval_95"]
        rows.append(f"gain in SROCC {gain['mean']:+.4f}, 95% interval over images {low:+.4f} to {high:+.4f}")
    return "\n".join(rows)


def place_in(args: argparse.Namespace, protocol: Protocol, method: Method) -> Entry:
    """The place of the paper's table that was asked for. Raises UserError if the table has none such, or more
    than one."""
    asked = (("--batch-size", args.batch_size == Cell.batch_size), ("--subset", args.subset is None))
    for option, usual in (*asked, ("--score-column", args.score_column is None)):
        if not usual:
            raise UserError(
                f"Table {args.table} is not of another {option}: leave it out, or leave out --table"
            )
    row = [
        entry
        for entry in grid([args.backbone], args.protocol, args.seeds)
        if (entry.place, entry.target.dataset) == (args.table, args.dataset)
    ]
    if not row:
        raise UserError(
            f"Table {args.table} has no cell of {args.backbone} on {args.dataset}: choose another"
        )
    found = [entry for entry in row if _alike(entry.cell, protocol, method, args.cut)]
    if not found:
        settings = ", ".join(dict.fromkeys(entry.setting for entry in row))
        raise UserError(
            f"Table {args.table} has {settings} and not this method: choose --method and the ablations accordingly"
        )
    sources = sorted({entry.weights for entry in row})
    if args.weights in read_manifest() or len(found) > 1:
        found = [entry for entry in found if entry.weights == args.weights]
    if not found:
        raise UserError(
            f"Table {args.table} on {args.dataset} is of {' and '.join(sources)}: give one as --weights"
        )
    return found[0]


def _alike(cell: Cell, protocol: Protocol, method: Method, cut: str | None) -> bool:
    """Whether a cell is what was asked for. cut: None where the table may say."""
    named = replace(cell.method, name=method.name, adapt=method.adapt)
    same = set(cell.method.adapt) == set(method.adapt) and named == method
    return same and replace(cell.protocol, cut=protocol.cut if cut is None else cell.protocol.cut) == protocol


def beside(entry: Entry, weights: Path, result: dict) -> str:
    """Published and measured, as people read them."""
    rows = [
        f"Table {entry.place}, {entry.weights} on {entry.target}, {entry.setting}; measured with {weights}",
        f"{'':8s}  {'published':>10s}  {'measured':>15s}  {'difference':>10s}",
    ]
    for number in published():
        if number.key == entry.key:
            measured = result["adapted"][number.metric]
            difference = "" if measured["mean"] is None else f"{measured['mean'] - number.value:+.4f}"
            rows.append(
                f"{number.metric.upper():8s}  {number.value:10.4f}  {with_std(measured, 4, '+-'):>15s}  {difference:>10s}"
            )
    return "\n".join(rows)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    protocol, method = settings(args)
    place = None if args.table is None else place_in(args, protocol, method)
    if place is not None:
        protocol, method = place.cell.protocol, place.cell.method
    elif args.weights is None:
        raise UserError("no --weights: give a checkpoint, or the --table whose own it shall be")
    root = data_root(args.data_root)
    folder = folder_of(DATASETS[args.dataset], root)
    weights = located(args.weights or place.weights, args.weights_dir)
    check_targets([args.json, args.scores], [weights.path], [root, folder])
    device = choose(args.device)
    setting = Setting(protocol, method)
    episodes = args.episodes or (1 if setting.stateful else default_episodes(device))
    if setting.stateful and episodes > 1:
        option = "--leak-state" if protocol.leak_state else f"--method {method.name}"
        raise UserError(f"{option} passes state from one episode to the next: leave out --episodes")
    workers = default_workers(device) if args.workers is None else args.workers
    reading = read_dataset(DATASETS[args.dataset], folder, args.subset, args.score_column, args.allow_missing)
    photographs = reading.photographs
    network = inputs.network(args.backbone, weights, device)
    print(
        f"{args.backbone}, {method.name}, protocol {args.protocol}, {len(photographs)} images, {args.seeds} seeds",
        flush=True,
    )
    print(
        f"{reading.dataset.title}, subset {reading.subset}, {reading.labels.column} ({reading.dataset.direction})",
        flush=True,
    )
    (scores,) = run_cells(
        network.wrap,
        photographs,
        [setting],
        seeds=range(args.seeds),
        batch_size=args.batch_size,
        at_once=episodes,
        workers=workers,
        resize=reading.dataset.resize,
    )
    result = {
        "config": {
            "backbone": args.backbone,
            **reading.record(),
            "weights": network.record,
            "method": asdict(method),
            "protocol": asdict(protocol),
            "seeds": list(range(args.seeds)),
            "batch_size": args.batch_size,
            "episodes": episodes,
            "workers": workers,
            "device": str(device),
        },
        "environment": environment(device),
        **summary(scores, photographs),
    }
    if args.json:
        write_json(args.json, result)
    if args.scores:
        write_csv(args.scores, *score_table(scores, photographs))
    print(table(result))
    if place is not None:
        print(beside(place, weights.path, result))
    for note in (*reading.notes(), *scores.notes()):
        print(f"note: {note}")
    print(f"{scores.seconds:.1f} s, {result['images_per_second']:.2f} images/s")


if __name__ == "__main__":
    raise SystemExit(main())
