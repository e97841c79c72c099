"""Command lines: a parser whose complaints are one line, options of several commands, types of arguments."""

import argparse
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from common.system.errors import UserError
from common.system.precision import OFFERED

LARGEST = 10**9  # of whole numbers that cost nothing by themselves


class Parser(argparse.ArgumentParser):
    """An argument parser that leaves its complaints to `common.system.errors.command`.

    It takes no empty argument: that is a variable of the shell that is not set, and would be a path to here.
    """

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        given = list(sys.argv[1:] if args is None else args)
        for before, text in zip(["", *given], given):
            if not text or (text.startswith("--") and text.endswith("=")):
                where = text or (f"an argument behind {before}" if before else "an argument")
                raise UserError(f"{where} is empty: is a variable of the shell not set?")
        return super().parse_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def as_typed(prog: str, argv: Sequence[str] | None) -> str:
    """Return the command as somebody would type it again; argv: None for that of this process."""
    return f"{prog} {shlex.join(sys.argv[1:] if argv is None else argv)}"


def words(option: str, text: str) -> list[str]:
    """Return the words of an option that holds options, as a shell splits them. Raises UserError."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option}: {text!r} has {str(error).lower()}: mend it") from None


def add_backbone(parser: argparse.ArgumentParser, names: Iterable[str], required: bool = True) -> None:
    """Add --backbone; names: those to choose from."""
    parser.add_argument("--backbone", required=required, choices=list(names), help="a network of the paper")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add --model, --features and --size, for a network of the user's own."""
    parser.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help="your own: a function that returns it, or a wrapped one; or timm:ARCHITECTURE",
    )
    parser.add_argument(
        "--features", metavar="LAYER", help="of --model: dotted name of the module where the extractor ends"
    )
    parser.add_argument("--size", type=side, metavar="S", help="of --model: side of its input; default: 224")


def add_weights(parser: argparse.ArgumentParser, required: bool = False, default: str = "") -> None:
    """Add --weights; default: what is taken where it is left out, in words."""
    parser.add_argument(
        "--weights",
        required=required,
        metavar="NAME|FILE",
        help="checkpoint: a file, or a name of weights/README.md" + (default and f"; default: {default}"),
    )


def add_weights_dir(parser: argparse.ArgumentParser) -> None:
    """Add --weights-dir, where checkpoints are found by name."""
    parser.add_argument(
        "--weights-dir", type=Path, help="folder of checkpoints by name; default: weights/files"
    )


def add_dataset(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Add --dataset; names: those to choose from, with "csv" among them."""
    parser.add_argument("--dataset", default="csv", choices=list(names), help="default: csv")


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Add --data-root, where the data sets are found."""
    parser.add_argument(
        "--data-root",
        type=Path,
        help="folder of the data sets, or of one alone; default: $IQA_DATA_ROOT, data/raw",
    )


def add_subset(parser: argparse.ArgumentParser) -> None:
    """Add --subset and --score-column, which part of a data set, and which of its scores."""
    parser.add_argument("--subset", help="part of the data set; data/README.md lists them and the default")
    parser.add_argument(
        "--score-column", help="where a data set has several; default: the one of the authors' code"
    )


def add_allow_missing(parser: argparse.ArgumentParser) -> None:
    """Add --allow-missing."""
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="go without images that are not there, and record how many",
    )


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """Add --protocol."""
    parser.add_argument("--protocol", default="paper", choices=("paper", "released"), help="default: paper")


def add_seeds(parser: argparse.ArgumentParser, default: int = 5) -> None:
    """Add --seeds, a number of seeds."""
    parser.add_argument(
        "--seeds", default=default, type=seeds, metavar="N", help=f"run seeds 0 to N-1; default: {default}"
    )


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Add --batch-size."""
    parser.add_argument(
        "--batch-size", default=8, type=batch_size, metavar="N", help="images of an episode; default: 8"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device, for `common.system.device.choose`."""
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add --precision, for `common.system.precision.precision`."""
    parser.add_argument(
        "--precision",
        default=OFFERED[0],
        choices=OFFERED,
        help="float32 (default) is exact; tf32 is faster on a GPU, and moves scores a little",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add --workers, the number of loader processes; None: `common.system.device.default_workers`."""
    parser.add_argument(
        "--workers", type=workers, metavar="W", help="loader processes of a device; by device if left out"
    )


def whole(least: int, most: int, of: str = "") -> Callable[[str], int]:
    """Return what parses a whole number within bounds; of: what it counts, in words."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}{' ' * bool(of)}{of}")
        return value

    return parse


positive = whole(1, LARGEST)
natural = whole(0, LARGEST)
seeds = whole(1, 10_000, "seeds")
batch_size = whole(1, 4096, "images of a batch")
side = whole(1, 4096, "pixels of a side")
steps = whole(0, 10_000, "steps")
crops = whole(1, 1000, "views of an image")
workers = whole(0, 256, "loader processes")
episodes = whole(1, 1024, "episodes at once")
epochs = whole(1, 100_000, "epochs")
tries = whole(1, 1000, "tries")


def above_zero(text: str) -> float:
    """Parse a finite number above 0."""
    if (value := finite(text)) <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def seconds(text: str) -> float:
    """Parse a finite number of at least 0."""
    if (value := finite(text)) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def duration(text: str) -> float:
    """Parse a time such as 7h50m, 90m or 45s, above 0; return seconds."""
    parts = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    numbers = [int(part or 0) for part in parts.groups()] if parts else []
    if not any(numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is no time, such as 7h50m")
    return float(sum(number * seconds for number, seconds in zip(numbers, (86400, 3600, 60, 1))))


def finite(text: str) -> float:
    """Parse a finite number."""
    try:
        value = float("" if "_" in text or not text.isascii() else text)  # Python's own notations
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError("must be finite")
    return value
