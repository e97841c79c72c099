"""Training of source networks: what it learns, that it resumes, and that its files can be used."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from common.photographs import Photograph
from common.runs.training import Recipe, Trainer, TrainingState, disjoint, predict, quality_loss
from common.system.errors import UserError
from common.views import View
from common.y import YNetwork
from scripts import reproduce_cell, train_source
from tests.conftest import CUTS, SmallNet
from weights.initial import initial_network
from weights.networks import BACKBONES

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight scenes, each at six levels of two kinds of distortion: something that a network can learn."""
    folder = tmp_path_factory.mktemp("graded")
    rng = np.random.default_rng(0)
    lines = ["image_name,MOS,reference,type"]
    for scene in range(8):
        blocks = rng.integers(40, 216, (5, 6, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(blocks).resize((288, 240), Image.Resampling.NEAREST)).astype(float)
        for level in range(6):
            noisy = image + rng.normal(0, 12 * level, image.shape)
            striped = image + 12 * level * np.cos(np.pi * np.arange(288))[:, None]
            for kind, version in (("noise", noisy), ("stripes", striped)):
                name = f"{scene}_{kind}_{level}.png"
                Image.fromarray(version.clip(0, 255).astype(np.uint8)).save(folder / name)
                lines.append(f"{name},{5 - level},scene{scene},{kind}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def photographs(folder):
    rows = [line.split(",") for line in (folder / "scores.csv").read_text().splitlines()[1:]]
    return [Photograph(name, folder / name, float(mos), group, kind) for name, mos, group, kind in rows]


def small_y():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return YNetwork(SmallNet(), CUTS["resnet"])


def trainer(ynet, photographs, recipe, output=(0.0, 1.0)):
    return Trainer(ynet, disjoint(photographs, recipe.seed), recipe, output=output, test_view=View(size=32))


def test_no_two_parts_share_a_group(photographs):
    parts = disjoint(photographs, 0)
    groups = [{p.group for p in part} for part in parts]
    assert [len(g) for g in groups] == [6, 1, 1] and len(set.union(*groups)) == 8
    assert sum(len(part) for part in parts) == len(photographs)
    assert disjoint(photographs[::-1], 0).test[0].group == parts.test[0].group
    assert len({disjoint(photographs, seed).test[0].group for seed in range(12)}) > 3
    with pytest.raises(UserError, match="2 groups"):
        disjoint([p for p in photographs if p.group in ("scene0", "scene1")], 0)


def test_the_loss_is_least_for_the_right_scores():
    target = torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert float(quality_loss(target, target)) == pytest.approx(0, abs=1e-6)
    assert float(
        quality_loss(-target, target, correlation=1.0) - quality_loss(-target, target, correlation=0.0)
    ) == pytest.approx(2)
    assert quality_loss(torch.zeros(64, requires_grad=True), target).isfinite()


@pytest.mark.parametrize("output", [(0.0, 1.0), (0.5, 0.2)])
def test_a_network_learns_scores_of_scenes_that_it_never_saw(photographs, output):
    recipe = Recipe(epochs=8, crops=4, batch_size=24, view=View(size=32), lr=1e-2)
    ynet = small_y()
    run = trainer(ynet, photographs, recipe, output)
    *_, last = run.epochs()
    scores = predict(ynet, run.parts.test, View(size=32), 0, 0)
    mos = np.array([p.mos for p in run.parts.test])
    assert np.corrcoef(scores, mos)[0, 1] > 0.7
    error = run.scale.mean + run.scale.scale * scores - mos
    assert np.abs(error).mean() < 1.2  # in the unit of the scores, whose mean distance from their mean is 1.5
    assert last.history[0]["loss"] > 1.5 * last.history[-1]["loss"]


@pytest.mark.parametrize("meta", [False, True])
def test_training_resumes_bit_for_bit_whatever_the_workers(photographs, tmp_path, meta):
    recipe = Recipe(
        epochs=3,
        crops=2,
        batch_size=8,
        view=View(size=32),
        meta=meta,
        tasks=2,
        lr=1.0 if meta else 1e-2,
        inner_lr=1e-2,
    )
    whole = small_y()
    *_, last = trainer(whole, photographs, recipe).epochs()
    first = next(trainer(small_y(), photographs, recipe).epochs())
    torch.save(vars(first), tmp_path / "state.pth")
    torch.manual_seed(99)  # what the process did in between must not matter
    resumed = small_y()
    again = trainer(resumed, photographs, recipe)
    again.workers = 2
    *_, end = again.epochs(TrainingState(**torch.load(tmp_path / "state.pth", weights_only=True)))
    assert end.history == last.history and len(end.history) == 3
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert not torch.equal(whole.network.trunk[0].weight, small_y().network.trunk[0].weight)


def test_meta_learning_moves_all_the_way_to_the_mean_of_its_tasks(photographs):
    """With one task, a step of meta-learning is two steps of Adam on it."""
    recipe = Recipe(
        epochs=1,
        crops=1,
        batch_size=8,
        view=View(size=32),
        meta=True,
        tasks=1,
        lr=1.0,
        inner_lr=1e-2,
        warmup=0.0,
    )
    ynet = small_y()
    run = trainer(ynet, photographs, recipe)
    batches = run._task_batches(0, 8)
    kinds = [{run.parts.train[i].kind for i in batch} for batch in batches]
    assert all(len(kind) == 1 for kind in kinds) and kinds[0] == kinds[1]
    by_hand = small_y()
    other = trainer(by_hand, photographs, recipe)
    loaded = list(train_source_batches(other))[:2]
    by_hand.network.train()
    before = torch.random.get_rng_state()
    torch.manual_seed(0)
    adam = torch.optim.Adam(by_hand.network.parameters(), lr=1e-2)
    for batch in loaded:
        adam.zero_grad()
        other._loss(batch).backward()
        adam.step()
    torch.manual_seed(0)
    ynet.network.train()
    run._meta_step(loaded, 1.0)
    torch.random.set_rng_state(before)
    for one, two in zip(ynet.network.parameters(), by_hand.network.parameters()):
        torch.testing.assert_close(one, two)


def train_source_batches(run):
    from common.runs.training import TrainingViews, load

    views = TrainingViews(run.parts.train, run.recipe)
    return load(views, [run._keyed(0, batch) for batch in run._batches(0)], 0)


def test_types_are_needed_for_meta_learning(photographs):
    with pytest.raises(UserError, match="--recipe plain"):
        trainer(small_y(), [replace(p, kind="") for p in photographs], Recipe(meta=True, view=View(size=32)))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_network_trains_and_resumes(photographs, name):
    backbone = BACKBONES[name]
    protocol = backbone.protocols["paper"]
    few = [
        p for p in photographs if p.group in ("scene0", "scene1", "scene2") and p.key.split("_")[2][0] in "05"
    ]
    recipe = Recipe(epochs=2, batch_size=4, view=protocol.view, lr=1e-4)

    def fresh():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            ynet = backbone.wrap(backbone.network(), protocol)
        return ynet, Trainer(ynet, disjoint(few, 0), recipe, output=backbone.output, test_view=protocol.view)

    whole, run = fresh()
    states = []
    for progress in run.epochs():
        states.append({n: v.clone() for n, v in progress.network.items()})
        if progress.epoch == 1:
            saved = replace(progress, network=states[0], optimiser=copied(progress.optimiser))
    resumed, again = fresh()
    list(again.epochs(saved))
    moved = [n for n, p in whole.network.named_parameters() if not torch.equal(p, states[0][n])]
    assert len(moved) > 0.9 * len(list(whole.network.parameters()))
    assert all(torch.equal(value, resumed.network.state_dict()[n]) for n, value in states[1].items())


def copied(optimiser):
    return {
        "state": {i: {n: v.clone() for n, v in state.items()} for i, state in optimiser["state"].items()},
        "param_groups": [dict(group) for group in optimiser["param_groups"]],
    }


def options(folder, output, *more):
    return [
        *(
            "--backbone",
            "metaiqa",
            "--data-root",
            str(folder),
            "--output",
            str(output),
            "--device",
            "cpu",
            "--workers",
            "0",
        ),
        *("--init", "scratch", "--view-size", "64", "--batch-size", "24", "--epochs", "3", *more),
    ]


def test_a_killed_command_resumes_to_the_same_file(folder, tmp_path, capsys):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut/source.safetensors"
    assert train_source.main(options(folder, whole, "--half")) == 0
    card = whole.with_suffix(".md").read_text()
    assert "On held-out groups: SROCC" in card and "python -m scripts.train_source --backbone metaiqa" in card
    assert whole.stat().st_size < 30e6 and not whole.with_suffix(".resume.pth").exists()
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.train_source", *options(folder, cut, "--half")],
        **{"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}, "text": True},
        stdout=subprocess.PIPE,
    )
    while "epoch 2/3" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert cut.with_suffix(".resume.pth").exists() and not cut.with_suffix(".md").exists()
    assert train_source.main(options(folder, cut, "--resume")) == 2
    assert "another half" in capsys.readouterr().err
    assert train_source.main(options(folder, cut, "--half", "--resume")) == 0
    assert "epoch 1/3" not in capsys.readouterr().out
    one, other = load_file(whole), load_file(cut)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    with safe_open(whole, "pt") as file:
        assert float(file.metadata()["score_scale"]) > 0
        assert file.metadata()["scale"] == "MOS of a folder with a CSV file"
    result = tmp_path / "cell.json"
    cell = [
        "--backbone",
        "metaiqa",
        "--data-root",
        str(folder),
        "--weights",
        str(whole),
        "--method",
        "source",
        "--seeds",
        "1",
    ]
    assert reproduce_cell.main([*cell, "--device", "cpu", "--workers", "0", "--json", str(result)]) == 0
    assert json.loads(result.read_text())["n_images"] == 96


def test_imagenet_weights_are_used_where_the_user_has_them(folder, tmp_path, monkeypatch):
    backbone = BACKBONES["metaiqa"]
    hub = tmp_path / "hub/checkpoints"
    hub.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert initial_network(backbone, "auto", 0)[1] == "random weights"
    with torch.random.fork_rng():
        torch.manual_seed(7)
        state = backbone.network().resnet_layer.state_dict()
    torch.save(state, hub / "resnet18-f37072fd.pth")
    network, init = initial_network(backbone, "auto", 0)
    assert init == "resnet18-f37072fd.pth"
    assert all(torch.equal(value, state[name]) for name, value in network.resnet_layer.state_dict().items())
    again, _ = initial_network(backbone, "scratch", 0)
    assert torch.equal(network.net.fc1.weight, again.net.fc1.weight)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--output", "x.pth"], "ends in .safetensors"),
        (["--distil-epochs", "2"], "give --teacher"),
        (["--features", "layer4"], "--features and --size belong to --model"),
        (["--backbone", "hyperiqa", "--view-size", "100"], "does not take images of 100 x 100"),
        (["--init", "absent.pth"], "absent.pth: no such checkpoint"),
    ],
)
def test_mistakes_get_one_line(folder, tmp_path, capsys, more, message):
    assert train_source.main(options(folder, tmp_path / "x.safetensors", *more)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_official_split_is_kept_and_no_group_is_on_both_sides(photographs):
    groups = sorted({p.group for p in photographs})
    held_out = {groups[0]: "test", groups[1]: "validation"}
    official = [replace(p, split=held_out.get(p.group, "train")) for p in photographs]
    parts = disjoint(official, 0)
    assert {p.group for p in parts.test} == {groups[0]} and {p.group for p in parts.validation} == {groups[1]}
    assert len(parts.train) == len(photographs) - len(parts.test) - len(parts.validation)
    only_test = [replace(p, split="test" if p.group == groups[0] else "train") for p in photographs]
    parts = disjoint(only_test, 0)
    assert {p.group for p in parts.test} == {groups[0]} and 0 < len({p.group for p in parts.validation}) < 3
    with pytest.raises(UserError, match="in test and train part of the official split"):
        disjoint([*official, replace(official[0], split="test"), replace(official[0], split="train")], 0)
