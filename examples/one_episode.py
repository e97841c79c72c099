"""One episode of test-time adaptation (Roy et al., ICCV 2023) in plain lines, on a batch of photographs.

    python -m examples.one_episode

common/adapter.py does the same for any network, method and protocol; a test compares the two.
"""

import copy
from pathlib import Path

import skimage
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.io import decode_image, decode_jpeg, encode_jpeg
from torchvision.transforms.functional import gaussian_blur, normalize

from common.losses import group_contrastive_loss, rank_loss
from metaiqa.model import MetaIQA

WEIGHTS = Path(__file__).parent.parent / "weights/demo/metaiqa.safetensors"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "color", "horse", "ihc", "logo", "motorcycle_left")
DISTORTIONS = (  # of x, (3, S, S) in [0, 1], with the ranges of a strong and of a weak one (Sec. 4.2)
    (lambda x, sigma: gaussian_blur(x, [5, 5], [sigma, sigma]), (40, 60), (5, 20)),
    (lambda x, quality: decode_jpeg(encode_jpeg((255 * x).byte(), int(quality))) / 255, (40, 60), (80, 90)),
    (lambda x, variance: (x + variance**0.5 * torch.randn_like(x)).clamp(0, 1), (0.05, 0.1), (0.005, 0.01)),
)


def one_episode(network: nn.Module, f: nn.Module, head: nn.Module, x: Tensor, pairs: Tensor) -> list[Tensor]:
    """Adapt a network in evaluation mode to one batch and score it; the network itself stays as it was.

    f: its part that ends in feature maps. x: (N, 3, S, S), normalised. pairs: (types, 2, N, 3, S, S), strong
    and weak copies. Returns scores before and after, the types that images are compared by, and losses.
    """
    # 1. Start from the source: of a copy, only gamma and beta of batch normalisation in f will change.
    adapted, f = copy.deepcopy((network, f))
    layers = [m for m in f.modules() if isinstance(m, nn.BatchNorm2d)]
    optimiser = torch.optim.Adam([p.requires_grad_() for m in layers for p in m.parameters()], lr=1e-3)
    with torch.no_grad():
        scores = network(x)  # 2. Pseudo-labels: the scores of the source.
        gaps = torch.stack([(network(low) - network(high)).abs() for high, low in pairs])
    # 3. Groups: the lowest and the highest quarter of a batch of 8.
    groups = [scores.argsort()[:2], scores.argsort()[-2:]]
    # 4. Distortion: for each image the one whose two levels the source tells apart best.
    choice = gaps.argmax(0)
    high, low = pairs[choice, :, torch.arange(len(x))].transpose(0, 1)
    # 5. Three steps. In train mode f normalises by the batch, and its running statistics move.
    f.train()
    losses = []
    for _ in range(3):
        z_low, z_high, z = (torch.sigmoid(head(f(images).mean((2, 3)))) for images in (low, high, x))
        loss = rank_loss(z, z_high, z_low) + group_contrastive_loss(z, groups, temperature=0.1)  # Eq. 7
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    # 6. Answer in evaluation mode; then the copy is thrown away.
    f.eval()
    with torch.no_grad():
        return [scores, adapted(x), choice, torch.stack(losses)]


if __name__ == "__main__":
    torch.manual_seed(0)  # of the severities, the noise, and the head, which is random and never trained
    network, head = MetaIQA().eval(), nn.Linear(512, 256)
    network.load_state_dict(load_file(WEIGHTS))
    files = [f"{skimage.__path__[0]}/data/{name}.png" for name in PHOTOGRAPHS]
    images = [decode_image(file)[:3, :224, :224] / 255 for file in files]
    levels = [(f, torch.empty(8).uniform_(*level)) for f, *pair in DISTORTIONS for level in pair]
    copies = [f(x, float(s)) for f, severities in levels for x, s in zip(images, severities)]
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet
    clean, pairs = (normalize(torch.stack(x), mean, std) for x in (images, copies))
    resnet = nn.Sequential(*list(network.resnet_layer.children())[:-2])
    source, answer, *_ = one_episode(network, resnet, head, clean, pairs.unflatten(0, (3, 2, 8)))
    for name, before, after in zip(PHOTOGRAPHS, source, answer):
        print(f"{name:15s} source {before:.3f}  adapted {after:.3f}")
