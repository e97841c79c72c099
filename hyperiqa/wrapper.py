"""The Y around HyperIQA: where its extractor ends, and what the authors' release does differently."""

from dataclasses import replace

from torch import Tensor

from common.protocols import PAPER, RELEASED
from common.resnet import pooled
from common.views import View
from common.y import Backbone, Cut
from hyperiqa.model import HyperIQA

PYIQA = {  # IQA-PyTorch builds the same network from lists of modules: its prefixes, and the authors'
    "base_model.": "res.",
    "conv1.": "conv1.",
    **{f"lda_modules.{i}.0.": f"res.lda{i + 1}_pool.0." for i in range(3)},
    **{f"lda_modules.{i}.3.": f"res.lda{i + 1}_fc." for i in range(3)},
    "lda_modules.3.2.": "res.lda4_fc.",
    **{f"fc_w_modules.{i}.": f"fc{i + 1}w_conv." for i in range(4)},
    "fc_w_modules.4.2.": "fc5w_fc.",
    **{f"fc_b_modules.{i}.2.": f"fc{i + 1}b_fc." for i in range(5)},
}


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the entries of IQA-PyTorch's HyperIQA the authors' names; other checkpoints stay as they are."""
    if "lda_modules.0.0.weight" not in state:
        return state
    return {_renamed(key): value for key, value in state.items()}


def _renamed(key: str) -> str:
    prefix = next((prefix for prefix in PYIQA if key.startswith(prefix)), "")
    return PYIQA.get(prefix, "") + key.removeprefix(prefix)


BACKBONE = Backbone(
    title="HyperIQA",
    network=HyperIQA,
    cuts={"resnet": Cut(lambda net, x: pooled(net.res, x), 2048, ("res",))},
    protocols={
        "paper": PAPER,
        "released": replace(
            RELEASED,
            projection=512,
            view=View(crop="random", flips=()),
            temperature=1.0,
            own_group_pass="before",
        ),
    },
    trunk="res",
    imagenet="resnet50",
    rename=rename,
)
