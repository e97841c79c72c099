"""The ResNet trunk that all four networks share, as torchvision builds it."""

from torch import Tensor
from torchvision.models import ResNet


def stages(resnet: ResNet, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs of the four residual stages.

    x: (N, 3, H, W). Returns (N, C, H/4, W/4), (N, 2C, H/8, W/8), (N, 4C, H/16, W/16) and (N, 8C, H/32, W/32),
    C = 64 for ResNet-18 and 256 for ResNet-50.
    """
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))
    first = resnet.layer1(x)
    second = resnet.layer2(first)
    third = resnet.layer3(second)
    return first, second, third, resnet.layer4(third)


def pooled(resnet: ResNet, x: Tensor) -> Tensor:
    """Globally average-pooled output of the last stage, (N, D): D = 512 for ResNet-18, 2048 for ResNet-50."""
    return stages(resnet, x)[-1].mean((2, 3))
