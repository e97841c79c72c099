"""Adaptation in a loop of one's own: tensors in, scores out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.adaptation import Adaptation
from common.adapter import Adapter
from common.batches import Views, collate
from common.photographs import Photograph
from common.protocols import METHODS, PAPER, TUNED
from common.system.errors import UserError
from common.views import View
from common.wrap import wrap
from tests.conftest import SmallNet

SIZE = 32
SMALL = replace(
    TUNED, adapt_on=8, judge_on=12, batch_size=4, least=8, margin=-2.0
)  # adapts, whatever the agreement


def network():
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return SmallNet()


def images(n, seed, height=48, width=40):
    """Blocks of colour, of eight bits, as a loader gives them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 3, 6, 5), dtype=np.uint8)
    whole = torch.from_numpy(coarse.repeat(8, 2).repeat(8, 3))[:, :, :height, :width]
    return whole.float() / 255


def test_a_call_under_a_protocol_is_an_episode_of_the_adapter():
    adapted = Adaptation(network(), "trunk", protocol=PAPER, seed=3, size=SIZE)
    protocol = replace(PAPER, view=View(SIZE))
    ynet = wrap(network(), "trunk", size=SIZE)
    ynet.draw_head(3)
    adapter = Adapter(ynet, protocol, METHODS["rank+gc"])
    first = 0
    for n in (8, 6):
        x = images(n, n)
        pixels = (x * 255).round().byte().permute(0, 2, 3, 1).numpy()
        photographs = [Photograph(str(first + i), i) for i in range(n)]
        views = Views(
            photographs, 3, protocol.view, adapter.method.types, read=lambda i, pixels=pixels: pixels[i]
        )
        (outcome,) = adapter([collate([views[i] for i in range(n)])])
        assert torch.equal(adapted(x), outcome.adapted) and not torch.equal(outcome.adapted, outcome.source)
        first += n
    again = adapted(x)
    assert not torch.equal(again, outcome.adapted)  # other running numbers, other views
    adapted.reset()
    adapted(images(8, 8))
    assert torch.equal(adapted(x), outcome.adapted)


def test_a_stream_decides_once_and_the_source_stays_as_it_is():
    def run(net, after=lambda adapted: None):
        adapted = Adaptation(net, "trunk", protocol=SMALL, size=SIZE)
        found = [adapted(images(n, n)) for n in (5, 4)]
        assert adapted.decision is None
        found += [adapted(images(n, n)) for n in (7, 6)]
        return adapted, torch.cat(found)

    net = network()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    adapted, scores = run(net)
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert adapted.decision.chosen != "source" and adapted.decision.images == 12
    assert torch.equal(scores, run(network())[1])
    plain = Adaptation(network(), "trunk", protocol=replace(SMALL, judge_on=99), size=SIZE)
    source = torch.cat([plain(images(n, n)) for n in (5, 4, 7, 6)])
    assert torch.equal(scores[:9], source[:9]) and not (scores[9:] == source[9:]).any()
    assert plain.decide().images == 22 and plain.decision is plain.decide()
    adapted.reset()
    assert adapted.decision is None and torch.equal(adapted(images(5, 5)), scores[:5])
    assert adapted.decide().sentence() == "not adapted: 5 images are too few to tell whether it helps"


def test_a_network_without_bn_has_the_other_candidates():
    adapted = Adaptation(network(), "norm", adapt=("ln",), protocol=SMALL, size=SIZE)
    adapted(images(12, 0))
    assert set(adapted.decision.reliability) == {"source", "ladders", "ladders without noise"}
    assert adapted.decision.adapted


def test_an_image_of_the_views_size_is_not_cropped():
    view = View(SIZE, flips=())
    x = images(4, 0, SIZE, SIZE)
    ynet = wrap(network(), "trunk", size=SIZE)
    adapted = Adaptation(ynet, protocol=TUNED.on(replace(PAPER, view=view)))
    torch.testing.assert_close(adapted(x), ynet.predict(ynet.normalised(x)))


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.rand(3, 40, 40), "give (N, 3, H, W)"),
        (torch.rand(2, 1, 40, 40), "give (N, 3, H, W)"),
        (torch.rand(0, 3, 40, 40), "give (N, 3, H, W)"),
        (torch.ones(2, 3, 40, 40, dtype=torch.uint8), "torch.uint8: give floating point"),
        (torch.full((2, 3, 40, 40), 200.0), "from 200 to 200: give them in [0, 1]"),
        (torch.full((2, 3, 40, 40), torch.nan), "not finite"),
    ],
)
def test_what_is_no_image_is_one_line(x, message):
    adapted = Adaptation(network(), "trunk", size=SIZE)
    with pytest.raises(UserError) as error:
        adapted(x)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_arguments_that_contradict_each_other():
    wrapped = wrap(network(), "trunk", size=SIZE)
    for make, message in (
        (lambda: Adaptation(network()), "no features"),
        (lambda: Adaptation(wrapped, "trunk", mean=(0, 0, 0)), "leave out features, mean"),
        (lambda: Adaptation(wrapped, method="gc"), "leave out method"),
        (lambda: Adaptation(wrapped, protocol=PAPER, method="tent"), "no method 'tent'"),
        (lambda: Adaptation(wrapped, protocol=PAPER).decide(), "nothing to decide"),
        (lambda: Adaptation(wrapped).decide(), "no image has been seen"),
    ):
        with pytest.raises(UserError, match=message):
            make()
