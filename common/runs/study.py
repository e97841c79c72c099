"""The settings of a study: every loss, what decides by itself, and one setting at a time around them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from common.batches import Order, by_mos, cut, shuffled
from common.photographs import Photograph
from common.protocols import METHODS, TUNED, Protocol, Setting, Tuned
from common.runs.cell import shared_inputs
from common.runs.tuned import alone

FORMAT = 2  # of the files of scripts.study
BATCH_SIZE = 8
SORTED = ("bn-stats", "rank+gc")


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    part: str  # of scripts.study, --parts
    name: str  # what people call it
    setting: Setting | Tuned
    batch_size: int = BATCH_SIZE
    order: Order = shuffled
    views: int = 1  # of each image, whose scores are averaged


def rows(paper: Protocol, released: Protocol | None) -> Iterator[Row]:
    """Yield the settings; each differs from rank+gc under `paper`, batches of 8, in what its name says.

    released: None for a network that the authors' code does not have.
    """
    full, plain = METHODS["rank+gc"], Setting(paper, METHODS["source"])
    for method in METHODS.values():
        if method.adapts:
            yield Row("methods", method.name, Setting(paper, method))
    yield Row("tuned", TUNED.name, TUNED.on(paper))
    for candidate in alone(TUNED.on(paper)):
        yield Row("tuned", f"{candidate.name} alone", candidate)
    for views, other in ((4, "tuned"), (26, "rank+gc")):  # as many passes as that takes for an image
        yield Row("views", f"source, {views} views, as dear as {other}", plain, views=views)
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
    for size in (4, 16, 32):
        for name in ("bn-stats", "gc", "rank+gc"):
            yield Row("batch", f"batches of {size}, {name}", Setting(paper, METHODS[name]), size)
    for name in SORTED:
        yield Row("sorted", f"sorted by MOS, {name}", Setting(paper, METHODS[name]), order=by_mos)
    yield Row("sorted", "sorted by MOS, tuned", TUNED.on(paper), order=by_mos)
    if released is not None:
        head = replace(paper, cut=released.cut, projection=released.projection)
        yield Row("head", f"released head: {head.cut}, {head.projection}-d", Setting(head, full))
        for name in ("rotation", "gc", "rank", "rank+gc"):
            yield Row("released", f"released, {name}", Setting(released, METHODS[name]))


def that_share(wanted: Sequence[Row]) -> list[list[Row]]:
    """Group rows whose views and source scores are the same, and that can be run together."""
    alike: dict[object, list[Row]] = {}
    for row in wanted:
        key: object = row  # what decides by itself runs alone
        if isinstance(row.setting, Setting):
            shared = shared_inputs(row.setting.protocol)
            key = row.batch_size, row.order, row.views, row.setting.stateful, shared
        alike.setdefault(key, []).append(row)
    return list(alike.values())


def within_batches(
    scores: np.ndarray, photographs: Sequence[Photograph], row: Row, seeds: Sequence[int]
) -> float | None:
    """Return the mean SROCC within a batch, over batches of at least four images with different MOS.

    scores: (seeds, n). None where no batch has one.
    """
    mos = np.array([photograph.mos for photograph in photographs])
    found = []
    for own, seed in zip(scores, seeds):
        for batch in cut(row.order(photographs, seed), row.batch_size):
            if len(batch) >= 4 and np.ptp(mos[batch]) > 0 and np.ptp(own[batch]) > 0:
                found.append(stats.spearmanr(own[batch], mos[batch])[0])
    return float(np.mean(found)) if found else None
