"""Metrics against SciPy on resamples made the plain way, and against curves that are known."""

import numpy as np
import pytest
from scipy import stats

from common.runs.metrics import agreement, gain_interval, logistic_mapping


def sample(n=120, seed=0):
    rng = np.random.default_rng(seed)
    mos = rng.integers(0, 30, n).astype(float)  # with ties
    return mos + rng.normal(0, 12, n), mos + rng.normal(0, 8, n), mos


def test_signs_and_values():
    source, _, mos = sample()
    found = agreement(source, mos)
    assert found["srocc"] == pytest.approx(stats.spearmanr(source, mos)[0]) and found["srocc"] > 0
    assert agreement(-source, mos)["plcc"] == pytest.approx(-found["plcc"])
    assert found["plcc_logistic"] >= found["plcc"]
    assert agreement(-source, mos)["plcc_logistic"] > 0  # the mapping may fall


def test_the_logistic_mapping_finds_a_logistic():
    q = np.linspace(-3, 5, 50)
    mos = 20 + 60 / (1 + np.exp(-(q - 1.3) / 0.7))
    np.testing.assert_allclose(logistic_mapping(q, mos), mos, atol=1e-4)


def test_constant_scores_are_undefined_not_an_error():
    _, _, mos = sample()
    assert set(agreement(np.ones_like(mos), mos).values()) == {None}
    assert gain_interval(np.ones((1, len(mos))), np.ones((1, len(mos))), mos) is None


def test_the_interval_is_the_paired_bootstrap():
    source, adapted, mos = sample()
    low, high = gain_interval(source[None], adapted[None], mos, resamples=4000)
    rng = np.random.default_rng(1)
    gains = []
    for _ in range(4000):
        draw = rng.integers(len(mos), size=len(mos))
        gains.append(
            stats.spearmanr(adapted[draw], mos[draw])[0] - stats.spearmanr(source[draw], mos[draw])[0]
        )
    expected = np.percentile(gains, [2.5, 97.5])
    assert (low, high) == pytest.approx(tuple(expected), abs=0.015)
    assert low < stats.spearmanr(adapted, mos)[0] - stats.spearmanr(source, mos)[0] < high


def test_a_handful_of_images_has_no_interval():
    source, adapted, mos = sample(9)
    assert gain_interval(source[None], adapted[None], mos) is None
    assert gain_interval(*(values[None] for values in sample(10)[:2]), sample(10)[2]) is not None


def test_no_gain_is_exactly_no_gain():
    source, _, mos = sample()
    assert gain_interval(source[None], source[None], mos) == (0.0, 0.0)
