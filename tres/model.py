"""TReS: transformers, relative ranking and self-consistency (Golestaneh et al., WACV 2022).

Original code: https://github.com/isalirezag/TReS. Parameter names and shapes are those of its checkpoints, so
they load strictly. What differs: the second, mirrored pass is gone (only its training loss read it), and the
encoder runs batch first but for its attention.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50

from common.resnet import stages

WIDTH = 256 + 512 + 1024 + 2048  # channels of the four stages, concatenated
GRID = 7  # side of the last stage's map for a 224 x 224 input


class L2Pooling(nn.Module):
    """Root of the Hann-weighted local mean square, 3 x 3, per channel."""

    filter: Tensor  # (channels, 1, 3, 3)

    def __init__(self, channels: int) -> None:
        super().__init__()
        window = np.hanning(5)[1:-1]
        kernel = torch.tensor(np.outer(window, window), dtype=torch.float32)
        self.register_buffer("filter", (kernel / kernel.sum()).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean_square = F.conv2d(x.square(), self.filter, padding=1, groups=x.shape[1])
        return (mean_square + 1e-12).sqrt()


class EncoderLayer(nn.Module):
    """Pre-norm encoder layer; the position is added to queries and keys but not to values."""

    def __init__(self, width: int, heads: int = 16, hidden: int = 64) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:  # (N, L, width), (1, L, width)
        # Without a gradient the projections of inputs that are not contiguous run as one product per image,
        # at a quarter of the speed: so the attention gets (L, N, width) in memory, and transposes nothing.
        values = self.norm1(x).transpose(0, 1).contiguous()
        queries = values + position.transpose(0, 1)
        attended, _ = self.self_attn(queries, queries, values, need_weights=False)
        x = x + self.dropout(attended.transpose(0, 1))
        hidden = self.dropout(F.relu(self.linear1(self.norm2(x))))
        return x + self.dropout(self.linear2(hidden))


class Encoder(nn.Module):
    """The encoder layers and a last normalisation, (N, L, width) -> (N, L, width)."""

    def __init__(self, width: int, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, position)
        return self.norm(x)


class Transformer(nn.Module):
    """The encoder under the name that it has in the checkpoint."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = Encoder(width)


def sine_position(width: int, grid: int) -> Tensor:
    """Return the sine-cosine code of a (grid x grid) map, (1, grid * grid, width).

    Computed in float32 whatever the network's precision, because the checkpoints were trained with those
    values.
    """
    steps = torch.arange(1, grid + 1, dtype=torch.float32)
    angle = steps / (steps[-1] + 1e-6) * (2 * math.pi)
    index = torch.arange(width // 2, dtype=torch.float32)
    phase = angle[:, None] / 10000 ** (2 * (index // 2) / (width // 2))
    code = torch.stack((phase[:, 0::2].sin(), phase[:, 1::2].cos()), dim=2).flatten(1)  # (grid, width / 2)
    rows = code[:, None].expand(grid, grid, -1)
    columns = code[None].expand(grid, grid, -1)
    return torch.cat((rows, columns), dim=2).reshape(1, grid * grid, width)


class TReS(nn.Module):
    """(N, 3, 224, 224), ImageNet-normalised -> (N,) quality scores, larger = better."""

    def __init__(self) -> None:
        super().__init__()
        self.model = resnet50()
        self.L2pooling_l1 = L2Pooling(256)
        self.L2pooling_l2 = L2Pooling(512)
        self.L2pooling_l3 = L2Pooling(1024)
        self.L2pooling_l4 = L2Pooling(2048)
        self.transformer = Transformer(WIDTH)
        self.fc2 = nn.Linear(WIDTH, 2048)
        self.fc = nn.Linear(2 * 2048, 1)
        self.drop2d = nn.Dropout(0.1)
        self.register_buffer("position", sine_position(WIDTH, GRID), persistent=False)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the average-pooled output of the encoder, (N, 3840), and of the ResNet, (N, 2048)."""
        maps = stages(self.model, x)
        pools = (self.L2pooling_l1, self.L2pooling_l2, self.L2pooling_l3, self.L2pooling_l4)
        tokens = [
            self.drop2d(F.avg_pool2d(pool(F.normalize(stage, dim=1)), stage.shape[-1] // GRID))
            for pool, stage in zip(pools, maps)
        ]
        encoded = self.transformer.encoder(torch.cat(tokens, dim=1).flatten(2).transpose(1, 2), self.position)
        return encoded.mean(1), maps[-1].mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        encoded, pooled = self.encode(x)
        return self.fc(torch.cat((self.fc2(encoded), pooled), dim=1)).squeeze(1)
