"""The Y around MUSIQ: where its extractor ends, and what the authors' release does differently."""

from dataclasses import replace

from torch import Tensor

from common.distortions import Severities
from common.protocols import PAPER, RELEASED
from common.resnet import pooled
from common.views import View
from common.y import Backbone, Cut
from musiq.model import MUSIQ

PARTS = {"model_backbone_state_dict.": "backbone.", "model_transformer_state_dict.": "transformer."}


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join the two state dicts that the release keeps in one file; other checkpoints stay as they are."""
    if not all(any(key.startswith(part) for key in state) for part in PARTS):
        return state
    return {
        prefix + key.removeprefix(part): value
        for part, prefix in PARTS.items()
        for key, value in state.items()
        if key.startswith(part)
    }


BACKBONE = Backbone(
    title="MUSIQ",
    network=MUSIQ,
    cuts={
        "resnet": Cut(lambda net, x: pooled(net.backbone, x), 2048, ("backbone",)),
        # Table 6: the encoder belongs to the extractor, its CLS output is the feature.
        "transformer": Cut(
            lambda net, x: net.encode(x), 192, ("backbone", "transformer.conv_enc", "transformer.transformer")
        ),
    },
    protocols={
        "paper": replace(PAPER, view=View(crop="whole")),
        "released": replace(
            RELEASED,
            rotation_classifier=False,
            view=View(crop="whole", flips=("horizontal",)),
            # The two noises are swapped: the rank loss is told that the weak one is the strong one.
            severities=Severities(
                compression_high=(40, 59),
                compression_low=(80, 89),
                noise_high=(0.005, 0.01),
                noise_low=(0.05, 0.1),
            ),
            group_form="mean-of-log",
            lr=1e-4,
            answer_from="batch",
            blur_first_scale_only=True,
        ),
    },
    trunk="backbone",
    imagenet="resnet50",
    rename=rename,
)
