"""A small network with everything that can adapt, and small batches for it; real networks are in
test_networks.py."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.batches import Batch
from common.distortions import TYPES
from common.views import SECOND_VIEWS
from common.y import Cut, YNetwork
from weights.networks import BACKBONES


class SmallNet(nn.Module):
    """Convolutions with BN, a CLS token and a LayerNorm, dropout, and a regressor with a BN of its own; (N,
    3, S, S) -> (N,)."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, 2, 1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
        )
        self.cls_token = nn.Parameter(torch.randn(1, 1, 12))
        self.mix = nn.Linear(12, 12)
        self.norm = nn.LayerNorm(12)
        self.regressor = nn.Sequential(nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 1))

    def tokens(self, x: Tensor) -> Tensor:
        tokens = self.trunk(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), tokens), dim=1)
        return self.norm(tokens + torch.tanh(self.mix(tokens)).mean(1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.regressor(self.tokens(x).mean(1)).squeeze(1)


CUTS = {
    "resnet": Cut(lambda net, x: net.trunk(x).mean((2, 3)), 12, ("trunk",)),
    "transformer": Cut(lambda net, x: net.tokens(x)[:, 0], 12, ("trunk", "cls_token", "mix", "norm")),
}


def make_small(cut: str = "resnet") -> YNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = SmallNet().double()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    ynet = YNetwork(network, CUTS[cut])
    ynet.draw_head(3)
    return ynet


def make_batch(n: int, seed: int, types: tuple[str, ...] = TYPES, side: int = 16) -> Batch:
    rng = np.random.default_rng(seed)
    clean = torch.from_numpy(rng.random((n, 3, side, side)))
    pairs = torch.from_numpy(rng.random((len(types), 2, n, 3, side, side)))
    turns = torch.from_numpy(rng.integers(4, size=n))
    second_views = {kind: torch.from_numpy(rng.random((n, 3, side, side))) for kind in SECOND_VIEWS}
    return Batch(torch.arange(n), clean, types, pairs, turns, 0, second_views)


@pytest.fixture
def small() -> YNetwork:
    return make_small()


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A checkpoint of the smallest of the real networks, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "metaiqa.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(BACKBONES["metaiqa"].network().state_dict(), path)
    return path
