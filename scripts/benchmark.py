"""Photographs per second, scored plainly, adapted to by rank+gc and by tuned, and by the authors' release.

    python -m scripts.benchmark --backbone metaiqa hyperiqa --release TTA-IQA --threads 1 --json bench.json

All of it is measured in turns, from decoding to the last score, with random weights. --release takes a
checkout of https://github.com/subhadeeproy2000/TTA-IQA (common/runs/release.py says what is stood in for);
MUSIQ's loop there cannot be called: it is a script, and reads a JPEG file that it never wrote.
`all_expt --dry-run --rates` reads the JSON file.
"""

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
from common.runs.release import REPOSITORY, Loop
from common.system import cli
from common.system.cli import Parser, natural, positive
from common.system.device import choose, default_episodes, default_workers, environment, title
from common.system.errors import UserError, command
from common.system.output import check_targets, write_json
from data.collect import collect
from weights.networks import BACKBONES, authors_loop


def parser() -> Parser:
    found = Parser(prog="python -m scripts.benchmark", description=__doc__.split("\n\n")[0])
    found.add_argument(
        "--backbone", nargs="+", choices=BACKBONES, default=list(BACKBONES), help="default: all four"
    )
    cli.add_device(found)
    found.add_argument(
        "--episodes",
        type=positive,
        metavar="E",
        help="at once; default: as in a sweep, 1 on a CPU, 4 on CUDA",
    )
    cli.add_batch_size(found)
    cli.add_workers(found)
    found.add_argument(
        "--threads", type=positive, metavar="N", help="of a CPU, also for the release; default: PyTorch's"
    )
    found.add_argument("--rounds", type=positive, default=3, metavar="N", help="default: 3, after a warm-up")
    found.add_argument(
        "--photographs",
        type=positive,
        metavar="N",
        help="of a round; default: E batches, on CUDA 8 E",
    )
    found.add_argument(
        "--stream",
        type=natural,
        default=0,
        metavar="N",
        help="also measure tuned, over so many photographs",
    )
    found.add_argument("--images", metavar="DIR", help="your own photographs; default: textures of 512 x 384")
    found.add_argument("--release", type=Path, metavar="DIR", help=f"compare with a checkout of {REPOSITORY}")
    found.add_argument("--json", type=Path, metavar="OUT")
    return found


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
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


if __name__ == "__main__":
    raise SystemExit(main())
