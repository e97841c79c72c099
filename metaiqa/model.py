"""MetaIQA: deep meta-learning for no-reference IQA (Zhu et al., CVPR 2020).

Original code: https://github.com/zhuhancheng/MetaIQA. Parameter names and shapes are those of its
checkpoints.
"""

import torch
from torch import Tensor, nn
from torchvision.models import resnet18


class Regressor(nn.Module):
    """Three fully connected layers on the 1000 outputs of the ResNet, (N, 1000) -> (N, 1) in (0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(1000, 1024)
        self.bn1 = nn.BatchNorm1d(1024)
        self.relu1 = nn.PReLU()
        self.drop1 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(1024, 512)
        self.bn2 = nn.BatchNorm1d(512)
        self.relu2 = nn.PReLU()
        self.drop2 = nn.Dropout(0.5)
        self.fc3 = nn.Linear(512, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop1(self.relu1(self.bn1(self.fc1(x))))
        x = self.drop2(self.relu2(self.bn2(self.fc2(x))))
        return torch.sigmoid(self.fc3(x))


class MetaIQA(nn.Module):
    """(N, 3, H, W), ImageNet-normalised -> (N,) quality scores in (0, 1), larger = better."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet_layer = resnet18()
        self.net = Regressor()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.resnet_layer(x)).squeeze(1)
