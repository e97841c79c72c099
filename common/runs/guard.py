"""Whether adaptation to a batch kept the order of the source's scores; harm that shows without labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from common.adapter import Outcome

# SROCC between the source's scores of a batch and the adapted ones. The losses are told which images the
# source holds for good and bad; an episode that ends in another order has left what it was told.
KEPT_ORDER = 0.5


def kept_order(outcome: "Outcome") -> float:
    """Return the SROCC between the source's scores of an episode and the adapted ones.

    It is 0 where adaptation made all scores one, and NaN where there is no order to keep: fewer than three
    images, or equal scores.
    """
    from scipy import stats  # takes as long to import as this module's users may take altogether

    source, adapted = outcome.source.numpy(), outcome.adapted.numpy()
    if len(source) < 3 or np.ptp(source) == 0:
        return float("nan")
    return float(stats.spearmanr(source, adapted)[0]) if np.ptp(adapted) > 0 else 0.0


@dataclass(frozen=True)
class Movement:
    """How adaptation changed the scores of a run."""

    moved: float | None  # mean absolute change, in standard deviations of the source's scores; None if equal
    episodes: int  # those whose kept order is defined
    lost: int  # how many of them fell below `threshold`
    median_kept_order: float | None  # None without such episodes
    threshold: float

    def sentence(self) -> str:
        """Return how far the scores moved; "" where that is not defined."""
        if self.moved is None:
            return ""
        moved = (
            f"adaptation moved the scores by {self.moved:.2f} standard deviations of the source's, on average"
        )
        if self.median_kept_order is None:
            return moved
        order = f"SROCC of a batch's scores before and after: {self.median_kept_order:.2f} (median)"
        return f"{moved}; {order}"

    def warning(self, guarded: bool) -> str:
        """Return that episodes lost the source's order, and what to do about it; "" where none did.

        guarded: whether the source's scores were kept there.
        """
        if self.moved is None or not self.lost:
            return ""
        lost = (
            f"in {self.lost} of {self.episodes} episodes adaptation lost the source's order "
            f"(SROCC below {self.threshold:g})"
        )
        if guarded:
            return f"note: {lost}; the source's scores were kept there"
        return (
            f"warning: {lost}, and may do harm: --guard keeps the source's scores there, "
            "or try --running-from clean"
        )


def movement(
    source: Sequence[float], adapted: Sequence[float], kept: Sequence[float], threshold: float
) -> Movement:
    """Measure it; source, adapted: scores of all images; kept: `kept_order` of all episodes."""
    before, after, orders = (np.asarray(values, dtype=float) for values in (source, adapted, kept))
    defined = orders[np.isfinite(orders)]
    spread = before.std() if len(before) else 0.0
    return Movement(
        float(np.abs(after - before).mean() / spread) if spread > 0 else None,
        len(defined),
        int((defined < threshold).sum()),
        float(np.median(defined)) if len(defined) else None,
        threshold,
    )
