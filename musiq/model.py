"""MUSIQ: multi-scale image quality transformer (Ke et al., ICCV 2021), in the port that the paper used.

Port: https://github.com/anse3832/MUSIQ: a ResNet-50 at three scales, then a 14-layer post-norm encoder.
Parameter names and shapes are those of the released checkpoint, prefixed `backbone.` and `transformer.` for
its two state dicts. What differs: positions are an index instead of a loop, and any batch size works. Kept
although it looks wrong: the third scale gets the second scale's embedding, as the checkpoint was trained.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50

from common.resnet import stages

WIDTH = 192
HEADS = 6
HEAD_WIDTH = 384
GRID = 10  # side of the table of positions


class MultiHeadAttention(nn.Module):
    """Self-attention, (N, L, WIDTH) -> (N, L, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.W_Q = nn.Linear(WIDTH, HEADS * HEAD_WIDTH)
        self.W_K = nn.Linear(WIDTH, HEADS * HEAD_WIDTH)
        self.W_V = nn.Linear(WIDTH, HEADS * HEAD_WIDTH)
        self.linear = nn.Linear(HEADS * HEAD_WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:  # (N, L, WIDTH)
        queries, keys, values = (
            w(x).unflatten(2, (HEADS, HEAD_WIDTH)).transpose(1, 2) for w in (self.W_Q, self.W_K, self.W_V)
        )
        dropped = 0.1 if self.training else 0.0
        attended = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropped)
        return self.dropout(self.linear(attended.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """Two layers on every token, (N, L, WIDTH) -> (N, L, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(WIDTH, WIDTH, 1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.conv2(F.gelu(self.conv1(x.transpose(1, 2)))).transpose(1, 2))


class EncoderLayer(nn.Module):
    """Post-norm encoder layer, (N, L, WIDTH) -> (N, L, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention()
        self.layer_norm1 = nn.LayerNorm(WIDTH, eps=1e-12)
        self.pos_ffn = FeedForward()
        self.layer_norm2 = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm1(x + self.self_attn(x))
        return self.layer_norm2(x + self.pos_ffn(x))


class Encoder(nn.Module):
    """The transformer on the tokens of three scales and a class token."""

    def __init__(self, depth: int = 14) -> None:
        super().__init__()
        self.scale_org_embedding = nn.Parameter(torch.rand(1, WIDTH, 1, 1))
        self.scale_1_embedding = nn.Parameter(torch.rand(1, WIDTH, 1, 1))
        self.scale_2_embedding = nn.Parameter(torch.randn(1, WIDTH, 1, 1))  # read by nobody, but stored
        self.pos_embedding = nn.Parameter(torch.randn(1, GRID, GRID, WIDTH))
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.dropout = nn.Dropout(0.1)
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(depth))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Encode the maps of the three scales, (N, WIDTH, h, w): (N, 1 + tokens, WIDTH)."""
        scales = (self.scale_org_embedding, self.scale_1_embedding, self.scale_1_embedding)
        tokens = [
            (x + scale + self.positions(*x.shape[2:])).flatten(2).transpose(1, 2)
            for x, scale in zip(maps, scales)
        ]
        x = torch.cat((self.cls_token.expand(len(maps[0]), -1, -1), *tokens), dim=1)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x)
        return x

    def positions(self, height: int, width: int) -> Tensor:
        """Return the entries of the table of positions for a map, (1, WIDTH, height, width)."""
        rows = [int(i / height * GRID) for i in range(height)]
        columns = [int(j / width * GRID) for j in range(width)]
        return self.pos_embedding[:, rows][:, :, columns].permute(0, 3, 1, 2)


class Transformer(nn.Module):
    """The encoder under the name that it has in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()


class Regressor(nn.Module):
    """What comes after the ResNet: the checkpoint's second state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_enc = nn.Conv2d(2048, WIDTH, 1)
        self.transformer = Transformer()
        self.projection = nn.Sequential(
            nn.Linear(WIDTH, 1152, bias=False), nn.GELU(), nn.Linear(1152, 1, bias=False)
        )

    def encode(self, maps: list[Tensor]) -> Tensor:
        """Return the CLS output of the encoder, (N, WIDTH), on maps of the three scales, (N, 2048, h, w)."""
        return self.transformer.encoder([self.conv_enc(x) for x in maps])[:, 0]


def further_scales(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the second and third scale of a view (N, 3, 224, 224).

    They are the view enlarged to 384 x 384, bicubic, and its first 160 rows.
    """
    return F.interpolate(x, size=(384, 384), mode="bicubic", align_corners=False), x[:, :, :160]


class MUSIQ(nn.Module):
    """(N, 3, 224, 224), ImageNet-normalised -> (N,) quality scores, larger = better."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet50()
        del self.backbone.fc
        self.transformer = Regressor()

    def encode(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        """Return the CLS output of the encoder, (N, WIDTH).

        others: the view that the further scales are made from, x if left out.
        """
        views = (x, *further_scales(x if others is None else others))
        return self.transformer.encode([stages(self.backbone, view)[-1] for view in views])

    def forward(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        return self.transformer.projection(self.encode(x, others)).squeeze(1)
