"""The self-supervised losses of test-time adaptation (Sec. 3.2), as functions and as terms of Eq. 7.

The functions work on projected features z: (N, 256). A `Term` says which passes a loss reads, by name, and
how its value comes from them; which passes run, in which order, and what a method costs follow from its
terms. A new loss on these passes is a function and an entry of TERMS here, and a method in protocols.py.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.loss_settings import GroupForm, LossSettings


def split_groups(scores: Tensor, p: float = 0.25, groups: int = 2) -> list[Tensor] | None:
    """Split a batch into groups of K = max(2, round(p N)) images, evenly spaced by their pseudo-labels.

    scores: (N,), the source's. Returns the indices of each group: the first holds the lowest scores, the last
    the highest (Sec. 3.2.1; Table 5 for more than two). Returns None if groups would overlap: N < groups * K.
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
    """Return the group contrastive loss (Eqs. 2-3), summed over every pair of groups.

    z: (N, D). groups: indices into z. With s the cosine similarity, for every ordered pair i != j of one
    group, k over the other: l_ij = -log(e^(s_ij / t) / (e^(s_ij / t) + sum_k e^(s_ik / t))).

    form: "pairs" is the mean of l_ij. The other two average the positives of an anchor inside the exponent,
    which gives one ratio r_i per anchor, and take the mean of -log r_i or -log of the mean of r_i, as the
    authors' code does.
    """
    z = F.normalize(z, dim=1)
    pairs = combinations(groups, 2)
    return sum((_contrast(z[a], z[b], temperature, form) for a, b in pairs), start=z.new_zeros(()))


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
    """Return the rank loss (Eqs. 4-6).

    It is the mean over images of -log sigmoid(d_high - d_low), d the Euclidean distance to z.

    z, z_high, z_low: (N, D) of the image, its strongly and its weakly distorted copy. eps is added to every
    difference (torch.nn.PairwiseDistance, which the authors' code uses, adds 1e-6).
    """
    d_high = torch.linalg.vector_norm(z_high - z + eps, dim=1)
    d_low = torch.linalg.vector_norm(z_low - z + eps, dim=1)
    return F.softplus(d_low - d_high).mean()


def nt_xent_loss(a: Tensor, b: Tensor, temperature: float = 0.1) -> Tensor:
    """Return NT-Xent (Chen et al. 2020, Eq. 1): how badly each of 2N features knows its partner among all.

    a, b: (N, D), row i of both from one image. With s the cosine similarity and j the partner of i, the mean
    over the 2N of -log(e^(s_ij / t) / sum_{k != i} e^(s_ik / t)). Zero where N is 1: there is nothing to tell
    it from.
    """
    z = F.normalize(torch.cat((a, b)), dim=1)
    similar = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similar, torch.arange(len(z), device=z.device).roll(len(a)))


def ladder_loss(q: Tensor, q_high: Tensor, q_low: Tensor, scale: Tensor | float) -> Tensor:
    """Return how badly scores fall from an image to its weakly and on to its strongly distorted copy.

    It is the mean over images of softplus((q_low - q) / scale) + softplus((q_high - q_low) / scale): the rank
    loss's order, asked of the scores themselves, which that loss never sees.

    q, q_high, q_low: (N,), larger = better. scale: by how much a score should fall.
    """
    return (F.softplus((q_low - q) / scale) + F.softplus((q_high - q_low) / scale)).mean()


def rotate(x: Tensor, quarter_turns: Tensor) -> Tensor:
    """Turn each image of x, (N, 3, S, S), counter-clockwise by its number of quarter turns, (N,), 0..3."""
    turned = torch.stack([torch.rot90(x, k, (2, 3)) for k in range(4)])
    return turned[quarter_turns, torch.arange(len(x), device=x.device)]


class Episode(NamedTuple):
    """What the losses of one batch depend on beside the passes."""

    groups: Sequence[Tensor] | None  # indices of each group; None where the batch is too small for them
    quarter_turns: Tensor  # (N,), by how much each image of the pass "turned" is turned
    spread: Tensor  # (), standard deviation of the source's scores


Passes = Mapping[str, Tensor]  # a need of the term -> what it reads of that pass, (N, D); of scores (N,)


@dataclass(frozen=True)
class Term:
    """A loss as a term of Eq. 7.

    Passes are "clean", "low" and "high" (the weakly and the strongly distorted copies), "turned", and the
    second views "crop" and "contrique" (common/views.py).
    """

    needs: tuple[str, ...]  # passes, in the order in which they run; "clean" runs last of all
    value: (
        Callable[[Passes, Episode, LossSettings], Tensor] | None
    )  # None: the passes only move BN's statistics
    # z, the logits of the four rotations, or the scores, for which the whole network runs.
    reads: Literal["projection", "rotation", "score"] = "projection"
    needs_groups: bool = False  # left out where the batch is too small for groups


def _rank(z: Passes, episode: Episode, settings: LossSettings) -> Tensor:
    return rank_loss(z["clean"], z["high"], z["low"], settings.rank_eps)


def _group(z: Passes, episode: Episode, settings: LossSettings) -> Tensor:
    assert episode.groups is not None
    loss = group_contrastive_loss(z["clean"], episode.groups, settings.temperature, settings.group_form)
    return settings.weight * loss


def _contrast_with(second: str) -> Callable[[Passes, Episode, LossSettings], Tensor]:
    return lambda z, episode, settings: nt_xent_loss(z[second], z["clean"], settings.temperature)


def _rotation(logits: Passes, episode: Episode, settings: LossSettings) -> Tensor:
    return F.cross_entropy(logits["turned"], episode.quarter_turns)


def _ladder(q: Passes, episode: Episode, settings: LossSettings) -> Tensor:
    scale = settings.ladder_scale * episode.spread
    return ladder_loss(q["clean"], q["high"], q["low"], scale)


TERMS: Mapping[str, Term] = {
    "statistics": Term(("clean",), None),  # no loss
    "rank": Term(("low", "high", "clean"), _rank),
    "group": Term(("clean",), _group, needs_groups=True),
    "rotation": Term(("turned",), _rotation, reads="rotation"),
    "contrastive": Term(("crop", "clean"), _contrast_with("crop")),
    "contrique": Term(("contrique", "clean"), _contrast_with("contrique")),
    "ladder": Term(("low", "high", "clean"), _ladder, reads="score"),
}
