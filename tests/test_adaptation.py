"""Laws of the adaptation loop, and the loop itself against a plain transcription, on a small network in
float64."""

import copy
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from common.adapter import Adapter, score_source, stack_batches
from common.distortions import TYPES
from common.episodes import pass_momenta
from common.losses import TERMS, Term, nt_xent_loss
from common.protocols import METHODS, PAPER, RELEASED, Method
from common.system.errors import UserError
from common.y import MEAN, STD
from examples.one_episode import one_episode
from tests.conftest import make_batch, make_small

ROOT = Path(__file__).parent.parent
LOSSES = ["rotation", "rank", "gc", "rank+gc", "contrastive", "contrique"]


def normalised(x):
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


def test_the_loop_equals_a_plain_transcription(small):
    """examples/one_episode.py: a copy of the network, train mode, one Adam."""
    batch = make_batch(8, 0)
    source, expected, choice, losses = one_episode(
        small.network,
        small.network.trunk,
        small.head,
        normalised(batch.clean),
        normalised(batch.pairs),
    )
    (outcome,) = Adapter(small, PAPER, METHODS["rank+gc"])([batch])
    assert len(set(choice.tolist())) > 1  # else the choice is not tested
    assert torch.equal(outcome.choice, choice)
    torch.testing.assert_close(outcome.source, source, rtol=1e-12, atol=0)
    torch.testing.assert_close(outcome.losses, losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(outcome.adapted, expected, rtol=1e-10, atol=0)
    assert not torch.allclose(outcome.adapted, outcome.source, rtol=1e-3)


def test_the_plain_transcription_runs_on_photographs():
    done = subprocess.run(
        [sys.executable, "-m", "examples.one_episode"], cwd=ROOT, capture_output=True, text=True
    )
    scores = [
        (float(a), float(b)) for a, b in re.findall(r"source (\d\.\d+)  adapted (\d\.\d+)", done.stdout)
    ]
    assert len(scores) == 8 and all(before != after for before, after in scores), done.stderr
    assert len((ROOT / "examples/one_episode.py").read_text().splitlines()) <= 80


@pytest.mark.parametrize("method", [*LOSSES, "bn-stats"])
def test_nothing_is_left_behind(small, method):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    first, second = make_batch(8, 1), make_batch(8, 2)
    adapter = Adapter(small, PAPER, METHODS[method])
    adapter([first])
    after_another = adapter([second])[0]
    alone = Adapter(make_small(), PAPER, METHODS[method])([second])[0]
    assert torch.equal(after_another.adapted, alone.adapted)
    assert torch.equal(after_another.losses, alone.losses)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert not any(module.training or "forward" in vars(module) for module in small.modules())
    assert all(p.grad is None and not p.requires_grad for p in small.parameters())


def test_nothing_is_left_behind_after_an_error(small, monkeypatch):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    monkeypatch.setitem(vars(small.network.trunk[3]), "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(Adapter(small, PAPER, METHODS["gc"]).steps(*prepared(make_small(), PAPER, METHODS["gc"]), 3))
    monkeypatch.undo()
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert not any(module.training or "forward" in vars(module) for module in small.modules())


def prepared(ynet, protocol, method):
    images = stack_batches(ynet, [make_batch(8, 1)])
    source = score_source(ynet, images, protocol, choose=True)
    return images, source, Adapter(ynet, protocol, method).groups(images, source)


def after_three_steps(ynet, protocol, method):
    *_, (state, _) = Adapter(ynet, protocol, method).steps(*prepared(ynet, protocol, method), 3)
    return state


@pytest.mark.parametrize(
    "cut, adapt, moving",
    [
        ("resnet", ("bn",), {"network.trunk.1", "network.trunk.4"}),
        ("transformer", ("bn",), {"network.trunk.1", "network.trunk.4"}),
        ("transformer", ("ln",), {"network.norm"}),
        ("transformer", ("cls",), {"network"}),
        ("transformer", ("ln", "cls"), {"network.norm", "network"}),
    ],
)
def test_only_what_was_asked_for_moves(cut, adapt, moving):
    ynet = make_small(cut)
    method = replace(METHODS["rank+gc"], adapt=adapt)
    state = after_three_steps(ynet, PAPER, method)
    tensors = {**state.parameters, **state.buffers}
    own = ynet.state_dict()
    assert {name.rpartition(".")[0] for name in tensors} == moving
    assert not any(torch.equal(value[0], own[name]) for name, value in tensors.items())


@pytest.mark.parametrize("cut, adapt", [("resnet", ("bn",)), ("transformer", ("bn", "ln", "cls"))])
@pytest.mark.parametrize("method", LOSSES)
def test_episodes_at_once_equal_episodes_alone(cut, adapt, method):
    ynet = make_small(cut)
    batches = [make_batch(8, 1), make_batch(8, 2), make_batch(5, 3)]
    adapter = Adapter(ynet, PAPER, replace(METHODS[method], adapt=adapt))
    alone = [adapter([batch])[0] for batch in batches]
    for at_once in ([*adapter(batches[:2]), *adapter(batches[2:])], adapter(batches)):
        for one, other in zip(alone, at_once):
            torch.testing.assert_close(other.adapted, one.adapted, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(other.losses, one.losses, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("method", METHODS)
def test_small_batches(small, method, n):
    (outcome,) = Adapter(small, PAPER, METHODS[method])([make_batch(n, n)])
    assert outcome.adapted.shape == (n,) and outcome.adapted.isfinite().all() and not outcome.fell_back
    assert outcome.group_left_out == ("group" in METHODS[method].losses and n < 4)
    unadapted = method == "source" or (method == "gc" and n < 4)
    assert torch.equal(outcome.adapted, outcome.source) == unadapted


def test_an_episode_without_a_loss_stays_at_the_source_among_others(small):
    adapter = Adapter(small, PAPER, METHODS["gc"])
    full, short = adapter([make_batch(8, 1), make_batch(3, 2)])
    assert torch.equal(short.adapted, short.source) and short.group_left_out
    torch.testing.assert_close(full.adapted, adapter([make_batch(8, 1)])[0].adapted, rtol=1e-9, atol=1e-9)


def test_a_loss_that_is_not_finite_falls_back_and_spares_the_others(small):
    poisoned = make_batch(8, 2)
    poisoned.pairs[:, 0] = float("nan")
    adapter = Adapter(small, PAPER, METHODS["rank"])
    healthy, broken = adapter([make_batch(8, 1), poisoned])
    assert broken.fell_back and torch.equal(broken.adapted, broken.source)
    assert not healthy.fell_back and not torch.equal(healthy.adapted, healthy.source)
    torch.testing.assert_close(healthy.adapted, adapter([make_batch(8, 1)])[0].adapted, rtol=1e-9, atol=1e-9)


def test_a_source_that_is_not_finite_is_the_users_mistake(small):
    small.network.regressor[2].bias.data.fill_(float("nan"))
    with pytest.raises(UserError, match="weights are damaged"):
        Adapter(small, PAPER, METHODS["source"])([make_batch(2, 0)])


def running_after(ynet, protocol, method="rank+gc"):
    return after_three_steps(ynet, protocol, METHODS[method]).buffers["network.trunk.1.running_mean"][0]


def test_which_passes_move_the_running_statistics(small):
    """The first BN's input depends on no adapted parameter, so that its statistics have a closed form."""
    conv, bn = small.network.trunk[0], small.network.trunk[1]
    clean = normalised(make_batch(8, 1).clean)
    mean = conv(clean).mean((0, 2, 3))
    start = bn.running_mean
    torch.testing.assert_close(
        running_after(small, replace(PAPER, running_from="none")), start, rtol=0, atol=0
    )
    only_clean = start * 0.9**3 + mean * (1 - 0.9**3)
    torch.testing.assert_close(running_after(small, replace(PAPER, running_from="clean")), only_clean)
    torch.testing.assert_close(running_after(small, PAPER, "gc"), only_clean)
    torch.testing.assert_close(running_after(small, PAPER, "bn-stats"), only_clean)
    images, source, _ = prepared(small, PAPER, METHODS["rank"])
    compared = Adapter(small, PAPER, METHODS["rank"]).passes(images, source)
    high, low = compared["high"], compared["low"]
    second = normalised(images.second_views["crop"])
    for method, passes in (("rank+gc", (low, high, clean)), ("contrastive", (second, clean))):
        expected = start
        for x in passes * 3:
            expected = 0.9 * expected + 0.1 * conv(x).mean((0, 2, 3))
        torch.testing.assert_close(running_after(small, PAPER, method), expected)
    torch.testing.assert_close(
        running_after(small, replace(PAPER, running_from="clean"), "contrastive"), only_clean
    )


@pytest.mark.parametrize("m", [0.1, 1.0])
@pytest.mark.parametrize("order", [[0, 1, 2], [0, 1, 2, 2], [2, 0, 1, 2], [2], []])
def test_momenta_leave_what_the_order_would(order, m):
    statistics = [1.0, -2.0, 5.0]
    expected = 3.0
    for index in order:
        expected = (1 - m) * expected + m * statistics[index]
    found = 3.0
    for value, momentum in zip(statistics, pass_momenta(order, 3)):
        found = (1 - momentum(m)) * found + momentum(m) * value
    assert found == pytest.approx(expected, rel=1e-14)


def test_an_answer_from_batch_statistics_ignores_the_running_ones(small):
    protocol = replace(PAPER, answer_from="batch")
    moved = Adapter(small, protocol, METHODS["rank+gc"])([make_batch(8, 1)])[0]
    still = Adapter(small, replace(protocol, running_from="none"), METHODS["rank+gc"])([make_batch(8, 1)])[0]
    assert torch.equal(moved.adapted, still.adapted)
    assert not torch.allclose(
        moved.adapted, Adapter(small, PAPER, METHODS["rank+gc"])([make_batch(8, 1)])[0].adapted
    )


def test_leaked_state_makes_an_episode_depend_on_the_one_before(small):
    leaking = Adapter(small, replace(RELEASED, leak_state=True), METHODS["rank+gc"])
    first, second = leaking([make_batch(8, 1)])[0], leaking([make_batch(8, 2)])[0]
    clean = Adapter(small, RELEASED, METHODS["rank+gc"])
    assert torch.equal(first.adapted, clean([make_batch(8, 1)])[0].adapted)
    assert not torch.allclose(second.adapted, clean([make_batch(8, 2)])[0].adapted, rtol=1e-6)
    with pytest.raises(ValueError, match="cannot run at once"):
        leaking([make_batch(8, 1), make_batch(8, 2)])
    poisoned = make_batch(8, 3)
    poisoned.pairs[:, 0] = float("nan")
    assert leaking([poisoned])[0].fell_back
    assert torch.equal(
        leaking([make_batch(8, 1)])[0].adapted, first.adapted
    )  # what leaked was broken, so it is dropped


def states(adapter, batch):
    """What adapts and what BN keeps, of a lone episode at the start and after each step."""
    images = stack_batches(adapter.ynet, [batch])
    source = score_source(adapter.ynet, images, adapter.protocol, choose=True)
    steps = adapter.steps(images, source, adapter.groups(images, source), adapter.method.niter)
    return [{n: v.detach().clone() for n, v in (*s.parameters.items(), *s.buffers.items())} for s, _ in steps]


def assert_equal(state, other):
    assert state.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in state.items()
    )


def test_online_goes_on_from_batch_to_batch(small):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    source = states(Adapter(small, PAPER, METHODS["rank+gc"]), make_batch(8, 1))[0]
    adapter = Adapter(small, PAPER, METHODS["online"])
    first, second = states(adapter, make_batch(8, 1)), states(adapter, make_batch(5, 2))
    assert_equal(first[0], source)
    assert_equal(second[0], first[-1])
    steps = [entry["step"].item() for entry in adapter.carried[1].state.values()]
    assert set(steps) == {6.0}  # Adam's moments go on too
    assert_equal(states(Adapter(small, PAPER, METHODS["online"]), make_batch(8, 2))[0], source)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize("protocol", [PAPER, RELEASED])
def test_online_starts_as_rank_gc_and_anew_after_a_broken_batch(small, protocol):
    online, rank_gc = (
        Adapter(small, protocol, METHODS["online"]),
        Adapter(small, protocol, METHODS["rank+gc"]),
    )
    first, second, third = (make_batch(8, seed) for seed in (1, 2, 3))
    assert torch.equal(online([first])[0].adapted, rank_gc([first])[0].adapted)
    outcome, reset = online([second])[0], rank_gc([second])[0]
    assert torch.equal(outcome.source, reset.source) and torch.equal(
        outcome.choice, reset.choice
    )  # still the source's
    assert not torch.allclose(outcome.adapted, reset.adapted, rtol=1e-3)
    with pytest.raises(ValueError, match="cannot run at once"):
        online([first, second])
    poisoned = make_batch(8, 4)
    poisoned.pairs[:, 0] = float("nan")
    broken = online([poisoned])[0]
    assert broken.fell_back and torch.equal(broken.adapted, broken.source)
    assert torch.equal(online([third])[0].adapted, rank_gc([third])[0].adapted)


@pytest.mark.parametrize("method, kind", [("contrastive", "crop"), ("contrique", "contrique")])
def test_contrast_pairs_the_clean_view_with_its_second(small, method, kind):
    batch = make_batch(8, 1)
    (outcome,) = Adapter(small, PAPER, replace(METHODS[method], niter=20))([batch])
    trunk = copy.deepcopy(small).network.trunk.train()
    z, second = (
        torch.sigmoid(small.head(trunk(normalised(x)).mean((2, 3))))
        for x in (batch.clean, batch.second_views[kind])
    )
    assert float(outcome.losses[0]) == pytest.approx(float(nt_xent_loss(z, second, 0.1)), rel=1e-12)
    assert (outcome.losses[1:] < outcome.losses[:-1]).all()


def test_a_new_term_says_which_passes_run_what_they_cost_and_what_they_move(small, monkeypatch):
    """Nothing but its entry in TERMS and a method is needed."""
    value = lambda z, episode, settings: (z["contrique"] - z["clean"]).square().sum() / settings.temperature  # noqa: E731
    monkeypatch.setitem(TERMS, "near", Term(("contrique", "clean"), value))
    method = Method("near", ("rank", "near"))
    assert method.passes == ("low", "high", "contrique", "clean")
    assert (
        method.forwards == 3 * 4 * 2 + 1 and method.types == TYPES and method.second_views == ("contrique",)
    )
    batch = make_batch(8, 1)
    (outcome,) = Adapter(small, PAPER, method)([batch])
    (rank,) = Adapter(small, PAPER, METHODS["rank"])([batch])
    trunk = copy.deepcopy(small).network.trunk.train()
    z, second = (
        torch.sigmoid(small.head(trunk(normalised(x)).mean((2, 3))))
        for x in (batch.clean, batch.second_views["contrique"])
    )
    expected = float(rank.losses[0]) + float((z - second).square().sum()) / PAPER.temperature
    assert float(outcome.losses[0]) == pytest.approx(expected, rel=1e-12)
    images, source, _ = prepared(small, PAPER, METHODS["rank"])
    passes = Adapter(small, PAPER, method).passes(images, source)
    mean = small.network.trunk[1].running_mean
    for x in [*passes.values()] * 3:
        mean = 0.9 * mean + 0.1 * small.network.trunk[0](x).mean((0, 2, 3))
    moved = after_three_steps(small, PAPER, method).buffers["network.trunk.1.running_mean"][0]
    torch.testing.assert_close(moved, mean)


def test_gradients_accumulate_only_where_the_release_does(small):
    once, twice = (
        Adapter(small, replace(PAPER, accumulate_gradients=accumulate), METHODS["gc"])([make_batch(8, 1)])[
            0
        ].losses
        for accumulate in (False, True)
    )
    assert torch.equal(once[:2], twice[:2]) and not torch.equal(once[2], twice[2])


def test_single_types_and_all_of_them(small):
    batch = make_batch(8, 1)
    single = []
    for index, kind in enumerate(TYPES):
        method = replace(METHODS["rank"], distortion=kind, niter=1)
        one = batch._replace(pairs=batch.pairs[[index]], types=(kind,))
        outcome = Adapter(small, PAPER, method)([one])[0]
        assert outcome.choice.tolist() == [index] * 8
        single.append(float(outcome.losses[0]))
    everything = Adapter(small, PAPER, replace(METHODS["rank"], distortion="all", niter=1))([batch])[0]
    assert float(everything.losses[0]) == pytest.approx(sum(single), rel=1e-12)


def test_lambda_weighs_the_group_loss(small):
    batch = make_batch(8, 1)

    def first_loss(method, **changes):
        adapter = Adapter(small, replace(PAPER, **changes), replace(METHODS[method], niter=1))
        return float(adapter([batch])[0].losses[0])

    expected = first_loss("rank") + 3 * first_loss("gc")
    assert first_loss("rank+gc", weight=3.0) == pytest.approx(expected, rel=1e-12)


def test_the_head_depends_on_the_seed_alone(small):
    first = small.head.weight.clone()
    small.draw_head(4)
    assert not torch.allclose(small.head.weight, first) and small.head.weight.abs().max() <= 12**-0.5
    small.draw_head(3)
    assert torch.equal(small.head.weight, first)


def test_rotation_is_cross_entropy_on_the_unsquashed_projection(small):
    batch = make_batch(8, 1)
    (outcome,) = Adapter(small, PAPER, replace(METHODS["rotation"], niter=1))([batch])
    turned = torch.stack(
        [torch.rot90(x, int(k), (1, 2)) for x, k in zip(normalised(batch.clean), batch.quarter_turns)]
    )
    features = copy.deepcopy(small).network.trunk.train()(turned).mean((2, 3))
    expected = F.cross_entropy(small.classifier(small.head(features)), batch.quarter_turns)
    assert float(outcome.losses[0]) == pytest.approx(float(expected), rel=1e-12)


def test_blurred_images_may_be_pseudo_labelled_with_the_clean_images_further_scales(small):
    """With a network that adds the mean of its further scales, those of the blurred images must be the clean
    image's."""
    first_scale = small.network.forward
    small.network.forward = lambda x, others=None: (
        first_scale(x) + (x if others is None else others).mean((1, 2, 3))
    )
    batch = make_batch(8, 1)
    blur = normalised(batch.pairs[TYPES.index("blur")])
    with_own, with_clean = (
        score_source(
            small, stack_batches(small, [batch]), replace(PAPER, blur_first_scale_only=flag), choose=True
        )
        for flag in (False, True)
    )
    torch.testing.assert_close(with_clean.gaps[:, 2], (first_scale(blur[1]) - first_scale(blur[0])).abs())
    torch.testing.assert_close(with_clean.gaps[:, :2], with_own.gaps[:, :2])
    assert not torch.allclose(with_clean.gaps[:, 2], with_own.gaps[:, 2])


@pytest.mark.parametrize(
    "kind, message", [("ln", "no ln to adapt"), ("gn", "no gn to adapt"), ("in", "cannot adapt 'in'")]
)
def test_nothing_to_adapt_is_the_users_mistake(small, kind, message):
    with pytest.raises(UserError, match=message):
        Adapter(small, PAPER, replace(METHODS["gc"], adapt=(kind,)))


def test_a_run_passes_through_the_answers_of_shorter_ones(small):
    images, source, _ = prepared(small, PAPER, METHODS["rank+gc"])
    several = Adapter(small, PAPER, METHODS["rank+gc"]).run(images, source, [0, 1, 3])
    for niter, (outcome,) in zip((0, 1, 3), several):
        ((alone,),) = Adapter(small, PAPER, replace(METHODS["rank+gc"], niter=niter)).run(images, source)
        assert torch.equal(outcome.adapted, alone.adapted) and torch.equal(outcome.losses, alone.losses)
        assert len(outcome.losses) == niter and torch.equal(outcome.adapted, outcome.source) == (niter == 0)
