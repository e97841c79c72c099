"""How well scores agree with human opinion (Sec. 4.1).

Scores and MOS are (n,), and larger = better on both sides.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from common.system.seeds import generator

STARTS = ((0.0, 0.0), (0.0, -1.5), (0.0, 1.5))  # of b3 and log b4, for standardised scores
SEARCH = {"xatol": 1e-8, "fatol": 1e-14, "maxfev": 2000}
FEWEST = 10  # images that an interval is drawn from
FEWEST_GROUPS = 5  # likewise, where whole groups are resampled


def agreement(scores: np.ndarray, mos: np.ndarray) -> dict[str, float | None]:
    """Return SROCC, PLCC, KROCC, and PLCC and RMSE (in MOS units) after the 4-parameter logistic mapping.

    A value is None where it is not defined: constant scores, or a mapping that cannot be fitted.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        mapped = logistic_mapping(scores, mos)
        values = {
            "srocc": stats.spearmanr(scores, mos)[0],
            "plcc": stats.pearsonr(scores, mos)[0],
            "plcc_logistic": np.nan if mapped is None else stats.pearsonr(mapped, mos)[0],
            "krocc": stats.kendalltau(scores, mos)[0],
            "rmse": np.nan if mapped is None else np.sqrt(np.mean((mapped - mos) ** 2)),
        }
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def logistic_mapping(scores: np.ndarray, mos: np.ndarray) -> np.ndarray | None:
    """Map scores to MOS by the least-squares b2 + (b1 - b2) / (1 + exp(-(q - b3) / |b4|)) (VQEG).

    For given b3 and b4 the best b1 and b2 are those of a straight line, so that b3 and b4 remain to be found:
    the logistic curve that correlates best with the MOS. Nelder-Mead searches in the same steps every time.
    SciPy's curve_fit does not: nearly singular fits to the same scores differed within one process.

    Returns None where nothing can be fitted: constant scores, or fewer than five points for four parameters.
    """
    if np.ptp(scores) == 0 or np.ptp(mos) == 0 or len(scores) < 5:
        return None
    q, target = (scores - scores.mean()) / scores.std(), mos - mos.mean()

    def curve(parameters: np.ndarray) -> np.ndarray:
        middle, log_width = parameters
        steepness = np.exp(-np.clip(log_width, -30, 30))
        curved = 1 / (1 + np.exp(-np.clip((q - middle) * steepness, -500, 500)))
        return curved - curved.mean()

    def unexplained(parameters: np.ndarray) -> float:  # share of the variance of the MOS
        curved = curve(parameters)
        spread = curved @ curved
        return 1.0 if spread == 0 else 1 - (curved @ target) ** 2 / (spread * (target @ target))

    fits = [optimize.minimize(unexplained, start, method="Nelder-Mead", options=SEARCH) for start in STARTS]
    curved = curve(min(fits, key=lambda fit: fit.fun).x)
    return mos.mean() + (curved @ target) / (curved @ curved) * curved


def gain_interval(
    source: np.ndarray,
    adapted: np.ndarray,
    mos: np.ndarray,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Return the paired bootstrap interval of SROCC(adapted) - SROCC(source), averaged over seeds.

    Resamples are of the images, with replacement, or of whole groups of them.

    source, adapted: (seeds, n).
    mos: (n,).
    groups: n names of references or scenes; None to resample images.

    Returns None if any of them is constant, n below 10, or fewer than 5 groups: resamples of so few are
    mostly alike, and would claim what nobody can know.
    """
    names, member = np.unique(range(len(mos)) if groups is None else groups, return_inverse=True)
    if (
        len(mos) < FEWEST
        or len(names) < FEWEST_GROUPS
        or any(np.ptp(row) == 0 for row in (*source, *adapted, mos))
    ):
        return None
    rng = generator(0, "bootstrap")
    n = len(mos)
    target = _Ranks(mos)
    ranked = [(_Ranks(before), _Ranks(after)) for before, after in zip(source, adapted)]
    gains = []
    block = max(1, 100_000 // n)  # resamples at once: enough to keep numpy busy, and within a cache
    for start in range(0, resamples, block):
        draws = rng.integers(len(names), size=(min(block, resamples - start), len(names)))
        drawn = np.stack([np.bincount(draw, minlength=len(names)) for draw in draws]).astype(float)
        times = drawn[:, member]
        right = target.centred(times)
        by_seed = [
            _correlation(after.centred(times), right, times)
            - _correlation(before.centred(times), right, times)
            for before, after in ranked
        ]
        gains.extend(np.mean(by_seed, axis=0))
    outside = 100 * (1 - level) / 2
    low, high = np.nanpercentile(gains, (outside, 100 - outside))
    return float(low), float(high)


class _Ranks:
    """Mid-ranks of resamples without sorting them: an image drawn k times is k ties of one value."""

    def __init__(self, values: np.ndarray):
        self.order = np.argsort(values, kind="stable")
        _, self.starts, self.position = np.unique(values[self.order], return_index=True, return_inverse=True)
        self.position = self.position[np.argsort(self.order)]

    def centred(self, times: np.ndarray) -> np.ndarray:
        """Return ranks less their mean, (B, n); times: (B, n), how often each resample has each image."""
        ties = np.add.reduceat(times.take(self.order, axis=1), self.starts, axis=1)
        return (np.cumsum(ties, axis=1) - ties / 2).take(self.position, axis=1) - times.sum(
            1, keepdims=True
        ) / 2


def _correlation(a: np.ndarray, b: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the weighted correlation of each row; NaN where one of the two is constant."""
    with np.errstate(invalid="ignore"):
        return (times * a * b).sum(1) / np.sqrt((times * a * a).sum(1) * (times * b * b).sum(1))


def places_gained(source: np.ndarray, adapted: np.ndarray, mos: np.ndarray) -> np.ndarray:
    """Return how many places, of n, each image came nearer to where its MOS ranks it.

    source, adapted: (seeds, n). Returns (n,), the mean over seeds.
    """
    right = stats.rankdata(mos)
    before, after = (np.abs(stats.rankdata(scores, axis=1) - right) for scores in (source, adapted))
    return (before - after).mean(0)
