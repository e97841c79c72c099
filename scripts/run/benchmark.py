"""What scripts.benchmark does."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from common.protocols import TUNED
from common.runs.benchmark import (
    ADAPTED,
    FORMAT,
    PLAIN,
    RELEASE,
    Load,
    Measured,
    measure,
    photographs_in,
)
from common.runs.release import Loop
from common.system.device import choose, default_episodes, default_workers, environment, title
from common.system.errors import UserError
from common.system.output import check_targets, write_json
from common.system.precision import precision
from data.collect import collect
from weights.networks import BACKBONES, authors_loop


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if 0 < args.stream < TUNED.least:
        raise UserError(f"--stream: tuned adapts from {TUNED.least} photographs on")
    check_targets([args.json], [], [Path(args.images)] if args.images else [])
    loops = _loops(args.backbone, args.release)
    images = [photograph.path for photograph in collect([args.images]).photographs] if args.images else []
    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose(args.device)
    gpu = device.type == "cuda"
    episodes = args.episodes or default_episodes(device)
    count = args.photographs or args.batch_size * episodes * (8 if gpu else 1)
    workers = (default_workers(device) if gpu else 0) if args.workers is None else args.workers
    content = {
        "format": FORMAT,
        "machine": {"title": title(device), **environment(device)},
        "settings": {
            "batch_size": args.batch_size,
            "precision": args.precision,
            "loader_processes": workers,
            "photographs": count,
            "stream": args.stream,
            "images": args.images or "textures of 512 x 384",
        },
    }
    found = []
    print(f"{title(device)}; {args.rounds} rounds of {count} photographs, medians", flush=True)
    with TemporaryDirectory() as folder:
        photographs = photographs_in(Path(folder), images, max(count, args.stream))
        load = Load(
            photographs[:count],
            photographs[: args.stream],
            args.batch_size,
            episodes,
            workers,
            args.rounds,
            device,
        )
        for name in args.backbone:
            release = (loops[name], args.release) if name in loops else None
            with precision(args.precision, device):
                measured = measure(name, BACKBONES[name], load, release)
            print("\n".join(_shown(measured, device.type == "cpu" and workers == 0)), flush=True)
            found.append(measured.as_json())
            if args.json:  # each time, since the next network may take long
                write_json(args.json, {**content, "networks": found})


def _loops(names: Sequence[str], checkout: Path | None) -> dict[str, Loop]:
    """Return the authors' loops around the networks, where they are asked for."""
    if checkout is None:
        return {}
    loops = {name: loop for name in names if (loop := authors_loop(name)) is not None}
    if not loops:
        raise UserError(f"--release: no loop of theirs around {', '.join(names)} can be called")
    for loop in loops.values():
        loop.file(checkout)
    return loops


def _shown(measured: Measured, by_cpu: bool) -> Iterator[str]:
    """Yield a line for each kind of work; by_cpu: whether the time of the CPU says anything of it."""
    for kind in measured.rounds:
        line = f"{measured.network:10s}  {kind:8s} {1 / measured.seconds(kind):8.3g} im/s"
        if kind != PLAIN:
            other = ADAPTED if kind == RELEASE else PLAIN
            median, least, most = measured.ratio(kind, other)
            line += f"  {median:6.2f} times as long as {other} ({least:.2f} to {most:.2f}"
            line += f"; {measured.ratio(kind, other, 'cpu').median:.2f} by CPU time)" if by_cpu else ")"
        yield line
