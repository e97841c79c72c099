"""Command lines: a parser whose complaints are one line, and types of arguments."""

import argparse
import math
from typing import NoReturn

from common.system.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser that leaves its complaints to common.system.errors.command."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return _at_least(0, text)


def above_zero(text: str) -> float:
    """A finite number above 0."""
    if (value := finite(text)) <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def seconds(text: str) -> float:
    """A finite number of at least 0."""
    if (value := finite(text)) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def finite(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError("must be finite")
    return value


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}")
    return value
