"""The self-supervised losses of test-time adaptation (Sec. 3.2), on projected features z: (N, 256)."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GroupForm = Literal["pairs", "mean-of-log", "log-of-mean"]


def split_groups(scores: Tensor, p: float = 0.25, groups: int = 2) -> list[Tensor] | None:
    """Indices of `groups` groups of K = max(2, round(p N)) images, evenly spaced in the order of the
    pseudo-labels.

    scores: (N,), the source's. The first group holds the lowest scores, the last the highest (Sec. 3.2.1;
    Table 5 for more than two). None if the groups would overlap, that is N < groups * K.
    """
    n = len(scores)
    size = max(2, round(p * n))
    if n < groups * size:
        return None
    order = scores.argsort(stable=True)
    starts = [i * (n - size) // (groups - 1) for i in range(groups)]
    return [order[start : start + size] for start in starts]


def group_contrastive_loss(
    z: Tensor, groups: Sequence[Tensor], temperature: float = 0.1, form: GroupForm = "pairs"
) -> Tensor:
    """Group contrastive loss (Eqs. 2-3), summed over every pair of groups.

    z: (N, D). groups: indices into z. With s the cosine similarity, for every ordered pair i != j of one
    group, k over the other: l_ij = -log(e^(s_ij / t) / (e^(s_ij / t) + sum_k e^(s_ik / t))).

    form: "pairs" is the mean of l_ij. The other two average the positives of an anchor inside the exponent,
    which gives one ratio r_i per anchor, and take the mean of -log r_i or -log of the mean of r_i, as the
    authors' code does.
    """
    z = F.normalize(z, dim=1)
    return sum(_contrast(z[a], z[b], temperature, form) for a, b in combinations(groups, 2))


def _contrast(a: Tensor, b: Tensor, temperature: float, form: GroupForm) -> Tensor:
    positives, negatives = [], []
    for own, other in ((a, b), (b, a)):
        similar = own @ own.T / temperature
        k = len(own)
        off_diagonal = (
            similar.flatten()[1:].view(k - 1, k + 1)[:, :-1].reshape(k, k - 1)
        )  # a mask would wait for the GPU
        positives.append(off_diagonal)
        negatives.append((own @ other.T / temperature).logsumexp(1, keepdim=True))  # (K, 1)
    positive, negative = torch.cat(positives), torch.cat(negatives)
    if form == "pairs":
        return F.softplus(negative - positive).mean()
    anchor = F.softplus(negative - positive.mean(1, keepdim=True))  # -log r_i
    if form == "mean-of-log":
        return anchor.mean()
    if form == "log-of-mean":
        return torch.exp(-anchor).mean().log().neg()
    raise ValueError(f"unknown form of the group contrastive loss: {form!r}")


def rank_loss(z: Tensor, z_high: Tensor, z_low: Tensor, eps: float = 0.0) -> Tensor:
    """Rank loss (Eqs. 4-6): the mean over images of -log sigmoid(d_high - d_low), d the Euclidean distance to
    z.

    z, z_high, z_low: (N, D) of the image, its strongly and its weakly distorted copy. eps is added to every
    difference (torch.nn.PairwiseDistance, which the authors' code uses, adds 1e-6).
    """
    d_high = torch.linalg.vector_norm(z_high - z + eps, dim=1)
    d_low = torch.linalg.vector_norm(z_low - z + eps, dim=1)
    return F.softplus(d_low - d_high).mean()


def nt_xent_loss(a: Tensor, b: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent (Chen et al. 2020, Eq. 1): how badly each of 2N features tells its partner from the 2N - 2
    others.

    a, b: (N, D), row i of both from one image. With s the cosine similarity and j the partner of i, the mean
    over the 2N of -log(e^(s_ij / t) / sum_{k != i} e^(s_ik / t)). Zero where N is 1: there is nothing to tell
    it from.
    """
    z = F.normalize(torch.cat((a, b)), dim=1)
    similar = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similar, torch.arange(len(z), device=z.device).roll(len(a)))


def rotate(x: Tensor, quarter_turns: Tensor) -> Tensor:
    """Each image of x (N, 3, S, S) turned counter-clockwise by its number of quarter turns (N,), each
    0..3."""
    turned = torch.stack([torch.rot90(x, k, (2, 3)) for k in range(4)])
    return turned[quarter_turns, torch.arange(len(x), device=x.device)]
