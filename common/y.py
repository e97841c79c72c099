"""The Y of Figure 1: an extractor f feeds a projection head g and the rest of the network, regressor h."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.protocols import ADAPTABLE, Method, Protocol
from common.system.errors import UserError
from common.system.seeds import generator

MEAN = (0.485, 0.456, 0.406)  # ImageNet
STD = (0.229, 0.224, 0.225)
CLASS_TOKENS = ("cls_token", "class_token")  # how networks call that parameter


@dataclass(frozen=True)
class Cut:
    """Where the feature extractor ends."""

    features: Callable[[Any, Tensor], Tensor]  # (network, x: (N, 3, H, W)) -> (N, D)
    width: int  # D
    extractor: tuple[str, ...]  # dotted names of the network's modules and parameters that belong to f
    adapt: tuple[str, ...] = ("bn",)  # what of f adapts where a method does not say

    def with_default_adapt(self, method: Method) -> Method:
        """Return the method with what adapts spelled out."""
        return replace(method, adapt=self.adapt) if method.adapt is None else method


@dataclass(frozen=True)
class Adaptable:
    """What test-time adaptation may touch, by dotted name."""

    layers: dict[str, nn.Module] = field(default_factory=dict)  # normalisation layers, as a whole
    tokens: dict[str, nn.Parameter] = field(default_factory=dict)  # (1, ..., D)


def kind_of(module: nn.Module) -> str | None:
    """Return the kind of a normalisation layer: "bn", "ln" (RMSNorm too), "gn"; None if nothing can adapt.

    "ln" goes by name: many networks write that layer themselves.
    """
    if isinstance(module, _BatchNorm):
        return "bn"
    if next(module.parameters(recurse=False), None) is None:
        return None
    if isinstance(module, nn.GroupNorm):
        return "gn"
    named = any(base.__name__.lower().startswith(("layernorm", "rmsnorm")) for base in type(module).__mro__)
    return "ln" if named else None


def unit_tensor(x: Tensor) -> Tensor:
    """Bring bytes to float32 in [0, 1]; floating point is there already."""
    # Not by a number: CUDA would multiply by its reciprocal, which rounds otherwise than the CPU.
    return x if x.is_floating_point() else x.float().div_(torch.full((), 255.0, device=x.device))


class YNetwork(nn.Module):
    """A quality network with a projection head on its features; both are frozen."""

    mean: Tensor  # (3, 1, 1)
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        cut: Cut,
        projection: int = 256,
        classifier: bool = True,
        score: Callable[[Any], Tensor] | None = None,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ):
        """Put a head on the features of a network.

        projection: width of the head.
        classifier: whether rotation has a 4-way linear layer of its own on the projection, or reads the
            projected features as they are.
        score: from the network's output to (N,), larger = better; None where that is its output.
        mean, std: of each channel, by which the network wants images normalised.
        """
        super().__init__()
        self.network = network
        self.cut = cut
        self.score = score
        like = next(network.parameters())
        at: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        self.head = nn.Linear(cut.width, projection, **at)
        self.classifier = nn.Linear(projection, 4, **at) if classifier else None
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value, **at).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def normalised(self, x: Tensor) -> Tensor:
        """Bring images, (..., 3, H, W), bytes or in [0, 1], to what the network wants, on its device."""
        return (unit_tensor(x.to(self.mean.device)).to(self.mean.dtype) - self.mean).div_(self.std)

    def features(self, x: Tensor) -> Tensor:
        """Compute f(x): (N, 3, H, W), normalised -> (N, D)."""
        return self.cut.features(self.network, x)

    def project(self, features: Tensor) -> Tensor:
        """Compute z = g(f(x)): (N, D) -> (N, 256), in (0, 1)."""
        return torch.sigmoid(self.head(features))

    def turns(self, features: Tensor) -> Tensor:
        """Compute logits of the four rotations, (N, D) -> (N, 4); no sigmoid is before the classifier."""
        return self.project(features) if self.classifier is None else self.classifier(self.head(features))

    def predict(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        """Compute q(x) = h(f(x)): (N, 3, H, W) -> (N,), larger = better.

        others: for a network of several scales, the images that its further scales are made from, where they
        are not x itself.
        """
        output = self.network(x) if others is None else self.network(x, others)
        return output if self.score is None else self.score(output)

    @torch.no_grad()
    def draw_head(self, seed: int) -> None:
        """Draw the head as torch.nn.Linear would, from the seed alone (Sec. 3.1: random, never trained)."""
        for name, linear in (("head", self.head), ("classifier", self.classifier)):
            if linear is not None:
                bound = linear.in_features**-0.5
                rng = generator(seed, f"projection {name}")
                for parameter in linear.parameters():
                    drawn = torch.from_numpy(rng.uniform(-bound, bound, parameter.shape))
                    parameter.copy_(drawn.to(parameter.dtype))  # on the CPU: not every device knows float64

    def adaptable(self, kinds: Iterable[str]) -> Adaptable:
        """Find the layers and tokens of f of the given kinds: "bn", "ln", "gn", "cls" (Sec. 3.1, Table 6).

        Raises UserError where f holds none of a kind.
        """
        layers: dict[str, nn.Module] = {}
        tokens: dict[str, nn.Parameter] = {}
        for kind in kinds:
            if kind not in ADAPTABLE:
                raise UserError(f"cannot adapt {kind!r}: choose from {', '.join(ADAPTABLE)}")
            before = len(layers) + len(tokens)
            if kind == "cls":
                named = ((n, p) for n, p in self.named_parameters() if n.endswith(CLASS_TOKENS))
                tokens.update((n, p) for n, p in named if self._in_extractor(n))
            else:
                of_kind = ((n, m) for n, m in self.named_modules() if kind_of(m) == kind)
                layers.update((n, m) for n, m in of_kind if self._in_extractor(n))
            if len(layers) + len(tokens) == before:
                raise UserError(
                    f"the feature extractor has no {kind} to adapt: choose another cut or another set"
                )
        return Adaptable(layers, tokens)

    def _in_extractor(self, name: str) -> bool:
        return any(f"{name}.".startswith(f"network.{part}.") for part in self.cut.extractor)


@dataclass(frozen=True)
class Backbone:
    """A network, where its extractor may end, and the protocols that it knows."""

    title: str  # as it is written
    network: Callable[[], nn.Module]  # makes one with random weights
    cuts: dict[str, Cut]  # by name
    protocols: dict[str, Protocol]  # by name
    trunk: str  # attribute that holds its ResNet
    imagenet: str  # the torchvision network whose ImageNet weights fit the trunk
    # What training brings a mean score to, and by how much more a score one standard deviation above it.
    output: tuple[float, float] = (0.0, 1.0)
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict  # names of foreign checkpoints to its own

    def wrap(self, network: nn.Module, protocol: Protocol) -> YNetwork:
        """Put the Y that a protocol asks for around a network of this kind."""
        return YNetwork(network, self.cut(protocol), protocol.projection, protocol.rotation_classifier)

    def cut(self, protocol: Protocol) -> Cut:
        """Return where the extractor ends under a protocol. Raises UserError if there is no such cut."""
        if protocol.cut not in self.cuts:
            raise UserError(f"this network has no cut {protocol.cut!r}: choose from {', '.join(self.cuts)}")
        return self.cuts[protocol.cut]
