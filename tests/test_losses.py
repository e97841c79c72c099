"""The losses against transcriptions of the paper's formulas, one loop per index."""

import math

import pytest
import torch

from common.losses import group_contrastive_loss, nt_xent_loss, rank_loss, rotate, split_groups


def features(n: int = 12, d: int = 256) -> torch.Tensor:
    return torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


def cosine(a, b) -> float:
    dot, aa, bb = (sum(float(x) * float(y) for x, y in zip(u, v)) for u, v in ((a, b), (a, a), (b, b)))
    return dot / math.sqrt(aa * bb)


def pairs_by_hand(z, low, high, tau):  # Eqs. 2-3
    terms = []
    for own, other in ((low, high), (high, low)):
        for i in own:
            for j in own:
                if i != j:
                    positive = math.exp(cosine(z[i], z[j]) / tau)
                    terms.append(
                        -math.log(
                            positive / (positive + sum(math.exp(cosine(z[i], z[k]) / tau) for k in other))
                        )
                    )
    return sum(terms) / len(terms)


def ratios_by_hand(z, low, high, tau):  # the released classes: one ratio per anchor
    ratios = []
    for own, other in ((low, high), (high, low)):
        for i in own:
            mean = sum(cosine(z[i], z[j]) for j in own if j != i) / (len(own) - 1)
            ratios.append(
                math.exp(mean / tau)
                / (math.exp(mean / tau) + sum(math.exp(cosine(z[i], z[k]) / tau) for k in other))
            )
    return ratios


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_group_contrastive_forms(size, tau):
    z = features()
    low, high = list(range(size)), list(range(8, 8 + size))
    groups = [torch.tensor(low), torch.tensor(high)]
    ratios = ratios_by_hand(z, low, high, tau)
    expected = {
        "pairs": pairs_by_hand(z, low, high, tau),
        "mean-of-log": -sum(math.log(r) for r in ratios) / len(ratios),
        "log-of-mean": -math.log(sum(ratios) / len(ratios)),
    }
    for form, value in expected.items():
        assert float(group_contrastive_loss(z, groups, tau, form)) == pytest.approx(value, rel=1e-12)


def test_more_groups_sum_over_every_pair_of_groups():
    z = features()
    groups = [[0, 1], [3, 4], [6, 7], [9, 10]]
    expected = sum(pairs_by_hand(z, groups[a], groups[b], 0.1) for a in range(4) for b in range(a + 1, 4))
    assert float(group_contrastive_loss(z, [torch.tensor(g) for g in groups])) == pytest.approx(
        expected, rel=1e-12
    )


def test_groups_are_evenly_spaced_in_the_order_of_the_scores():
    scores = torch.tensor([5.0, 1.0, 7.0, 0.0, 6.0, 2.0, 4.0, 3.0])  # rank r at ranked[r]
    ranked = [3, 1, 5, 7, 6, 0, 4, 2]

    def ranks(p, groups):
        return [[ranked.index(int(i)) for i in group] for group in split_groups(scores, p, groups)]

    assert ranks(0.25, 2) == [[0, 1], [6, 7]]
    assert ranks(0.375, 2) == [[0, 1, 2], [5, 6, 7]]
    assert ranks(0.25, 3) == [[0, 1], [3, 4], [6, 7]]
    assert ranks(0.25, 4) == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("n, p, groups", [(3, 0.25, 2), (1, 0.25, 2), (7, 0.25, 4), (5, 0.5, 3)])
def test_no_groups_where_they_would_overlap(n, p, groups):
    assert split_groups(torch.arange(float(n)), p, groups) is None


def test_rank_loss():  # Eqs. 4-6
    z, high, low = features(5), features(5) + 0.1 * features(6)[:5], features(5) - 0.02 * features(7)[:5]

    def distance(a, b):
        return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b)))

    terms = [
        -math.log(1 / (1 + math.exp(distance(z[i], low[i]) - distance(z[i], high[i])))) for i in range(5)
    ]
    assert float(rank_loss(z, high, low)) == pytest.approx(sum(terms) / 5, rel=1e-12)


def test_descent_on_the_rank_loss_pushes_high_away_and_pulls_low_near():
    z = features(4)
    high = (z + 0.1 * features(5)[:4]).requires_grad_()
    low = (z - 0.1 * features(6)[:4]).requires_grad_()
    rank_loss(z, high, low).backward()
    away_high, away_low = (high - z).detach(), (low - z).detach()
    assert ((-high.grad * away_high).sum(1) > 0).all()
    assert ((-low.grad * away_low).sum(1) < 0).all()


def test_identical_copies_give_a_finite_gradient():
    z = features(4).requires_grad_()
    rank_loss(z, z.detach(), z.detach()).backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_nt_xent(n, tau):  # Chen et al. 2020, Eq. 1 and Algorithm 1: both views of each image in turn
    z = features(2 * n)  # image k is rows k and n + k
    terms = []
    for k in range(n):
        for i, j in ((k, n + k), (n + k, k)):
            others = sum(math.exp(cosine(z[i], z[m]) / tau) for m in range(2 * n) if m != i)
            terms.append(-math.log(math.exp(cosine(z[i], z[j]) / tau) / others))
    assert float(nt_xent_loss(z[:n], z[n:], tau)) == pytest.approx(sum(terms) / (2 * n), rel=1e-12, abs=1e-15)


def test_rotation_turns_each_image_by_its_own_label():
    x = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    turned = rotate(x, torch.tensor([1, 2]))
    assert torch.equal(turned[0], x[0].flip(2).transpose(1, 2))  # a quarter turn counter-clockwise
    assert torch.equal(turned[1], x[1].flip(1).flip(2))
