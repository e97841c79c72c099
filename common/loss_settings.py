"""The constants of the losses, apart from the losses: what a protocol says is known without torch."""

from dataclasses import dataclass
from typing import Literal

GroupForm = Literal["pairs", "mean-of-log", "log-of-mean"]


@dataclass(frozen=True)
class LossSettings:
    """The constants of the losses, of which every protocol has its own."""

    temperature: float = 0.1  # of the contrastive losses
    group_form: GroupForm = "pairs"  # of the group contrastive loss
    weight: float = 1.0  # lambda of Eq. 7
    rank_eps: float = 0.0  # added to every difference in the distances of the rank loss
    ladder_scale: float = 0.3  # of the ladder loss, in standard deviations of the source's scores
