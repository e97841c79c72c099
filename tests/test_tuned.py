"""Ladders on scores, statistics anchored to the source, streams, and the decision among candidates."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from common.adapter import Adapter, score_source, stack_batches
from common.batches import collate
from common.choice import reliability
from common.distortions import LADDERS, distort
from common.losses import ladder_loss
from common.photographs import Photograph
from common.protocols import METHODS, PAPER, TUNED, Method, Setting, Tuned
from common.runs.metrics import agreement
from common.runs.tuned import alone, decide_on, run_tuned, views
from common.stream import Streamed
from common.views import View
from data.csv_folder import DATASET
from data.dataset import read_dataset
from data.demo import FAULTS, versions, write
from tests.conftest import make_batch, make_small
from weights.trained import SHIPPED, trained_source

LADDER = Method("ladder", ("ladder",), reset=False, distortion="noise", niter=1)
STILL = replace(PAPER, steps_from="running", running_from="none")
CLEAN = replace(PAPER, running_from="clean", momentum=0.1)


def small_tuned(**settings) -> Tuned:
    """TUNED on views of 32 pixels."""
    found = replace(
        TUNED,
        candidates=tuple(
            Setting(replace(protocol, view=View(size=32)), method) for protocol, method in TUNED.candidates
        ),
    )
    return replace(found, **settings)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    found = []
    for index in range(44):
        rng = np.random.default_rng(index)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        path = folder / f"{index}.png"
        coarse.resize((48, 48), Image.Resampling.BICUBIC).save(path)
        found.append(Photograph(path.name, path, float(index)))
    return found


def plain_y():
    return make_small().float()


def test_the_ladder_loss_by_hand():
    q, high, low = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])
    expected = (2 * math.log(1 + math.exp(-2)) + 2 * math.log(2)) / 2
    assert float(ladder_loss(q, high, low, 0.5)) == pytest.approx(expected)


def test_ladders_raise_the_order_of_scores_and_leave_statistics(small):
    batch = make_batch(6, 1, ("noise",))
    images = stack_batches(small, [batch])
    source = score_source(small, images, STILL, False)
    adapter = Adapter(small, replace(STILL, lr=1e-2), replace(LADDER, niter=20))
    states = [
        (
            {n: v.detach().clone() for n, v in state.parameters.items()},
            {n: b.clone() for n, b in state.buffers.items()},
            losses.clone(),
        )
        for state, losses in adapter.steps(images, source, [None], 20)
    ]
    losses = states[-1][2][:, 0]
    spread = source.scores.std(correction=0)
    with torch.no_grad():
        passes = [small.predict(small.normalised(x)) for x in (images.clean, *images.pairs[0])]
    assert float(losses[0]) == pytest.approx(
        float(ladder_loss(*passes, 0.3 * spread))
    )  # eval mode: the source
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(states[0][1][name], states[-1][1][name]) for name in states[0][1])
    assert any(not torch.equal(states[0][0][name], states[-1][0][name]) for name in states[0][0])


def test_statistics_move_by_their_own_momentum_and_answer_with_their_share(small):
    images = stack_batches(small, [make_batch(6, 2)])
    source = score_source(small, images, PAPER, False)
    method = replace(METHODS["bn-stats"], niter=1)

    def after(**settings):
        adapter = Adapter(small, replace(CLEAN, **settings), method)
        *_, (state, _) = adapter.steps(images, source, [None], 1)
        return adapter._anchored(state).buffers["network.trunk.1.running_mean"][0]

    own = small.network.trunk[1].running_mean
    whole = after(momentum=1.0)
    torch.testing.assert_close(after(momentum=0.25), own.lerp(whole, 0.25))
    torch.testing.assert_close(after(momentum=1.0, alpha=0.25), own.lerp(whole, 0.25))
    assert torch.equal(after(momentum=1.0, alpha=0.0), own)


def test_a_stream_goes_on_from_batch_to_batch_and_leaves_the_source(small):
    batches = [make_batch(6, seed, ("noise",)) for seed in (1, 2, 3)]
    before = {name: value.clone() for name, value in small.state_dict().items()}
    setting = Setting(replace(CLEAN, lr=1e-2), replace(LADDER, losses=("statistics", "ladder")))
    streamed = Streamed(small, setting, batches)
    online = Adapter(small, *setting)
    for batch in batches:
        (last,) = online([batch])
    (outcome,) = streamed([batches[-1]])
    torch.testing.assert_close(outcome.adapted, last.adapted)
    assert torch.equal(outcome.source, last.source) and not torch.allclose(outcome.source, outcome.adapted)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert small.training is False and not any(p.requires_grad for p in small.parameters())


def test_one_kind_is_drawn_of_several_and_alike_for_both_levels():
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    drawn = set()
    for key in map(str, range(24)):
        for level in ("high", "low"):
            mixed = distort(image, "noise+blur", level, LADDERS, 0, key)
            own = {kind: distort(image, kind, level, LADDERS, 0, key) for kind in ("noise", "blur")}
            (kind,) = (kind for kind, copy in own.items() if np.array_equal(mixed, copy))
            drawn.add((key, kind))
    assert len(drawn) == 24 and {kind for _, kind in drawn} == {"noise", "blur"}


def test_the_decision_is_by_agreement_and_margin(photographs):
    every = run_tuned(plain_y(), photographs, small_tuned(margin=0.0), seeds=[0, 1])
    for decision in every.decisions:
        found = dict(decision.reliability)
        assert list(found) == ["source", *(c.method.name for c in TUNED.candidates)]
        assert found[decision.chosen] == max(found.values())
    strict = run_tuned(plain_y(), photographs, small_tuned(margin=2.0), seeds=[0])
    assert strict.decisions[0].chosen == "source"
    np.testing.assert_array_equal(strict.scores.adapted, strict.scores.source)
    few = run_tuned(plain_y(), photographs[:31], small_tuned(margin=-2.0), seeds=[0])
    assert few.decisions[0].chosen == "source" and "too few" in few.decisions[0].sentence()
    for one in alone(small_tuned()):
        forced = run_tuned(plain_y(), photographs, one, seeds=[0])
        assert forced.decisions[0].chosen == one.name in forced.decisions[0].sentence()
        assert not np.array_equal(forced.scores.adapted, forced.scores.source)


def test_agreement_is_the_rank_correlation_of_two_views():
    a = np.arange(10.0)
    assert reliability(np.stack((a, a**3))) == pytest.approx(1)
    assert reliability(np.stack((a, -a))) == pytest.approx(-1)
    assert math.isnan(reliability(np.stack((a, np.ones(10)))))
    assert math.isnan(reliability(np.stack((a, np.full(10, np.nan)))))


def test_a_candidate_that_breaks_is_not_chosen(photographs):
    protocol, method = small_tuned().candidates[0]
    broken = small_tuned(candidates=(Setting(replace(protocol, lr=1e30), method),), margin=-2.0)
    run = run_tuned(plain_y(), photographs, broken, seeds=[0])
    assert run.decisions[0].chosen == "source" and np.isfinite(run.scores.adapted).all()


def test_no_label_is_read_and_a_second_run_is_the_same(photographs):
    others = [replace(photograph, mos=-(photograph.mos**2), group="") for photograph in photographs]
    runs = [
        run_tuned(plain_y(), these, small_tuned(margin=-2.0), seeds=[0])
        for these in (photographs, others, photographs)
    ]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.scores.adapted, runs[0].scores.adapted)
        assert run.decisions == runs[0].decisions


def test_only_the_first_images_are_adapted_on(photographs):
    (one, *_) = alone(small_tuned(adapt_on=8))
    (other, *_) = alone(small_tuned(adapt_on=40))
    short, long = (run_tuned(plain_y(), photographs, tuned, seeds=[0]).scores for tuned in (one, other))
    assert not np.array_equal(short.adapted, long.adapted)
    np.testing.assert_array_equal(short.source, long.source)


def test_images_that_were_judged_are_not_scored_again(photographs, monkeypatch):
    (tuned, *_) = alone(small_tuned())
    decision, streamed = decide_on(plain_y(), photographs, tuned, range(40), 0)
    batch = collate([views(photographs, tuned, 0)[n] for n in (3, 5, 8)])
    (found,) = streamed([batch])
    known, streamed.known = streamed.known, {}
    (again,) = streamed([batch])
    torch.testing.assert_close((found.source, found.adapted), (again.source, again.adapted))
    assert decision.adapted and not torch.equal(found.source, found.adapted)
    streamed.known = known
    monkeypatch.setattr(Streamed, "predict", None)
    assert sorted(known) == list(range(40)) and len(streamed([batch, batch])) == 2


def test_tuned_does_not_fall_below_the_source_on_the_demos_target(tmp_path):
    write(tmp_path, versions(FAULTS["light"]))
    target = read_dataset(DATASET, tmp_path).photographs
    ynet = trained_source(SHIPPED).ynet
    scores = run_tuned(ynet, target, TUNED, seeds=[0], workers=2).scores
    mos = np.array([photograph.mos for photograph in target])
    before, after = (agreement(own[0], mos)["srocc"] for own in (scores.source, scores.adapted))
    assert before > 0.2 and after >= before - 0.005
