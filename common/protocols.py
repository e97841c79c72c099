"""What is computed, as data: a Protocol says how an episode runs, a Method which losses drive it."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from common.distortions import TYPES, Severities
from common.losses import GroupForm
from common.views import View


@dataclass(frozen=True)
class Protocol:
    """How an episode runs. The defaults are the `paper` protocol; the authors' release differs by network."""

    name: str = "paper"
    cut: str = "resnet"
    projection: int = 256  # width of the projection head
    rotation_classifier: bool = True  # 4-way layer for rotation; else cross-entropy on the projection itself
    view: View = field(default_factory=View)
    severities: Severities = field(default_factory=Severities)
    temperature: float = 0.1
    group_form: GroupForm = "pairs"
    weight: float = 1.0  # lambda of Eq. 7
    lr: float = 1e-3
    rank_eps: float = 0.0
    accumulate_gradients: bool = False  # never clear them between the steps of an episode
    # Whether the group loss has a clean pass of its own, before or after the rank loss's three. Its features
    # are those of the other clean pass, so it is not run: it only counts once more in the running statistics.
    own_group_pass: Literal[None, "before", "after"] = None
    running_from: Literal["all", "clean", "none"] = "all"  # passes that move the running statistics
    answer_from: Literal["running", "batch"] = "running"  # statistics that the answer is normalised by
    blur_first_scale_only: bool = False  # pseudo-label blurred images with the clean image's further scales
    leak_state: bool = False  # gradients and Adam's moments survive from episode to episode


PAPER = Protocol()

# What the authors' code has in common over its networks; each wrapper.py says where its own differs. Noise
# below one grey level, JPEG and noise on the whole image before the crop, gradients never cleared, a clean
# pass counted twice.
RELEASED = Protocol(
    name="released",
    view=View(crop="center", flips=()),
    severities=Severities(
        compression_high=(40, 59),
        compression_low=(80, 89),
        noise_high=(5e-5, 5.1e-5),
        noise_low=(1e-5, 1.1e-5),
        whole_image=True,
    ),
    group_form="log-of-mean",
    rank_eps=1e-6,
    accumulate_gradients=True,
    own_group_pass="after",
)


@dataclass(frozen=True)
class Method:
    """Which losses drive an episode, with the settings of the ablations (Tables 3 to 6, Figure 6)."""

    name: str
    rank: bool = False
    group: bool = False
    rotation: bool = False
    second_views: tuple[
        str, ...
    ] = ()  # of SECOND_VIEWS: each adds the NT-Xent loss between it and the clean view
    reset: bool = True  # every batch starts from the source; else where the batch before it ended
    statistics_only: bool = False
    distortion: str = "best"  # or one of TYPES, or "all": their rank losses summed (Table 3)
    p: float = 0.25  # share of the batch in a group (Table 4)
    groups: int = 2  # (Table 5)
    niter: int = 3  # (Figure 6)
    adapt: tuple[str, ...] | None = (
        None  # any of "bn", "ln", "gn", "cls" (Table 6); None: what the network's cut says
    )

    @property
    def types(self) -> tuple[str, ...]:
        """Distortion types whose pairs this method looks at."""
        if not self.rank:
            return ()
        return TYPES if self.distortion in ("best", "all") else (self.distortion,)

    @property
    def chooses(self) -> bool:
        """Whether the source says which distortion type each image is compared by."""
        return self.rank and self.distortion == "best"

    @property
    def forwards(self) -> int:
        """Forward-equivalents per image of an episode: a pass forward and back counts two, the answer one."""
        if not self.adapts:
            return 0
        pairs = {"best": 1, "all": len(TYPES)}.get(self.distortion, 1) if self.rank else 0
        return self.niter * (1 + 2 * pairs + len(self.second_views)) * (1 if self.statistics_only else 2) + 1

    @property
    def adapts(self) -> bool:
        return self.rank or self.group or self.rotation or bool(self.second_views) or self.statistics_only


class Setting(NamedTuple):
    """A method under a protocol: all that decides how an episode runs."""

    protocol: Protocol
    method: Method

    @property
    def stateful(self) -> bool:
        """Whether an episode depends on the ones before it: then only one runs at a time, in the order of the
        batches."""
        return self.protocol.leak_state or not self.method.reset


METHODS = {
    method.name: method
    for method in (
        Method("source"),
        Method("bn-stats", statistics_only=True),
        Method("rotation", rotation=True),
        Method("rank", rank=True),
        Method("gc", group=True),
        Method("rank+gc", rank=True, group=True),
        Method("contrastive", second_views=("crop",)),
        Method("contrique", second_views=("contrique",)),
        Method("online", rank=True, group=True, reset=False),
    )
}
