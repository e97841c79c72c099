"""Deciding without labels how to adapt to a stream: by the agreement of scores between two views of an image.

A score that says something of the image is nearly the same on another view of it; one that adaptation has
spoilt follows what the view happens to show. The rank correlation of the scores of two views over a set of
images, its split-half reliability, tells the two apart as far as the views are alike in quality alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from common.batches import Batch
from common.protocols import Tuned
from common.stream import Streamed
from common.y import YNetwork

SOURCE = "source"


class Decision(NamedTuple):
    """What was chosen, and by what."""

    chosen: str  # name of a candidate's method, or "source"
    images: int  # that it was made on
    reliability: Mapping[str, float]  # of the source and every candidate, on these images; NaN: undefined

    @property
    def adapted(self) -> bool:
        """Whether anything of the network changed."""
        return self.chosen != SOURCE

    def sentence(self) -> str:
        """Return what was decided, on one line."""
        before, after = self.reliability[SOURCE], self.reliability[self.chosen]
        agreement = f"agreement between two views of {self.images} images"
        if self.adapted:
            return f"adapted by {self.chosen}: {agreement} {before:.3f} before, {after:.3f} after"
        if self.images > 2 and np.isnan(before):
            return f"not adapted: the scores of {self.images} images do not differ"
        if len(self.reliability) == 1:
            return f"not adapted: {self.images} images are too few to tell whether it helps"
        best = max((r for name, r in self.reliability.items() if name != SOURCE), default=float("nan"))
        return f"not adapted: {agreement} {before:.3f} as it is, at best {best:.3f} adapted"


def decide(
    ynet: YNetwork, tuned: Tuned, first: Sequence[Batch], second: Sequence[Batch]
) -> tuple[Decision, Streamed]:
    """Adapt by every candidate that the network allows; return the decision and the network that it leaves.

    first: one view of up to `tuned.judge_on` images, in batches of `tuned.batch_size` or fewer; those of the
        first `tuned.adapt_on` images with the distorted copies of `tuned.types`.
    second: another view of the same images in the same order.

    Images that the source has no finite score of are left out. The network knows what it gave the first view.
    """
    views = [[batch.clean.to(ynet.mean.device) for batch in batches] for batches in (first, second)]
    source = Streamed(ynet)
    scores = _scores(source, views)
    finite = np.isfinite(scores).all(0)
    found = {SOURCE: reliability(scores[:, finite])}
    n = int(finite.sum())
    best, adapted = (SOURCE, source), scores[0]
    if n < tuned.least or not np.isfinite(found[SOURCE]):
        return Decision(SOURCE, n, found), source
    adapted_on = _only(first, torch.from_numpy(finite))[: tuned.adapt_on // tuned.batch_size]
    adapted_on = [batch for batch in adapted_on if batch.types == tuned.types]  # not those without copies
    spread = torch.tensor(scores[0, finite].std(), dtype=ynet.mean.dtype, device=ynet.mean.device)
    for setting in tuned.candidates:
        kinds = ynet.cut.with_default_adapt(setting.method).adapt or ()
        if not setting.method.takes_steps and "bn" not in kinds:
            continue  # all that it moves is the statistics of BN
        name = setting.method.name
        candidate = Streamed(ynet, setting, adapted_on, spread)
        own = _scores(candidate, views)
        found[name] = reliability(own[:, finite])
        if found[name] > found[best[0]] + tuned.margin:
            best, adapted = (name, candidate), own[0]
    indices = [index for batch in first for index in batch.indices.tolist()]
    known = zip(indices, zip(scores[0].tolist(), adapted.tolist()))
    best[1].known = {index: pair for (index, pair), good in zip(known, finite & np.isfinite(adapted)) if good}
    return Decision(best[0], n, found), best[1]


def reliability(scores: np.ndarray) -> float:
    """Return the rank correlation between the scores of two views, (2, n); NaN where it is not defined."""
    if scores.shape[1] < 2 or not np.isfinite(scores).all() or (np.ptp(scores, 1) == 0).any():
        return float("nan")
    return float(stats.spearmanr(*scores)[0])


def _scores(network: Streamed, views: Sequence[Sequence[torch.Tensor]]) -> np.ndarray:
    """Return the scores of the views, (2, n)."""
    none = torch.zeros(0)  # where no image is left
    return np.stack(
        [torch.cat([none, *(network.predict(x).double().cpu() for x in batches)]) for batches in views]
    )


def _only(batches: Sequence[Batch], kept: torch.Tensor) -> list[Batch]:
    """Return the images where `kept`, (n,), holds."""
    parts = kept.split([len(batch.indices) for batch in batches])
    return [batch.only(part) for batch, part in zip(batches, parts) if part.any()]
