"""The Y of Figure 1: a feature extractor f that feeds a projection head g and the rest of the network, the
regressor h."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.protocols import Method, Protocol
from common.system.errors import UserError
from common.system.seeds import generator

ADAPTABLE = ("bn", "ln", "gn", "cls")
MEAN = (0.485, 0.456, 0.406)  # ImageNet
STD = (0.229, 0.224, 0.225)
CLASS_TOKENS = ("cls_token", "class_token")  # how networks call that parameter


@dataclass(frozen=True)
class Cut:
    """Where the feature extractor ends.

    features: (network, x) -> (N, D). width: D. extractor: dotted names of the network's modules and
    parameters that belong to f. adapt: what of f adapts where a method does not say.
    """

    features: Callable[[Any, Tensor], Tensor]
    width: int
    extractor: tuple[str, ...]
    adapt: tuple[str, ...] = ("bn",)

    def with_default_adapt(self, method: Method) -> Method:
        """The method with what adapts spelled out."""
        return replace(method, adapt=self.adapt) if method.adapt is None else method


@dataclass(frozen=True)
class Adaptable:
    """What test-time adaptation may touch, by dotted name: whole normalisation layers, and tokens (1, ...,
    D)."""

    layers: dict[str, nn.Module] = field(default_factory=dict)
    tokens: dict[str, nn.Parameter] = field(default_factory=dict)


def kind_of(module: nn.Module) -> str | None:
    """The kind of a normalisation layer: "bn", "ln" (RMSNorm too), "gn", or None, also where a layer has
    nothing to adapt.

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


class YNetwork(nn.Module):
    """A quality network with a projection head on its features. The network is frozen; so is the head, once
    drawn.

    projection: width of the head. classifier: whether rotation has a 4-way linear layer of its own on the
    projection, or reads the projected features as they are. score: from the network's output to (N,), larger
    = better; None where that is its output. mean, std: of each channel, with which the network wants images
    normalised.
    """

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
        super().__init__()
        self.network = network
        self.cut = cut
        self.score = score
        like = next(network.parameters())
        self.head = nn.Linear(cut.width, projection, device=like.device, dtype=like.dtype)
        self.classifier = (
            nn.Linear(projection, 4, device=like.device, dtype=like.dtype) if classifier else None
        )
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(
                name,
                torch.tensor(value, device=like.device, dtype=like.dtype).view(3, 1, 1),
                persistent=False,
            )
        self.requires_grad_(False).eval()

    def normalised(self, x: Tensor) -> Tensor:
        """Images in [0, 1], (..., 3, H, W), as the network wants them, on its device."""
        return (x.to(self.mean) - self.mean) / self.std

    def features(self, x: Tensor) -> Tensor:
        """f(x): (N, 3, H, W), normalised -> (N, D)."""
        return self.cut.features(self.network, x)

    def project(self, features: Tensor) -> Tensor:
        """z = g(f(x)): (N, D) -> (N, 256), in (0, 1)."""
        return torch.sigmoid(self.head(features))

    def turns(self, features: Tensor) -> Tensor:
        """Logits of the four rotations, (N, D) -> (N, 4), with no sigmoid before the classifier."""
        return self.project(features) if self.classifier is None else self.classifier(self.head(features))

    def predict(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        """q(x) = h(f(x)): (N, 3, H, W) -> (N,), larger = better. others: for a network of several scales, the
        images that its further scales are made from, where they are not x itself."""
        output = self.network(x) if others is None else self.network(x, others)
        return output if self.score is None else self.score(output)

    @torch.no_grad()
    def draw_head(self, seed: int) -> None:
        """Draw the head as torch.nn.Linear would, from the seed alone (Sec. 3.1: random, and never
        trained)."""
        for name, linear in (("head", self.head), ("classifier", self.classifier)):
            if linear is not None:
                bound = linear.in_features**-0.5
                rng = generator(seed, f"projection {name}")
                for parameter in linear.parameters():
                    drawn = torch.from_numpy(rng.uniform(-bound, bound, parameter.shape))
                    parameter.copy_(drawn.to(parameter.dtype))  # on the CPU: not every device knows float64

    def adaptable(self, kinds: Iterable[str]) -> Adaptable:
        """The layers and tokens of f of the given kinds: "bn", "ln", "gn", "cls" (Sec. 3.1, Table 6).

        Raises UserError where f holds none of a kind.
        """
        layers, tokens = {}, {}
        for kind in kinds:
            if kind not in ADAPTABLE:
                raise UserError(f"cannot adapt {kind!r}: choose from {', '.join(ADAPTABLE)}")
            if kind == "cls":
                found = {
                    n: p
                    for n, p in self.named_parameters()
                    if n.endswith(CLASS_TOKENS) and self._in_extractor(n)
                }
                tokens |= found
            else:
                found = {
                    n: m for n, m in self.named_modules() if kind_of(m) == kind and self._in_extractor(n)
                }
                layers |= found
            if not found:
                raise UserError(
                    f"the feature extractor has no {kind} to adapt: choose another cut or another set"
                )
        return Adaptable(layers, tokens)

    def _in_extractor(self, name: str) -> bool:
        return any(f"{name}.".startswith(f"network.{part}.") for part in self.cut.extractor)


@dataclass(frozen=True)
class Backbone:
    """A network, where its extractor may end, and the protocols that it knows, by name.

    title: as it is written. trunk: attribute that holds its ResNet, which ImageNet weights of `imagenet`, a
    torchvision network, fit. output: the outputs that training gives to a mean score and to one standard
    deviation above it, less that.
    """

    title: str
    network: Callable[[], nn.Module]
    cuts: dict[str, Cut]
    protocols: dict[str, Protocol]
    trunk: str
    imagenet: str
    output: tuple[float, float] = (0.0, 1.0)
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict  # names of foreign checkpoints to its own

    def wrap(self, network: nn.Module, protocol: Protocol) -> YNetwork:
        """The Y that a protocol asks for around a network of this kind."""
        return YNetwork(network, self.cut(protocol), protocol.projection, protocol.rotation_classifier)

    def cut(self, protocol: Protocol) -> Cut:
        """Where the extractor ends under a protocol. Raises UserError if the network has no such cut."""
        if protocol.cut not in self.cuts:
            raise UserError(f"this network has no cut {protocol.cut!r}: choose from {', '.join(self.cuts)}")
        return self.cuts[protocol.cut]
