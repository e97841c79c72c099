"""The Y around HyperIQA: where its extractor ends, and what the authors' release does differently."""

from dataclasses import replace

from common.protocols import PAPER, RELEASED
from common.resnet import pooled
from common.views import View
from common.y import Backbone, Cut
from hyperiqa.model import HyperIQA

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
)
