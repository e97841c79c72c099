"""Images per second of plain inference and of test-time adaptation by rank+gc, per network.

    python -m scripts.benchmark --backbone metaiqa --episodes 1 2 4

The bound is 26 forward-equivalents per adapted image: 7 by the source (clean, and two levels of three
distortions), 3 steps x 3 passes x (forward and backward to the input), and the answer. Weights and images are
random: neither changes the time.
"""

from collections.abc import Sequence
from pathlib import Path

from common.runs.benchmark import FORMAT, measure
from common.system import cli
from common.system.cli import Parser, positive
from common.system.device import choose, environment, title
from common.system.errors import command
from common.system.output import check_targets, write_json
from weights.networks import BACKBONES


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m scripts.benchmark", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--backbone", nargs="+", choices=BACKBONES, default=list(BACKBONES), help="default: all four"
    )
    cli.add_device(parser)
    parser.add_argument(
        "--episodes", nargs="+", type=positive, default=[1, 2, 4], metavar="E", help="default: 1 2 4"
    )
    cli.add_batch_size(parser)
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
        for rates in measure(name, BACKBONES[name], args.episodes, args.batch_size, args.repeats, device):
            found.append(rates)
            print(
                f"{rates.backbone:10s} {rates.episodes:8d} {rates.inference_images_per_second:8.2f} im/s "
                f"{rates.adapted_images_per_second:7.2f} im/s {rates.bound_reached:13.0%}",
                flush=True,
            )
    if args.json:
        networks = [
            {"network": rates.backbone, **vars(rates), "forward_seconds": rates.forward_seconds}
            for rates in found
        ]
        machine = {"title": title(device), **environment(device)}
        write_json(args.json, {"format": FORMAT, "machine": machine, "networks": networks})


if __name__ == "__main__":
    raise SystemExit(main())
