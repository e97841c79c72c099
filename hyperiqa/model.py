"""HyperIQA: a self-adaptive hyper network (Su et al., CVPR 2020).

Original code: https://github.com/SSL92/hyperIQA. Parameter names and shapes are those of its checkpoints.
What differs: the target network, whose weights the hyper network makes for every image, is a batched product,
not a module built per batch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from common.resnet import stages

HYPER = 112  # channels of the map that the weights are made from
TARGET = (224, 112, 56, 28, 14)  # widths of the target network; one output follows
GRID = 7  # side of the last stage's map for a 224 x 224 input


def local_pool(channels: int, reduced: int) -> nn.Sequential:
    """Return a local distortion aware module: 1 x 1 convolution, then means of 7 x 7 tiles."""
    return nn.Sequential(nn.Conv2d(channels, reduced, 1, bias=False), nn.AvgPool2d(7))


def backbone() -> nn.Module:
    """Return a ResNet-50 without its classifier, with the local distortion aware modules of its stages."""
    resnet = resnet50()
    del resnet.fc
    resnet.lda1_pool, resnet.lda1_fc = local_pool(256, 16), nn.Linear(16 * 64, 16)
    resnet.lda2_pool, resnet.lda2_fc = local_pool(512, 32), nn.Linear(32 * 16, 16)
    resnet.lda3_pool, resnet.lda3_fc = local_pool(1024, 64), nn.Linear(64 * 4, 16)
    resnet.lda4_fc = nn.Linear(2048, TARGET[0] - 3 * 16)
    return resnet


class HyperIQA(nn.Module):
    """(N, 3, 224, 224), ImageNet-normalised -> (N,) quality scores, larger = better."""

    res: Any  # a ResNet that has modules of its own

    def __init__(self) -> None:
        super().__init__()
        self.res = backbone()
        self.conv1 = nn.Sequential(
            nn.Conv2d(2048, 1024, 1),
            nn.ReLU(),
            nn.Conv2d(1024, 512, 1),
            nn.ReLU(),
            nn.Conv2d(512, HYPER, 1),
            nn.ReLU(),
        )
        for layer, (wide, narrow) in enumerate(zip(TARGET, TARGET[1:]), start=1):
            setattr(self, f"fc{layer}w_conv", nn.Conv2d(HYPER, wide * narrow // GRID**2, 3, padding=1))
            setattr(self, f"fc{layer}b_fc", nn.Linear(HYPER, narrow))
        self.fc5w_fc = nn.Linear(HYPER, TARGET[-1])
        self.fc5b_fc = nn.Linear(HYPER, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, last = stages(self.res, x)
        pooled = last.mean((2, 3))  # on a 7 x 7 map the fourth local module is the global mean
        vector = torch.cat(
            (
                self.res.lda1_fc(self.res.lda1_pool(first).flatten(1)),
                self.res.lda2_fc(self.res.lda2_pool(second).flatten(1)),
                self.res.lda3_fc(self.res.lda3_pool(third).flatten(1)),
                self.res.lda4_fc(pooled),
            ),
            dim=1,
        )  # (N, 224)
        hyper = self.conv1(last)  # (N, 112, 7, 7)
        return self.target(vector, hyper)

    def target(self, vector: Tensor, hyper: Tensor) -> Tensor:
        """Run the target network on (N, 224), with the weights and biases that each image's map makes.

        hyper: the maps, (N, 112, 7, 7).
        """
        pooled = hyper.mean((2, 3))
        values = vector.unsqueeze(2)  # (N, width, 1)
        for layer, (wide, narrow) in enumerate(zip(TARGET, TARGET[1:]), start=1):
            weight = getattr(self, f"fc{layer}w_conv")(hyper).reshape(-1, narrow, wide)
            bias = getattr(self, f"fc{layer}b_fc")(pooled).unsqueeze(2)
            values = torch.sigmoid(torch.baddbmm(bias, weight, values))
        return torch.baddbmm(
            self.fc5b_fc(pooled).unsqueeze(2), self.fc5w_fc(pooled).unsqueeze(1), values
        ).flatten()
