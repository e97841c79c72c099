"""The options of a list of experiments, apart from what runs them (launch.py), which takes long to import."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.protocols import METHODS
from common.runs.grid import EXTRA_PLACE, PAPER_PLACES, SIMILAR_DMOS
from common.system import cli
from common.system.cli import Parser

DESCRIPTION = """The paper's tables and figures: every cell of them, or some, into one folder; what is there
already is not repeated."""


def parser(prog: str, backbones: Sequence[str], datasets: Sequence[str]) -> Parser:
    """Return the parser of the command; backbones: those that may be asked for."""
    places = (*PAPER_PLACES, EXTRA_PLACE)
    low, high = SIMILAR_DMOS
    found = Parser(prog=prog, description=DESCRIPTION)
    found.add_argument(
        "--tables",
        nargs="+",
        choices=places,
        default=PAPER_PLACES,
        metavar="N",
        help=f"of {' '.join(places)}; default: all but {EXTRA_PLACE}",
    )
    found.add_argument(
        "--backbones", nargs="+", choices=backbones, default=backbones, help=f"default: {' '.join(backbones)}"
    )
    found.add_argument(
        "--datasets", nargs="+", choices=datasets, metavar="NAME", help="default: all that the tables name"
    )
    found.add_argument("--methods", nargs="+", choices=METHODS, help="default: all that the tables name")
    cli.add_seeds(found)
    cli.add_protocol(found)
    found.add_argument(
        "--limit-images",
        type=cli.positive,
        metavar="N",
        help="only N images of each data set, always the same",
    )
    found.add_argument(
        "--similar-dmos",
        nargs=2,
        type=cli.finite,
        default=SIMILAR_DMOS,
        metavar=("LOW", "HIGH"),
        help=f"bounds of Figure 4; default: {low:g} {high:g}",
    )
    found.add_argument(
        "--device",
        default="auto",
        help="auto (default), cpu, cuda, or several: cuda:0,cuda:1; of workers elsewhere: the kind to take",
    )
    found.add_argument(
        "--scheduler", metavar="ADDRESS|FILE", help="of Dask: run on its workers, wherever they are"
    )
    found.add_argument(
        "--slurm", metavar="OPTIONS", help='of sbatch: run in jobs of Slurm, "--partition=gpu --gres=gpu:1"'
    )
    found.add_argument(
        "--workers-max",
        type=cli.positive,
        default=16,
        metavar="N",
        help="most jobs of --slurm at once; default: 16",
    )
    found.add_argument(
        "--part", type=share, metavar="I/N", help="only the I-th of N shares, each in a folder of its own"
    )
    cli.add_precision(found)
    cli.add_workers(found)
    cli.add_data_root(found)
    cli.add_allow_missing(found)
    cli.add_weights_dir(found)
    found.add_argument("--results", type=Path, default=Path("results/paper"), help="default: results/paper")
    found.add_argument(
        "--dry-run",
        action="store_true",
        help="say how long it would take, and what is missing",
    )
    found.add_argument("--status", action="store_true", help="say how far it is, from the folder alone")
    found.add_argument("--wait", action="store_true", help="for another command that is at the same folder")
    rates = found.add_mutually_exclusive_group()
    rates.add_argument(
        "--rates", type=Path, metavar="JSON", help="of --dry-run: by what scripts.benchmark --json measured"
    )
    rates.add_argument(
        "--measure",
        action="store_true",
        help="of --dry-run: time the networks on --device, seconds each",
    )
    found.add_argument("--verbose", action="store_true", help="of --dry-run: list the cells")
    found.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    return found


def share(text: str) -> tuple[int, int]:
    """Parse "I/N"."""
    number, _, of = text.partition("/")
    try:
        if 1 <= int(number) <= int(of):
            return int(number), int(of)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no share, such as 1/4 or 4/4")
