"""The Y around TReS: where its extractor ends, and what the authors' release does differently."""

from common.protocols import PAPER, RELEASED
from common.resnet import pooled
from common.y import Backbone, Cut
from tres.model import TReS

BACKBONE = Backbone(
    title="TReS",
    network=TReS,
    cuts={
        "resnet": Cut(lambda net, x: pooled(net.model, x), 2048, ("model",)),
        # Table 6: the encoder belongs to the extractor, the fully connected layers stay in the regressor.
        "transformer": Cut(lambda net, x: net.encode(x)[0], 3840, ("model", "transformer")),
    },
    protocols={"paper": PAPER, "released": RELEASED},
    trunk="model",
    imagenet="resnet50",
)
