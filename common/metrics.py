"""How well scores agree with human opinion (Sec. 4.1). Scores and MOS: (n,), larger = better on both sides."""

import warnings

import numpy as np
from scipy import optimize, stats

from common.seeds import generator


def agreement(scores: np.ndarray, mos: np.ndarray) -> dict[str, float | None]:
    """SROCC, PLCC, PLCC after the 4-parameter logistic mapping, KROCC, and RMSE (in MOS units, after that mapping).

    None where a value is not defined: constant scores, or a mapping that cannot be fitted.
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
    """Scores mapped to MOS by the least-squares b2 + (b1 - b2) / (1 + exp(-(q - b3) / |b4|)) (VQEG), or None if the fit fails."""
    if np.ptp(scores) == 0 or len(scores) < 5:  # four parameters need more than four points
        return None
    centred = (scores - scores.mean()) / scores.std()

    def curve(q: np.ndarray, top: float, bottom: float, middle: float, width: float) -> np.ndarray:
        return bottom + (top - bottom) / (1 + np.exp(-np.clip((q - middle) / (abs(width) + 1e-12), -500, 500)))

    rising = np.corrcoef(centred, mos)[0, 1] >= 0
    top, bottom = (mos.max(), mos.min()) if rising else (mos.min(), mos.max())
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):  # a fit that runs away is judged by its outcome
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            fitted, _ = optimize.curve_fit(curve, centred, mos, (top, bottom, 0.0, 1.0), maxfev=20_000)
    except RuntimeError:
        return None
    return curve(centred, *fitted)


def gain_interval(
    source: np.ndarray, adapted: np.ndarray, mos: np.ndarray, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float] | None:
    """Paired bootstrap interval of SROCC(adapted) - SROCC(source), averaged over seeds, over images drawn with replacement.

    source, adapted: (seeds, n). mos: (n,). None if any of them is constant.
    """
    if any(np.ptp(row) == 0 for row in (*source, *adapted, mos)):
        return None
    rng = generator(0, "bootstrap")
    ranked_mos = _Ranks(mos)
    ranked = [(_Ranks(before), _Ranks(after)) for before, after in zip(source, adapted)]
    gains = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(len(mos), size=len(mos)), minlength=len(mos)).astype(float)
        target = ranked_mos.weighted(times)
        gains.append(
            np.mean(
                [
                    _correlation(a.weighted(times), target, times) - _correlation(b.weighted(times), target, times)
                    for b, a in ranked
                ]
            )
        )
    outside = 100 * (1 - level) / 2
    low, high = np.nanpercentile(gains, (outside, 100 - outside))
    return float(low), float(high)


class _Ranks:
    """Mid-ranks of a resample without sorting it: an image drawn k times is k ties of one value."""

    def __init__(self, values: np.ndarray):
        _, self.position = np.unique(values, return_inverse=True)

    def weighted(self, times: np.ndarray) -> np.ndarray:
        ties = np.bincount(self.position, times)
        return (np.cumsum(ties) - (ties - 1) / 2)[self.position]


def _correlation(a: np.ndarray, b: np.ndarray, times: np.ndarray) -> float:
    a, b = a - np.average(a, weights=times), b - np.average(b, weights=times)
    scale = np.sqrt((times * a * a).sum() * (times * b * b).sum())
    return (times * a * b).sum() / scale if scale > 0 else np.nan


def places_gained(source: np.ndarray, adapted: np.ndarray, mos: np.ndarray) -> np.ndarray:
    """How many places each image came nearer to where its MOS ranks it, of n, averaged over seeds: (seeds, n) -> (n,)."""
    right = stats.rankdata(mos)
    before, after = (np.abs(stats.rankdata(scores, axis=1) - right) for scores in (source, adapted))
    return (before - after).mean(0)
