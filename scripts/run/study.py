"""What scripts.study does."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from common.choice import Decision
from common.photographs import Photograph
from common.protocols import Protocol, Setting
from common.runs.cell import Network, run_cells
from common.runs.results import Scores, Summary, summarise
from common.runs.study import FORMAT, Row, rows, that_share, within_batches
from common.runs.tuned import run_tuned
from common.system.checksums import file_sha256
from common.system.device import choose, default_episodes, default_workers, environment
from common.system.output import check_targets, write_json
from common.y import YNetwork
from data import inputs
from data.catalogue import DATASETS, data_root, folder_of
from data.dataset import read_dataset
from weights.manifest import SourceFile, located
from weights.networks import BACKBONES
from weights.trained import trained_source


def network_of(
    args: argparse.Namespace, weights: SourceFile, device: Any
) -> tuple[str, Network, Protocol, Protocol | None]:
    """Return the network's name, the network, and its protocols `paper` and, if it has one, `released`."""
    if args.backbone is None:
        weights.verify()
        source = trained_source(weights.path)
        return source.name, source.ynet.to(device), source.protocol, None
    protocols = BACKBONES[args.backbone].protocols
    loaded = inputs.network(args.backbone, weights, device)
    return args.backbone, loaded.wrap, protocols["paper"], protocols["released"]


def run_together(
    together: Sequence[Row],
    network: Network,
    photographs: Sequence[Photograph],
    seeds: Sequence[int],
    device: Any,
) -> list[tuple[Scores, list[Decision]]]:
    """Run rows that share views and source scores; return the scores of each, and what was decided."""
    first, workers = together[0], default_workers(device)
    if not isinstance(first.setting, Setting):
        ynet = network if isinstance(network, YNetwork) else network(first.setting.protocol)
        found = run_tuned(ynet, photographs, first.setting, seeds=seeds, workers=workers, order=first.order)
        return [(found.scores, found.decisions)]
    settings = [row.setting for row in together if isinstance(row.setting, Setting)]
    scores = run_cells(
        network,
        photographs,
        settings,
        seeds=range(len(seeds) * first.views),
        batch_size=first.batch_size,
        order=first.order,
        at_once=1 if settings[0].stateful else default_episodes(device),
        workers=workers,
    )
    return [(averaged(one, seeds), []) for one in scores]


def averaged(scores: Scores, seeds: Sequence[int]) -> Scores:
    """Return the means of the scores of several views, beside the source's of the first of them.

    scores: of a multiple of the seeds, from 0; those that leave the same remainder are of one mean.
    """
    views = len(scores.seeds) // len(seeds)
    if views == 1:
        return scores
    n = len(seeds)
    adapted = scores.adapted.reshape(views, n, -1).mean(0)
    rest = {name: getattr(scores, name)[:n] for name in ("source", "choice", "losses")}
    return replace(scores, seeds=seeds, adapted=adapted, **rest)


def row_to_json(
    row: Row,
    scores: Scores,
    decisions: Sequence[Decision],
    photographs: Sequence[Photograph],
    summary: Summary,
    apart: Sequence[str],
) -> dict[str, Any]:
    """Return what the file says of a row."""
    seeds = scores.seeds
    content = summary.to_json()
    if isinstance(row.setting, Setting):
        setting = {"method": asdict(row.setting.method), "protocol": asdict(row.setting.protocol)}
    else:
        setting = asdict(row.setting)
    told_apart = None
    if chosen := [index for index, photograph in enumerate(photographs) if photograph.kind in apart]:
        theirs = summarise(scores.only(chosen), [photographs[i] for i in chosen], True)
        told_apart = theirs.gain.to_json()
    return {
        "part": row.part,
        "name": row.name,
        "batch_size": row.batch_size,
        "views": row.views,
        "setting": setting,
        **{name: content[name] for name in ("n_images", "source", "adapted", "srocc_gain")},
        "within_batches": {
            "source": within_batches(scores.source, photographs, row, seeds),
            "adapted": within_batches(scores.adapted, photographs, row, seeds),
        },
        "apart": told_apart,
        "decisions": [decision._asdict() for decision in decisions],
        "seconds": scores.seconds,
        "images_per_second": scores.source.size / scores.seconds,
    }


def run(args: argparse.Namespace, typed: str) -> None:
    """Run the command; typed: as somebody would type it again."""
    root = data_root(args.data_root)
    folder, weights = folder_of(DATASETS[args.dataset], root), located(args.weights)
    json_file = args.out / f"{args.name}.json"
    check_targets([json_file], [weights.path], [root, folder])
    device = choose(args.device)
    reading = read_dataset(DATASETS[args.dataset], folder, args.subset, args.score_column, args.allow_missing)
    photographs = inputs.limited(reading.photographs, args.limit)
    name, network, paper, released = network_of(args, weights, device)
    wanted = [
        row
        for row in rows(paper, released)
        if row.part in args.parts and (args.rows is None or row.name in args.rows)
    ]
    found: dict[Row, tuple[Scores, list[Decision]]] = {}
    for together in that_share(wanted):
        print(", ".join(row.name for row in together), flush=True)
        found |= zip(together, run_together(together, network, photographs, range(args.seeds), device))
    by_group = len({photograph.group for photograph in photographs}) < len(photographs)
    content = []
    for row in wanted:
        scores, decisions = found[row]
        summary = summarise(scores, photographs, by_group)
        content.append(row_to_json(row, scores, decisions, photographs, summary, args.apart or ()))
        print(
            f"{row.name:40s} {summary.source['srocc'].text()}  {summary.adapted['srocc'].text()}  "
            f"{summary.gain.text()}",
            flush=True,
        )
    write_json(
        json_file,
        {
            "format": FORMAT,
            "command": typed,
            "network": name,
            "weights": {"file": weights.path.name, "sha256": file_sha256(weights.path)},
            "data": {**reading.record(), "images": len(photographs)},
            "interval": "over groups" if by_group else "over images",
            "seeds": args.seeds,
            "environment": environment(device),
            "rows": content,
        },
    )
