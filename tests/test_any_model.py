"""Networks that this project does not know, with random weights: the laws of adaptation on each, and what
cannot be adapted."""

import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torchvision.models as tv
from PIL import Image
from timm.models.resnetv2 import ResNetV2
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FrozenBatchNorm2d

from common.adapter import Adapter, score_source, stack_batches
from common.episodes import EpisodeState, episode_parameters
from common.protocols import METHODS, PAPER
from common.system.errors import UserError
from common.wrap import wrap
from examples import own_model
from tests.conftest import make_batch

SIDE = 48

# Maker, where the extractor ends, classes of the layers that adapt, and the normalisation layers that lie
# after it.
NETWORKS = {
    "torchvision resnet": (
        lambda: tv.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=1),
        "layer4",
        {"BatchNorm2d"},
        (),
    ),
    "torchvision mobilenet_v3": (
        lambda: tv.mobilenet_v3_small(num_classes=1),
        "features",
        {"BatchNorm2d"},
        (),
    ),
    "torchvision convnext": (
        lambda: tv.ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)], num_classes=1),
        "features",
        {"LayerNorm", "LayerNorm2d"},
        ("classifier.0",),
    ),
    "torchvision vit": (
        lambda: tv.VisionTransformer(SIDE, 16, 2, 4, 32, 64, num_classes=1),
        "encoder",
        {"LayerNorm"},
        (),
    ),
    "torchvision swin": (
        lambda: tv.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=1),
        "features",
        {"LayerNorm"},
        ("norm",),
    ),
    "timm resnet": (
        lambda: timm.create_model("resnet10t", num_classes=1),
        "layer4.0.act2",
        {"BatchNorm2d"},
        (),
    ),
    "timm efficientnet": (
        lambda: timm.create_model("tinynet_e", num_classes=1),
        "bn2",
        {"BatchNormAct2d"},
        (),
    ),
    "timm vit": (
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=SIDE, depth=3, num_classes=1),
        "blocks.2",
        {"LayerNorm"},
        ("norm",),
    ),
    "timm swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224",
            img_size=SIDE,
            window_size=4,
            embed_dim=24,
            depths=(1, 2, 1, 1),
            num_classes=1,
        ),
        "norm",
        {"LayerNorm"},
        (),
    ),
    "timm convnext": (
        lambda: timm.create_model("convnext_atto", depths=(1, 1, 2, 1), num_classes=1),
        "stages",
        {"LayerNorm2d"},
        ("head.norm",),
    ),
    "timm resnetv2 with group normalisation": (
        lambda: ResNetV2(layers=[1, 1], channels=(128, 256), stem_chs=32, num_classes=1),
        "norm",
        {"GroupNormAct"},
        (),
    ),
    "timm vit with RMSNorm": (
        lambda: timm.create_model(
            "vit_tiny_patch16_224",
            img_size=SIDE,
            depth=2,
            num_classes=1,
            norm_layer=timm.layers.RmsNorm,
            global_pool="avg",
        ),
        "blocks",
        {"RmsNorm"},
        ("fc_norm",),
    ),
}


def randomised(network, dtype=torch.float64):
    """Nothing at zero or one, where some layers start, so that everything has an effect and a gradient."""
    rng = torch.Generator().manual_seed(0)
    for module in network.modules():
        if "Norm" in type(module).__name__:
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data.uniform_(0.5, 1.5, generator=rng)
    for parameter in network.parameters():
        if parameter.ndim == 2 and len(parameter) == 1:
            nn.init.normal_(parameter, generator=rng)
    return network.to(dtype).eval()


def made(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomised(make())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_laws_hold(name):
    make, features, classes, after = NETWORKS[name]
    network = made(make).train()
    untouched = made(make)
    norms = {n for n, m in network.named_modules() if type(m).__name__ in classes}
    ynet = wrap(network, features, size=SIDE)
    assert {part.removeprefix("network.") for part in ynet.adaptable(ynet.cut.adapt).layers} == norms - set(
        after
    )
    ynet.draw_head(0)
    adapter = Adapter(ynet, PAPER, replace(METHODS["rank+gc"], niter=1))
    batches = [make_batch(4, 1, side=SIDE), make_batch(4, 2, side=SIDE)]
    images = stack_batches(ynet, batches[:1])
    source = score_source(ynet, images, PAPER, choose=True)
    with torch.no_grad():
        assert torch.equal(
            source.scores,
            untouched(ynet.normalised(images.clean).contiguous(memory_format=torch.channels_last)).squeeze(1),
        )

    *_, (state, _) = adapter.steps(images, source, adapter.groups(images, source), 2)
    tensors, own = {**state.parameters, **state.buffers}, ynet.state_dict()
    assert {key.rpartition(".")[0] for key in tensors} == {f"network.{part}" for part in norms - set(after)}
    assert [key for key, value in tensors.items() if torch.equal(value[0], own[key])] == []

    alone = [adapter([batch])[0] for batch in batches]
    for one, other in zip(alone, adapter(batches)):
        torch.testing.assert_close(other.adapted, one.adapted, rtol=1e-7, atol=1e-7)
        assert not one.fell_back and not torch.allclose(one.adapted, one.source, rtol=1e-5)
    before = untouched.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(
        m.training or "forward" in vars(m) or m._forward_hooks or m._forward_pre_hooks for m in ynet.modules()
    )


class Plain(nn.Module):
    """Convolution, BN, LayerNorm after the cut `body`; a subclass changes one part of the forward pass."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        return self.end(self.body(x))

    def end(self, x):
        return self.head(self.norm(x.mean((2, 3))))


def plain(kind=Plain):
    return made(kind)


class Forward(Plain):
    """Plain with another forward pass."""

    def __init__(self, forward):
        super().__init__()
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def with_forward(forward):
    return made(lambda: Forward(forward))


def test_the_losses_run_the_network_no_further_than_the_cut():
    network = plain()
    ynet = wrap(network, "body.1", size=16)
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    network.body[2].forward = network.end = lambda x: 1 / 0
    torch.testing.assert_close(ynet.features(x), network.body[1](network.body[0](x)).mean((2, 3)))


@pytest.mark.parametrize(
    "reshape, pool, width",
    [
        (lambda x: x, lambda x: x.mean((2, 3)), 6),
        (lambda x: x.permute(0, 2, 3, 1), lambda x: x.mean((1, 2)), 6),
        (lambda x: x.flatten(2).transpose(1, 2), lambda x: x.mean(1), 6),
        (lambda x: x.flatten(1), lambda x: x, 6 * 64),
    ],
    ids=["NCHW", "NHWC", "tokens", "vectors"],
)
def test_features_are_pooled(reshape, pool, width):
    class Reshape(nn.Module):
        def forward(self, x):
            return reshape(x)

    network = plain(lambda: nn.Sequential(Plain().body, Reshape(), nn.Flatten(), nn.LazyLinear(1)))
    network(torch.zeros(1, 3, 16, 16, dtype=torch.float64))
    ynet = wrap(network, "1", size=16)
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    assert ynet.cut.width == width
    torch.testing.assert_close(ynet.features(x), pool(reshape(network[0](x))))


def test_features_of_several_crops_are_averaged():
    def forward(net, x):
        crops = torch.stack((x[..., :8], x[..., 8:]), dim=1).flatten(0, 1)
        return net.end(net.body(crops)).view(-1, 2).mean(1)

    network = with_forward(forward)
    ynet = wrap(network, "body", size=16)
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    left, right = (network.body(part).mean((2, 3)) for part in x.chunk(2, dim=3))
    torch.testing.assert_close(ynet.features(x), (left + right) / 2)


@pytest.mark.parametrize(
    "output, score, sign",
    [
        (lambda q: q, None, 1),
        (lambda q: q.squeeze(), None, 1),  # a scalar for a single image
        (lambda q: (q, "more"), lambda out: out[0], 1),
        (lambda q: {"mos": q}, lambda out: -out["mos"].squeeze(1), -1),  # lower = better
    ],
)
def test_scores_of_any_output(output, score, sign):
    network = with_forward(lambda net, x: output(net.end(net.body(x))))
    ynet = wrap(network, "body", score=score, size=16)
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    expected = sign * network.end(network.body(x)).squeeze(1)
    for n in (1, 3):
        torch.testing.assert_close(ynet.predict(x[:n]), expected[:n])


def test_images_are_normalised_as_the_network_wants():
    ynet = wrap(plain(), "body", size=16, mean=(0, 0, 0.5), std=(1, 1, 1 / 255))
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(ynet.normalised(x)[:, 0], x[:, 0])
    torch.testing.assert_close(ynet.normalised(x)[:, 2], (x[:, 2] - 0.5) * 255)


def test_adapting_more_than_the_default():
    network = with_forward(lambda net, x: net.end(net.body(x)))
    both = wrap(network, "norm", adapt=("bn", "ln"), size=16)
    assert set(both.cut.extractor) == {"body.1", "norm"}
    assert set(both.adaptable(("ln",)).layers) == {"network.norm"}
    vit = made(NETWORKS["timm vit"][0])
    ynet = wrap(vit, "norm", adapt=("ln", "cls"), size=SIDE)
    adaptable = ynet.adaptable(ynet.cut.adapt)
    assert set(adaptable.tokens) == {"network.cls_token"} and len(adaptable.layers) == 7
    (outcome,) = Adapter(ynet, PAPER, replace(METHODS["gc"], niter=1, adapt=("cls",)))(
        [make_batch(4, 1, side=SIDE)]
    )
    assert not torch.equal(outcome.adapted, outcome.source)


class Encoder(Plain):
    """Plain with torch's transformer in place of the layer after the body, and no BN."""

    def __init__(self, batch_first=True):
        super().__init__()
        self.body = nn.Conv2d(3, 6, 4, 4)
        self.norm = nn.TransformerEncoderLayer(6, 2, 12, batch_first=batch_first)
        self.out = nn.Identity()

    def end(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        first = self.norm.self_attn.batch_first
        tokens = self.norm(tokens) if first else self.norm(tokens.transpose(0, 1)).transpose(0, 1)
        return self.head(self.out(tokens).mean(1))


def test_torchs_transformer_adapts_without_gradients_too():
    """Without them it has a faster way, past the layers' own forward, and an answer would be the source's."""
    ynet = wrap(plain(Encoder), "norm", size=16)
    adaptable = ynet.adaptable(ynet.cut.adapt)
    state = EpisodeState.from_source(adaptable, [2])
    for parameter in state.parameters.values():
        parameter.data.add_(0.5)
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    with episode_parameters(ynet, adaptable, state, False, lambda _: 0.0):
        with torch.no_grad():
            without = ynet.predict(x)
        torch.testing.assert_close(without, ynet.predict(x))
    assert not torch.allclose(without, ynet.predict(x), rtol=1e-3)


def test_a_network_without_batch_normalisation_has_no_statistics():
    ynet = wrap(made(NETWORKS["timm convnext"][0]), "stages", size=SIDE)
    batch = make_batch(4, 1, side=SIDE)
    method = replace(METHODS["gc"], niter=1)
    one, other = (
        Adapter(ynet, replace(PAPER, **change), method)([batch])[0].adapted
        for change in ({}, {"running_from": "none", "answer_from": "batch"})
    )
    assert torch.equal(one, other)
    with pytest.raises(
        UserError, match="bn-stats moves the statistics of BN, which is not among what adapts: ln"
    ):
        Adapter(ynet, PAPER, METHODS["bn-stats"])


def test_a_layer_norm_of_the_networks_own_adapts():
    class LayerNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6))

        def forward(self, x):
            return self.weight[:, None, None] * x / x.std(1, keepdim=True)

    network = plain(
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, 2), LayerNorm(), nn.ReLU(), nn.Flatten(), nn.Linear(294, 1))
    )
    assert wrap(network, "2", size=16).cut.extractor == ("1",)


def test_a_metric_of_pyiqa():
    pyiqa = pytest.importorskip("pyiqa")
    metric = pyiqa.create_metric("topiq_nr", device="cpu", pretrained=False, backbone_pretrain=False)
    ynet = wrap(metric, "semantic_model.layer4", size=64)
    batch = make_batch(4, 1, side=64)
    (outcome,) = Adapter(ynet, PAPER, replace(METHODS["gc"], niter=1))([batch])
    torch.testing.assert_close(outcome.source, metric(batch.clean.float()).squeeze(1))
    assert not torch.equal(outcome.adapted, outcome.source)


def test_the_example_scores_a_folder(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(256, size=(24, 32, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    network = timm.create_model("resnet18", num_classes=1)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    assert own_model.main([str(tmp_path), "--weights", str(tmp_path / "weights.pth")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [f"{i}.png" for i in range(4)]
    assert all(line[2] != line[4] for line in lines)
    assert own_model.main([str(tmp_path / "none")]) == 2
    assert "no images there" in capsys.readouterr().err


class Half(nn.Module):
    """Half of the rows from one crop, half from another, crop by crop."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.relu, self.sum = nn.ReLU(), nn.Identity()
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        crops = self.relu(self.norm(torch.cat((x[..., ::2, :], x[..., 1::2, :]))))
        return self.head(self.sum(sum(crops.chunk(2))).mean((2, 3)))


def compiled():
    network = plain()
    network.compile()
    return network


class Twice(nn.Module):
    def forward(self, x):
        return x, x


def in_pairs():
    network = with_forward(lambda net, x: net.end(net.body(x)[0]))
    network.body.append(Twice())
    return network


def with_nan():
    network = plain()
    network.head.bias.data.fill_(float("nan"))
    return network


def no_grad_body(net, x):
    with torch.no_grad():
        x = net.body(x)
    return net.end(x)


def in_company(net, x):
    q = net.end(net.body(x))
    return q - q.mean()


def frozen():
    network = plain()
    network.body[1] = FrozenBatchNorm2d(6).double()
    return network


MISTAKES = {
    "no module": (lambda: torch.relu, {}, "a builtin_function_or_method is no torch.nn.Module"),
    "wrapped": (lambda: wrap(plain(), "body", size=16), {}, "is wrapped already: give the network inside"),
    "compiled": (compiled, {}, "compiled by torch.compile"),
    "compiled apart": (lambda: torch.compile(plain()), {}, "compiled by torch.compile"),
    "parallel": (lambda: nn.DataParallel(plain()), {}, "inside a DataParallel: give its .module"),
    "traced": (
        lambda: torch.jit.trace(plain(), torch.rand(1, 3, 16, 16).double()),
        {},
        "compiled by torch.jit",
    ),
    "no parameters": (lambda: nn.Sequential(nn.AvgPool2d(16)), {}, "has no parameters"),
    "misspelt": (plain, {"features": "boddy"}, "no module 'boddy': did you mean 'body'"),
    "never called": (
        lambda: with_forward(lambda net, x: net.end(net.body[1](net.body[0](x)))),
        {},
        "'body' is not called in a forward pass: choose a module that is, such as 'body.1' or 'body.0'",
    ),
    "called twice": (
        lambda: with_forward(lambda net, x: net.end(net.body(x) + net.body(x.flip(3)))),
        {},
        "runs 2 times",
    ),
    "fixed size": (
        lambda: made(NETWORKS["timm vit"][0]),
        {"features": "norm"},
        "(3, 3, 16, 16) fails (AssertionError: ",
    ),
    "many outputs": (
        lambda: plain(lambda: nn.Sequential(Plain().body, nn.Flatten(), nn.Linear(384, 10))),
        {"features": "0"},
        "the network's output is a tensor (3, 10), not one number per image: give score=",
    ),
    "tuple": (
        lambda: with_forward(lambda net, x: (net.end(net.body(x)), x)),
        {},
        "is a tuple of a tensor (3, 1), a tensor (3, 3, 16, 16), not",
    ),
    "dict": (
        lambda: with_forward(lambda net, x: {"mos": net.end(net.body(x)), "z": x}),
        {},
        "is a dict of 'mos', 'z', not",
    ),
    "wrong score": (
        plain,
        {"score": lambda out: out.expand(-1, 2)},
        "what score() returns is a tensor (3, 2), not",
    ),
    "failing score": (plain, {"score": lambda out: out["mos"]}, "fails (IndexError: "),
    "one for all": (
        lambda: with_forward(lambda net, x: net.end(net.body(x)).mean()),
        {},
        "gives 1 scores for 3 images",
    ),
    "constant": (
        lambda: with_forward(lambda net, x: net.end(net.body(x)) * 0 + 2),
        {},
        "the same score, 2: is its",
    ),
    "not finite": (with_nan, {}, "not finite"),
    "company": (lambda: with_forward(in_company), {}, "a score must depend on its image only"),
    "tuple of features": (
        in_pairs,
        {},
        "the output of 'body' for 3 images is a tuple of a tensor (3, 6, 8, 8), a tensor",
    ),
    "frozen": (
        frozen,
        {},
        "with parameters; its 1 FrozenBatchNorm2d (body.1) cannot change",
    ),
    "after the cut": (
        plain,
        {"features": "body.0"},
        "; after it there is 1 BatchNorm2d (body.1), 1 LayerNorm (norm)",
    ),
    "none of a kind": (
        plain,
        {"adapt": ("ln",)},
        "where there is 1 BatchNorm2d (body.1); after it 1 LayerNorm (norm)",
    ),
    "no such kind": (plain, {"adapt": ("in",)}, "cannot adapt in: choose from bn, ln, gn, cls"),
    "no class token": (plain, {"adapt": ("cls",)}, "no class token"),
    "no gradient": (
        lambda: with_forward(no_grad_body),
        {},
        "no gradient flows from 'body' back to 1 BatchNorm2d (body.1)",
    ),
    "tokens first": (
        lambda: plain(lambda: Encoder(batch_first=False)),
        {"features": "out"},
        "images must lie along the first",
    ),
    "crop by crop": (
        lambda: plain(Half),
        {"features": "relu"},
        "output of 'relu' for an image changes with the others",
    ),
    "crops inside": (lambda: plain(Half), {"features": "sum"}, "the images of a batch mix in norm"),
    "std": (plain, {"std": (1, 1)}, "must be three numbers each"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore")
def test_mistakes_are_told_in_one_line(mistake):
    make, options, message = MISTAKES[mistake]
    network = make()
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        wrap(network, **{"features": "body", "size": 16, **options})
    assert "\n" not in str(raised.value)
    if isinstance(network, nn.Module):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
