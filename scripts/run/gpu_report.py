"""What scripts.gpu_report does."""

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from common.protocols import Protocol
from common.report.device_table import table
from common.runs.benchmark import FORMAT
from common.runs.device_report import Load, Measured, forward_seconds, passed
from common.runs.grid import PAPER_PLACES, paper_grid
from common.runs.jobs import jobs
from common.runs.parts import Done, run_parts
from common.system.device import choose, default_workers, environment, title
from common.system.output import check_targets, whole_file, write_json
from common.system.precision import PRECISIONS
from common.y import YNetwork
from data.inputs import published_size
from weights.networks import BACKBONES, experiments
from weights.trained import trained_source

TRAINED = Path(__file__).parents[2] / "weights/demo/metaiqa.safetensors"


def trained() -> tuple[YNetwork, Protocol]:
    """Return the network that the checks are of, on the CPU, and its protocol."""
    source = trained_source(TRAINED)
    source.ynet.draw_head(0)
    return source.ynet, source.protocol


def paper_passes(names: Sequence[str]) -> Counter[str]:
    """Return the forward-equivalents of single images in the paper's tables and figures, by network."""
    places = paper_grid(experiments(names), "paper", range(5))
    found: Counter[str] = Counter()
    for job in jobs(entry.cell for entry in places if entry.place in PAPER_PLACES):
        found[job.cells[0].backbone] += published_size(job.cells[0].target) * job.forwards
    return found


def content_of(
    done: Sequence[Done], passes: Mapping[str, int], device: torch.device, minutes: float
) -> dict[str, Any]:
    """Return what the file says: as one of scripts.benchmark, with all that was measured."""
    rates = {how: forward_seconds(done, how) for how in PRECISIONS}
    return {
        "format": FORMAT,
        "machine": {"title": title(device), **environment(device)},
        "networks": [{"network": name, "forward_seconds": value} for name, value in rates["float32"].items()],
        "minutes": minutes,
        "paper": {
            how: {"networks": list(found), "seconds": sum(passes[name] * found[name] for name in found)}
            for how, found in rates.items()
            if found
        },
        "parts": [part.as_json() for part in done],
    }


def run(args: argparse.Namespace) -> int:
    """Run the command; return its status, 1 if a check is not passed."""
    deadline = time.perf_counter() + 60 * args.minutes
    json_file, text_file = args.out / "gpu_report.json", args.out / "gpu_report.txt"
    check_targets([json_file, text_file], [])
    device = choose(args.device)
    passes = paper_passes(args.backbone)
    networks = [Measured(name, BACKBONES[name], device, args.batch_size) for name in args.backbone]
    workers = default_workers(device) if args.workers is None else args.workers
    done: list[Done] = []
    with TemporaryDirectory() as folder:
        load = Load(networks, trained, device, args.batch_size, args.episodes, workers, Path(folder))
        for part in run_parts(load.parts(), deadline):
            done.append(part)
            print(f"{part.name}: {part.fault or f'{part.seconds:.1f} s'}", flush=True)
            content = content_of(done, passes, device, args.minutes)
            write_json(json_file, content)  # each time: the next part may end the process
    text = table(content)
    with whole_file(text_file) as file:
        file.write(f"{text}\n")
    print(f"\n{text}\n\nin {json_file} and {text_file}")
    return 0 if passed(done) else 1
