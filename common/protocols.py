"""What is computed, as data: a Protocol says how an episode runs, a Method which losses drive it.

Tuned says by which of them a network adapts to a whole stream, where it decides by itself (common/choice.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from common.distortions import LADDERS, LEVELS, TYPES, Severities
from common.loss_settings import LossSettings
from common.views import SECOND_VIEWS, View

if TYPE_CHECKING:
    from common.losses import Term

ADAPTABLE = ("bn", "ln", "gn", "cls")  # kinds of what may adapt


def _terms() -> "Mapping[str, Term]":
    from common.losses import TERMS  # with torch, which commands do without until their options are parsed

    return TERMS


@dataclass(frozen=True)
class Protocol(LossSettings):
    """How an episode runs. The defaults are the `paper` protocol; the authors' release differs by network."""

    name: str = "paper"
    cut: str = "resnet"
    projection: int = 256  # width of the projection head
    rotation_classifier: bool = True  # 4-way layer for rotation; else cross-entropy on the projection itself
    view: View = field(default_factory=View)
    severities: Severities = field(default_factory=Severities)
    lr: float = 1e-3
    accumulate_gradients: bool = False  # never clear them between the steps of an episode
    # Whether the group loss has a clean pass of its own, before or after the rank loss's three. Its features
    # are those of the other clean pass, so it is not run: it only counts once more in the running statistics.
    own_group_pass: Literal[None, "before", "after"] = None
    steps_from: Literal["batch", "running"] = (
        "batch"  # statistics that the passes of a step are normalised by
    )
    running_from: Literal["all", "clean", "none"] = "all"  # passes that move the running statistics
    momentum: float | None = None  # by which a pass moves them; None: each layer's own
    alpha: float = 1.0  # share of the moved statistics in those of the answer; the rest is the source's
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
    losses: tuple[str, ...] = ()  # of losses.TERMS, summed (Eq. 7); none: the source as it is
    reset: bool = True  # every batch starts from the source; else where the batch before it ended
    # Of the copies: "best" of TYPES, or one kind, or several joined by "+", of which each image draws one; or
    # "all" of TYPES, their losses summed (Table 3).
    distortion: str = "best"
    p: float = 0.25  # share of the batch in a group (Table 4)
    groups: int = 2  # (Table 5)
    niter: int = 3  # (Figure 6)
    adapt: tuple[str, ...] | None = None  # of ADAPTABLE (Table 6); None: what the network's cut says

    @property
    def terms(self) -> "list[tuple[Term, dict[str, str]]]":
        """Every evaluation of a term in a step, with the name of the pass that serves each of its needs.

        A term is evaluated once; with `distortion="all"`, one that compares distorted copies, once per type.
        """
        found = []
        for term in (_terms()[loss] for loss in self.losses):
            several = self.distortion == "all" and "low" in term.needs
            for suffix in (f" {kind}" for kind in TYPES) if several else ("",):
                found.append((term, {n: n + suffix if n in LEVELS else n for n in term.needs}))
        return found

    @property
    def passes(self) -> tuple[str, ...]:
        """Names of the forward passes of a step, in the order in which they run; a clean one is last."""
        names = dict.fromkeys(name for _, served in self.terms for name in served.values())
        return tuple(sorted(names, key=lambda name: name == "clean"))

    @property
    def adapts(self) -> bool:
        """Whether anything of the network changes."""
        return bool(self.losses)

    @property
    def takes_steps(self) -> bool:
        """Whether a loss drives the episode; without one only the running statistics move."""
        return any(term.value is not None for term, _ in self.terms)

    @property
    def groups_only(self) -> bool:
        """Whether a batch that is too small for groups stays as the source scores it."""
        return self.adapts and all(term.needs_groups for term, _ in self.terms)

    @property
    def splits_groups(self) -> bool:
        """Whether a loss looks at groups of images."""
        return any(term.needs_groups for term, _ in self.terms)

    @property
    def types(self) -> tuple[str, ...]:
        """Distortion types whose pairs this method looks at."""
        if not any("low" in term.needs for term, _ in self.terms):
            return ()
        return TYPES if self.distortion in ("best", "all") else (self.distortion,)

    @property
    def chooses(self) -> bool:
        """Whether the source says which distortion type each image is compared by."""
        return bool(self.types) and self.distortion == "best"

    @property
    def second_views(self) -> tuple[str, ...]:
        """Second views that the losses look at."""
        return tuple(name for name in self.passes if name in SECOND_VIEWS)

    @property
    def forwards(self) -> int:
        """Forward-equivalents per image of an episode: a pass forward and back counts two, the answer one."""
        if not self.adapts:
            return 0
        return self.niter * len(self.passes) * (2 if self.takes_steps else 1) + 1


class Setting(NamedTuple):
    """A method under a protocol: all that decides how an episode runs."""

    protocol: Protocol
    method: Method

    @property
    def stateful(self) -> bool:
        """Whether an episode depends on those before it: then one runs at a time, in the order of batches."""
        return self.protocol.leak_state or not self.method.reset


METHODS = {
    method.name: method
    for method in (
        Method("source"),
        Method("bn-stats", ("statistics",)),
        Method("rotation", ("rotation",)),
        Method("rank", ("rank",)),
        Method("gc", ("group",)),
        Method("rank+gc", ("rank", "group")),
        Method("contrastive", ("contrastive",)),
        Method("contrique", ("contrique",)),
        Method("online", ("rank", "group"), reset=False),
    )
}


@dataclass(frozen=True)
class Tuned:
    """Adaptation to a stream of images that decides by itself, without labels, whether and how to adapt.

    Every candidate adapts over the first images without a reset. The source is replaced by the first
    candidate, and that by another one, where its scores of two views of an image agree clearly better, over
    these images and some more; what remains scores everything.
    """

    candidates: tuple[Setting, ...]  # of one view and one set of severities, the most general first
    adapt_on: int = 64  # images, the first; a multiple of the batch size
    judge_on: int = 256  # images, the first, whose two views decide
    batch_size: int = 8  # of the steps
    margin: float = 0.01  # by how much the agreement must exceed that of what was best before
    least: int = 32  # images; with fewer the agreement means little, and the source stays
    name: str = "tuned"

    @property
    def protocol(self) -> Protocol:
        """The protocol whose view and severities all candidates have."""
        return self.candidates[0].protocol

    @property
    def types(self) -> tuple[str, ...]:
        """Kinds of distorted copies that the candidates look at."""
        return tuple(dict.fromkeys(kind for _, method in self.candidates for kind in method.types))

    def on(self, protocol: Protocol) -> "Tuned":
        """Return the same for a network whose own protocol this is: with its view and its cut."""
        own = [
            Setting(replace(setting.protocol, view=protocol.view, cut=protocol.cut), setting.method)
            for setting in self.candidates
        ]
        return replace(self, candidates=tuple(own))


_LADDERS = replace(
    PAPER, name="tuned", severities=LADDERS, steps_from="running", running_from="none", lr=2e-3
)
_STATISTICS = replace(PAPER, name="tuned", severities=LADDERS, running_from="clean", momentum=0.1)

# Constants from development data alone; docs/experiments.md says which, and what they reach elsewhere.
TUNED = Tuned(
    (
        Setting(_LADDERS, Method("ladders", ("ladder",), False, "compression+noise+blur+reduction", niter=1)),
        Setting(
            _LADDERS,
            Method("ladders without noise", ("ladder",), False, "compression+blur+reduction", niter=1),
        ),
        Setting(_STATISTICS, Method("statistics", ("statistics",), False, niter=1)),
    )
)
