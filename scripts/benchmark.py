"""Images per second of plain inference and of test-time adaptation by rank+gc, per network.

    python -m scripts.benchmark --backbone metaiqa --episodes 1 2 4

The bound is 26 forward-equivalents per adapted image: 7 by the source (clean, and two levels of three
distortions), 3 steps x 3 passes x (forward and backward to the input), and the answer. Weights and images are
random: neither changes the time.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from common.adapter import Adapter
from common.batches import Batch
from common.distortions import TYPES
from common.protocols import METHODS
from common.system.cli import Parser, positive
from common.system.device import choose, environment
from common.system.errors import command
from common.system.output import check_targets, write_json
from weights.networks import BACKBONES

FORWARD_EQUIVALENTS = 1 + 2 * len(TYPES) + METHODS["rank+gc"].forwards


@dataclass(frozen=True)
class Rates:
    """Medians over the repeats. bound_reached: the rate of rank+gc over inference / 26."""

    backbone: str
    episodes: int
    inference_images_per_second: float
    adapted_images_per_second: float
    bound_reached: float


def random_batch(n: int) -> Batch:
    clean = torch.rand(n, 3, 224, 224)
    return Batch(
        torch.arange(n), clean, torch.rand(len(TYPES), 2, n, 3, 224, 224), torch.zeros(n, dtype=torch.long), 0
    )


def seconds(work: Callable[[list[Batch]], object], batches: list[Batch], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work(batches)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(
    name: str, episodes: Sequence[int], batch_size: int, repeats: int, device: torch.device
) -> list[Rates]:
    """Rates of one network for each number of episodes at once; all kinds of work take turns in every
    repeat."""
    backbone = BACKBONES[name]
    protocol = backbone.protocols["paper"]
    ynet = backbone.wrap(backbone.network(), protocol).to(device).to(memory_format=torch.channels_last)
    infer, adapt = (Adapter(ynet, protocol, METHODS[method]) for method in ("source", "rank+gc"))
    batches = {e: [random_batch(batch_size) for _ in range(e)] for e in episodes}
    clean = {
        e: [batch._replace(pairs=batch.pairs[:0]) for batch in several] for e, several in batches.items()
    }
    times = {(kind, e): [] for e in episodes for kind in ("infer", "adapt")}
    for repeat in range(repeats + 1):  # the first is the warm-up
        for e in episodes:
            taken = seconds(infer, clean[e], device), seconds(adapt, batches[e], device)
            if repeat:
                times["infer", e].append(taken[0])
                times["adapt", e].append(taken[1])
    rates = []
    for e in episodes:
        inference, adapted = (
            e * batch_size / statistics.median(times[kind, e]) for kind in ("infer", "adapt")
        )
        rates.append(Rates(name, e, inference, adapted, adapted * FORWARD_EQUIVALENTS / inference))
    return rates


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m scripts.benchmark", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--backbone", nargs="+", choices=BACKBONES, default=list(BACKBONES), help="default: all four"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument(
        "--episodes", nargs="+", type=positive, default=[1, 2, 4], metavar="E", help="default: 1 2 4"
    )
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="default: 8")
    parser.add_argument(
        "--repeats", type=positive, default=3, metavar="N", help="default: 3, after one for warming up"
    )
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    check_targets([args.json], [])
    device = choose(args.device)
    print(
        f"{'network':10s} {'episodes':>8s} {'inference':>12s} {'rank+gc':>12s} {'of the bound':>13s}",
        flush=True,
    )
    found = []
    for name in args.backbone:
        for rates in measure(name, args.episodes, args.batch_size, args.repeats, device):
            found.append(rates)
            print(
                f"{rates.backbone:10s} {rates.episodes:8d} {rates.inference_images_per_second:8.2f} im/s "
                f"{rates.adapted_images_per_second:7.2f} im/s {rates.bound_reached:13.0%}",
                flush=True,
            )
    if args.json:
        write_json(args.json, {"environment": environment(device), "rates": [vars(rates) for rates in found]})


if __name__ == "__main__":
    raise SystemExit(main())
