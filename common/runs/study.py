"""The settings of a study: every loss, and one setting at a time around rank+gc."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from common.protocols import METHODS, Protocol, Setting
from common.runs.cell import shared_inputs

PARTS = ("methods", "steps", "lr", "forms", "statistics", "gradient", "head", "batch", "released")
BATCH_SIZE = 8


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    part: str  # of PARTS
    name: str  # what people call it
    setting: Setting
    batch_size: int = BATCH_SIZE


def rows(paper: Protocol, released: Protocol) -> Iterator[Row]:
    """Yield the settings; each differs from rank+gc under `paper`, batches of 8, in what its name says."""
    full = METHODS["rank+gc"]
    for method in METHODS.values():
        if method.adapts:
            yield Row("methods", method.name, Setting(paper, method))
    for niter in (0, 1, 2, 4, 5, 6):
        yield Row("steps", f"{niter} steps", Setting(paper, replace(full, niter=niter)))
    for lr in (1e-4, 3e-4, 3e-3, 1e-2):
        yield Row("lr", f"lr {lr:g}", Setting(replace(paper, lr=lr), full))
    yield Row("forms", "log of the mean", Setting(replace(paper, group_form="log-of-mean"), full))
    yield Row("forms", "temperature 1", Setting(replace(paper, temperature=1.0), full))
    yield Row(
        "statistics", "running statistics from clean", Setting(replace(paper, running_from="clean"), full)
    )
    yield Row(
        "statistics", "running statistics from none", Setting(replace(paper, running_from="none"), full)
    )
    yield Row(
        "statistics", "answer from batch statistics", Setting(replace(paper, answer_from="batch"), full)
    )
    for lr in (1e-2, 1e-1):  # what the gradient does where the statistics stay
        still = replace(paper, running_from="none", lr=lr)
        yield Row("gradient", f"lr {lr:g}, running statistics from none", Setting(still, full))
    head = replace(paper, cut=released.cut, projection=released.projection)
    yield Row("head", f"released head: {head.cut}, {head.projection}-d", Setting(head, full))
    for size in (4, 16):
        yield Row("batch", f"batches of {size}, gc", Setting(paper, METHODS["gc"]), size)
        yield Row("batch", f"batches of {size}, rank+gc", Setting(paper, full), size)
    for name in ("rotation", "gc", "rank", "rank+gc"):
        yield Row("released", f"released, {name}", Setting(released, METHODS[name]))


def that_share(wanted: Sequence[Row]) -> list[list[Row]]:
    """Group rows whose views and source scores are the same, and that can be run together."""
    alike: dict[object, list[Row]] = {}
    for row in wanted:
        key = row.batch_size, row.setting.stateful, shared_inputs(row.setting.protocol)
        alike.setdefault(key, []).append(row)
    return list(alike.values())
