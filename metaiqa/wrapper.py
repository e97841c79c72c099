"""The Y around MetaIQA: where its extractor ends, and what the authors' release does differently."""

from dataclasses import replace

from common.protocols import PAPER, RELEASED
from common.resnet import pooled
from common.y import Backbone, Cut
from metaiqa.model import MetaIQA

BACKBONE = Backbone(
    title="MetaIQA",
    network=MetaIQA,
    cuts={
        "resnet": Cut(lambda net, x: pooled(net.resnet_layer, x), 512, ("resnet_layer",)),
        # The release reads the 1000 outputs of the ImageNet classifier, which also feed the regressor.
        "logits": Cut(lambda net, x: net.resnet_layer(x), 1000, ("resnet_layer",)),
    },
    protocols={"paper": PAPER, "released": replace(RELEASED, cut="logits", projection=128, temperature=1.0)},
    trunk="resnet_layer",
    imagenet="resnet18",
    output=(0.5, 1 / 6),  # a sigmoid: three standard deviations on either side
)
