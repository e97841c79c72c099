"""Your own photographs: every kind of file, interruptions, averaged views, and the guard."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from common.adapter import Adapter, Outcome
from common.batches import Views, shuffled
from common.photographs import Photograph, read_rgb
from common.protocols import METHODS, PAPER, TUNED, Setting
from common.runs.cell import run_cells
from common.runs.guard import kept_order
from common.runs.scoring import ScoredBatch, ScoreFile, score_batches
from common.system.errors import UserError
from common.views import View, grid
from common.wrap import wrap
from data.collect import collect
from data.csv_folder import DATASET
from data.dataset import read_dataset
from scripts import score_images
from scripts.run import score_images as score_images_run
from tests.conftest import SmallNet
from weights.loading import load_weights, save_weights
from weights.networks import BACKBONES
from weights.trained import SHIPPED, trained_source

ROOT = Path(__file__).parent.parent
MODEL = [
    "--model",
    "tests.test_score_images:network",
    "--features",
    "trunk",
    "--size",
    "32",
    "--device",
    "cpu",
    "--workers",
    "0",
]

PAPER_PROTOCOL = ["--protocol", "paper"]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return SmallNet()


def picture(path, mode="RGB", size=(48, 40), **options):
    rng = np.random.default_rng(list(path.name.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    coarse.convert(mode).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    for n in range(20):
        picture(tmp_path / f"photos/{n:02}.png")
    return tmp_path / "photos"


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(folder, output, *more):
    return score_images.main([str(folder), "--output", str(output), *MODEL, *more])


def test_every_kind_of_file(tmp_path, capsys):
    folder = tmp_path / "photos"
    for name, mode in (
        ("a.jpg", "RGB"),
        ("deep/b.JPG", "CMYK"),
        ("c.png", "P"),
        ("d.png", "RGBA"),
        ("e.gif", "L"),
        ("f.webp", "RGB"),
    ):
        picture(folder / name, mode)
    picture(folder / "small.png", size=(9, 7))
    picture(folder / "whole.jpg", size=(300, 300))
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:900])
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no image")
    (folder / "lost.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "notes.txt").write_text("not asked for")
    (folder / ".hidden.jpg").write_text("nor this")
    assert run(folder, tmp_path / "s.csv", "--batch-size", "4", *PAPER_PROTOCOL) == 1
    rows = {Path(row["image"]).name: row for row in table(tmp_path / "s.csv")}
    bad = {"cut.jpg", "empty.jpg", "text.png", "lost.jpg"}
    assert set(rows) == bad | {
        "a.jpg",
        "b.JPG",
        "c.png",
        "d.png",
        "e.gif",
        "f.webp",
        "small.png",
        "whole.jpg",
    }
    for name, row in rows.items():
        assert (row["source_score"] == "") == (row["adapted_score"] == "") == (name in bad), row
    assert all(rows[name]["notes"] for name in bad) and "no such image" in rows["lost.jpg"]["notes"]
    assert (rows["small.png"]["width"], rows["small.png"]["height"]) == ("9", "7") and "scaled up" in rows[
        "small.png"
    ]["notes"]
    assert list(rows) == [
        Path(row["image"]).name for row in sorted(rows.values(), key=lambda row: row["image"])
    ]
    assert "8 of 12 images" in capsys.readouterr().out


def test_scores_are_those_of_a_cell_and_so_are_the_correlations(folder, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text("image_name,MOS\n" + "".join(f"photos/{n:02}.png,{(n * 7) % 20}\n" for n in range(20)))
    assert run(labels, tmp_path / "s.csv", "--json", str(tmp_path / "s.json"), *PAPER_PROTOCOL) == 0
    photographs = read_dataset(DATASET, labels).photographs
    protocol = replace(PAPER, view=View(size=32))
    ynet = wrap(network(), "trunk", size=32)
    (cell,) = run_cells(ynet, photographs, [Setting(protocol, METHODS["rank+gc"])], seeds=[0], progress=False)
    rows = table(tmp_path / "s.csv")
    for column, expected in (("source_score", cell.source), ("adapted_score", cell.adapted)):
        assert [float(row[column]) for row in rows] == expected[0].tolist()
    found = json.loads((tmp_path / "s.json").read_text())
    srocc = found["agreement"]["adapted"]["srocc"]["mean"]
    assert f"{srocc:.4f}" in capsys.readouterr().out
    assert found["movement"]["episodes"] == 3


def test_crops_are_averaged(folder, tmp_path):
    scores = {}
    for name, options in (("0", ["--seed", "0"]), ("1", ["--seed", "1"]), ("both", ["--crops", "2"])):
        assert run(folder, tmp_path / f"{name}.csv", "--method", "none", *options) == 0
        scores[name] = np.array([float(row["source_score"]) for row in table(tmp_path / f"{name}.csv")])
    np.testing.assert_allclose(scores["both"], (scores["0"] + scores["1"]) / 2, rtol=1e-6)
    assert not np.allclose(scores["0"], scores["1"])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_keeps_what_it_had_and_goes_on(folder, tmp_path, capsys, how):
    arguments = [str(folder), *MODEL, "--batch-size", "3", "--crops", "3", "--guard", "0.9", *PAPER_PROTOCOL]
    program = [sys.executable, "-m", "scripts.score_images", *arguments]
    output, partial = tmp_path / "s.csv", tmp_path / "s.csv.partial"
    process = subprocess.Popen(
        [*program, "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (partial.exists() and partial.read_text().count("\n") > 3):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), error
    kept = table(output)
    assert 0 < len(kept) < 20 and all(row["adapted_score"] for row in kept)
    with partial.open("a") as file:
        file.write('{"batch": 9, "ro')
    arguments[1:1] = ["--output"]
    assert (
        score_images.main([arguments[0], "--output", str(output), *arguments[2:], "--resume", "--seed", "1"])
        == 2
    )
    assert score_images.main([arguments[0], "--output", str(output), *arguments[2:], "--resume"]) == 0
    assert score_images.main([arguments[0], "--output", str(tmp_path / "whole.csv"), *arguments[2:]]) == 0
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes() and not partial.exists()
    again = {row["image"]: row for row in table(output)}
    assert all(again[row["image"]] == row for row in kept)
    finished = output.read_bytes()
    assert score_images.main([arguments[0], "--output", str(output), *arguments[2:], "--resume"]) == 0
    assert output.read_bytes() == finished and "is complete" in capsys.readouterr().out
    partial.write_text("no json\n")
    assert score_images.main([arguments[0], "--output", str(output), *arguments[2:], "--resume"]) == 2
    partial.touch()


def test_the_guard_keeps_the_sources_scores(folder, tmp_path, capsys):
    """Above 1 it keeps them all; below -1 none."""
    assert run(folder, tmp_path / "all.csv", "--guard", "1.5", *PAPER_PROTOCOL) == 0
    rows = table(tmp_path / "all.csv")
    assert all(
        row["source_score"] == row["adapted_score"] and "lost the source's order" in row["notes"]
        for row in rows
    )
    assert "in 3 of 3 episodes" in capsys.readouterr().err
    assert run(folder, tmp_path / "few.csv", "--guard", "--batch-size", "2", *PAPER_PROTOCOL) == 0
    rows = table(tmp_path / "few.csv")
    assert all(
        row["source_score"] == row["adapted_score"] and "too few images" in row["notes"] for row in rows
    )
    assert run(folder, tmp_path / "none.csv", "--guard", "-1.5", *PAPER_PROTOCOL) == 0
    assert all(
        row["source_score"] != row["adapted_score"] and not row["notes"]
        for row in table(tmp_path / "none.csv")
    )
    assert "order (SROCC" not in capsys.readouterr().err


def test_notes_speak_of_the_crops_that_they_concern():
    """Of three crops one loses the order."""
    scored = ScoredBatch(0, crops=3)
    source, turned = torch.tensor([1.0, 2, 3]), torch.tensor([3.0, 2, 1])
    for adapted in (source, turned, source):
        outcome = Outcome(source, adapted, torch.empty(0), torch.empty(0), True, False)
        scored.record([0, 1, 2], outcome, guard=0.5)
    assert scored.remarks() == [
        "batch too small for the group loss",
        "adaptation lost the source's order: the source's score (1 of 3 crops)",
    ]


@pytest.fixture
def eager(monkeypatch):
    """A Tuned for a few images that adapts whatever the agreement."""
    eager = replace(TUNED, adapt_on=8, judge_on=13, batch_size=4, least=8, margin=-2.0)
    monkeypatch.setattr(score_images_run, "TUNED", eager)
    return eager


def test_tuned_decides_by_the_first_images_that_can_be_read(folder, tmp_path, capsys, eager):
    """And says so; its scores are those of the candidate that it names."""
    bad = shuffled(collect([str(folder)]).photographs, 0)[0]
    (folder / f"{bad:02}.png").write_bytes(b"")
    assert run(folder, tmp_path / "s.csv", "--json", str(tmp_path / "s.json"), "--batch-size", "4") == 1
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "s.json").read_text())["decision"]
    chosen, reliability = found["chosen"], found["reliability"]
    assert found["images"] == 12 and set(reliability) == {"source", *(m.name for _, m in eager.candidates)}
    assert chosen == eager.candidates[-1].method.name
    line = f"adapted by {chosen}: agreement between two views of 12 images {reliability['source']:.3f} before"
    assert f"{line}, {reliability[chosen]:.3f} after" in printed
    rows = table(tmp_path / "s.csv")
    assert rows.pop(bad)["notes"] and all(row["adapted_score"] != row["source_score"] for row in rows)
    assert run(folder, tmp_path / "none.csv", "--method", "none") == 1
    plain = table(tmp_path / "none.csv")
    del plain[bad]
    assert all(row["adapted_score"] == row["source_score"] for row in plain)
    before = [[float(row["source_score"]) for row in own] for own in (rows, plain)]
    np.testing.assert_allclose(*before, rtol=1e-5)


def test_tuned_goes_on_after_an_interruption_with_the_same_bytes(
    folder, tmp_path, capsys, eager, monkeypatch
):
    assert run(folder, tmp_path / "whole.csv", "--batch-size", "4") == 0
    add = ScoreFile.add

    def interrupted(self, scored, rows):
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        add(self, scored, rows)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreFile, "add", interrupted)
        assert run(folder, tmp_path / "s.csv", "--batch-size", "4") == 130
    assert len(table(tmp_path / "s.csv")) == 8
    capsys.readouterr()
    assert run(folder, tmp_path / "s.csv", "--batch-size", "4", "--resume", "--seed", "1") == 2
    assert run(folder, tmp_path / "s.csv", "--batch-size", "4", "--resume") == 0
    assert "adapted by" in capsys.readouterr().out
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_complete_output_is_not_overwritten_unasked(folder, tmp_path, capsys):
    output = tmp_path / "s.csv"
    output.write_text("mine")
    assert run(folder, output) == 2 and output.read_text() == "mine"
    error = capsys.readouterr().err
    assert "--overwrite" in error and "--resume" in error
    assert run(folder, output, "--overwrite") == 0 and len(table(output)) == 20


def test_plain_scores_are_the_mean_over_a_fixed_grid(tmp_path, capsys):
    """Of 100 x 40 pixels 3 x 2 places of 32 x 32; and nothing is written."""
    picture(tmp_path / "a.png", size=(100, 40))
    picture(tmp_path / "small.png", size=(20, 25))
    (tmp_path / "bad.png").touch()
    given = [str(tmp_path / name) for name in ("a.png", "small.png")]
    assert score_images.main([*given, *MODEL]) == 0
    printed, said = capsys.readouterr()
    assert said.count("\n") == 1 and "the network's own output, higher is better" in said
    assert score_images.main([*given, *MODEL]) == 0 and capsys.readouterr().out == printed
    lines = [line.split() for line in printed.splitlines()]
    assert [name for _, name in lines] == given
    assert score_images.main([*given, str(tmp_path / "bad.png"), *MODEL, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["images"]
    assert found[2]["score"] is None and "cannot be read" in found[2]["notes"]
    assert [f"{image['score']:.4f}" for image in found[:2]] == [score for score, _ in lines]
    pixels = torch.tensor(read_rgb(tmp_path / "a.png")).permute(2, 0, 1) / 255
    assert len(grid(View(32, crop="whole"), 40, 100)) == 1
    places = [pixels[:, top : top + 32, left : left + 32] for top in (0, 8) for left in (0, 34, 68)]
    ynet = wrapped()
    expected = ynet.predict(ynet.normalised(torch.stack(places))).mean()
    assert found[0]["score"] == pytest.approx(float(expected), rel=1e-5)
    assert score_images.main([*given, *MODEL, "--crops", "2"]) == 2
    assert "--crops belongs to --output" in capsys.readouterr().err


def test_the_source_that_ships_scores_alike_whether_it_was_tried_or_not():
    x = torch.rand(2, 3, 224, 224)
    plain, tried = (trained_source(SHIPPED, plain=plain).ynet for plain in (True, False))
    with torch.no_grad():
        assert torch.equal(plain.predict(plain.normalised(x)), tried.predict(tried.normalised(x)))
    with pytest.raises(ValueError, match="only scores"):
        plain.features(x)


def test_a_file_of_train_source_is_enough_and_gives_scores_on_its_scale(tmp_path, capsys, monkeypatch):
    """The one that ships is taken where none is named. A weakened copy says what scale its scores have."""
    picture(tmp_path / "a.png", size=(240, 230))
    weights = ROOT / "weights/demo/metaiqa.safetensors"
    network = BACKBONES["metaiqa"].network()
    load_weights(network, weights)
    about = {"backbone": "metaiqa", "score_mean": "10.0", "score_scale": "100.0", "scale": "MOS of a test"}
    save_weights(tmp_path / "own.safetensors", network.state_dict(), about)
    save_weights(tmp_path / "bare.safetensors", network.state_dict(), {})
    monkeypatch.setattr(score_images_run, "SHIPPED", tmp_path / "own.safetensors")
    scores = []
    for options in (
        [],
        ["--weights", str(tmp_path / "own.safetensors")],
        ["--weights", str(tmp_path / "own.safetensors"), "--backbone", "metaiqa"],
        ["--weights", str(tmp_path / "bare.safetensors"), "--backbone", "metaiqa"],
    ):
        output = ["--output", str(tmp_path / "s.csv"), "--overwrite", "--workers", "0"]
        assert score_images.main([str(tmp_path / "a.png"), *output, *options]) == 0
        (row,) = table(tmp_path / "s.csv")
        scores.append((float(row["source_score"]), row["scale_higher_is_better"]))
    assert scores[0] == scores[1] == scores[2] == (10 + 100 * scores[3][0], "MOS of a test")
    assert scores[3][1] == "the network's own output"
    assert capsys.readouterr().err.count("no network was named: metaiqa with") == 1


def test_kept_order():
    def of(source, adapted):
        scores = (torch.tensor(values, dtype=torch.float64) for values in (source, adapted))
        return kept_order(Outcome(*scores, torch.empty(0), torch.empty(0), False, False))

    assert of([1, 2, 3, 4], [5, 6, 7, 9]) == pytest.approx(1) and of(
        [1, 2, 3, 4], [9, 7, 6, 5]
    ) == pytest.approx(-1)
    assert of([1, 2, 3, 4], [2, 1, 3, 4]) == pytest.approx(0.8) and of([1, 2, 3], [4, 4, 4]) == 0
    assert np.isnan(of([1, 2], [1, 2])) and np.isnan(of([3, 3, 3], [1, 2, 3]))


def test_best_and_worst(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "s.csv", "--top", "2", *PAPER_PROTOCOL) == 0
    printed = capsys.readouterr().out
    ranked = [
        row["image"] for row in sorted(table(tmp_path / "s.csv"), key=lambda row: float(row["adapted_score"]))
    ]
    best, worst = printed.split("worst:")
    assert ranked[-1] in best and ranked[-2] in best and ranked[0] in worst and ranked[1] in worst


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--size", "32"], "belong to --model"),
        (
            [*MODEL, "--method", "gc"],
            "--method is of the protocols that adapt to a batch",
        ),
        ([*MODEL, "--guard"], "--guard is of the protocols"),
        ([*MODEL, "--running-from", "all"], "--running-from is of the protocols"),
        ([*MODEL, "--protocol", "released"], "give --backbone"),
        ([*MODEL, "--resume", "--overwrite"], "not allowed with"),
        (["--weights", "photos/00.png"], "does not say what network it is of"),
        (["--backbone", "tres", *MODEL], "either --backbone"),
        (["--backbone", "tres"], "no --weights"),
        (["--model", "tests.test_score_images"], "package.module:function"),
        (["--model", "tests.nowhere:network"], "tests.nowhere"),
        (["--model", "tests.test_score_images:nothing"], "nothing"),
        (["--model", "tests.test_score_images:table_of"], "returned a dict"),
        (["--model", "tests.test_score_images:network"], "its parts are trunk"),
        ([*MODEL, "--features", "trunc"], "did you mean 'trunk'"),
        (["nowhere/*.jpg", *MODEL], "nowhere/*.jpg"),
        (["--model", ":network"], "package.module:function"),
        (["--model", "timm:create_model"], "timm.list_models()"),
        (["--model", "tests.test_score_images:wrapped", "--features", "trunk"], "wrapped already"),
        (
            ["--backbone", "metaiqa", "--size", "32", "--weights", "weights/demo/metaiqa.safetensors"],
            "belong to --model",
        ),
        ([*MODEL, "--guard", "nan"], "finite"),
        ([*MODEL, "--json", "photos/00.png"], "does not end in .json"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, capsys, arguments, message):
    assert score_images.main([str(folder), "--output", str(tmp_path / "s.csv"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "s.csv").exists()


def table_of():
    return {}


def wrapped():
    return wrap(network(), "trunk", size=32)


class Moody(nn.Module):
    """A map of one pixel in the extractor, and no score for black images."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Tanh())
        self.regressor = nn.Linear(6, 1)

    def forward(self, x):
        score = self.regressor(self.trunk(x).flatten(1))
        return torch.where(x.amax((1, 2, 3), keepdim=True).flatten(1) < -1.5, torch.nan, score)


def moody():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Moody()


def test_one_image_and_one_without_a_score(tmp_path):
    """A batch of one on a map of one pixel; and a network that fails on one image of a batch."""
    for n in range(4):
        picture(tmp_path / f"photos/{n}.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "photos/black.png")
    model = [
        "--model",
        "tests.test_score_images:moody",
        "--features",
        "trunk",
        "--size",
        "32",
        "--device",
        "cpu",
        "--workers",
        "0",
    ]
    given = [str(tmp_path / "photos"), "--output", str(tmp_path / "s.csv"), *model, *PAPER_PROTOCOL]
    for size in ("1", "8"):
        assert score_images.main([*given, "--batch-size", size, "--overwrite"]) == 1
        rows = {Path(row["image"]).name: row for row in table(tmp_path / "s.csv")}
        assert "not finite" in rows.pop("black.png")["notes"] and all(
            row["adapted_score"] for row in rows.values()
        )


def test_tuned_decides_without_an_image_that_has_no_score(folder, tmp_path, monkeypatch, eager):
    monkeypatch.setattr(score_images_run, "TUNED", replace(eager, judge_on=20))
    Image.new("RGB", (40, 40)).save(folder / "00.png")
    model = ["--model", "tests.test_score_images:moody", *MODEL[2:]]
    written = ["--output", str(tmp_path / "s.csv"), "--json", str(tmp_path / "s.json")]
    assert score_images.main([str(folder), *written, *model]) == 1
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["scored"] == found["decision"]["images"] == 19
    assert found["decision"]["chosen"] != "source"


def test_several_episodes_at_once_and_loader_processes_change_nothing(folder, tmp_path):
    """With batches of different sizes, one of them unreadable."""
    paths = sorted(folder.iterdir())
    for path in paths[4:8]:
        path.write_bytes(b"")
    photographs = [Photograph(path.name, path) for path in paths]
    batches = list(
        enumerate([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 7, 11], [12, 13], [14, 15, 16, 17, 18, 19]])
    )
    protocol, method = replace(PAPER, view=View(size=32)), METHODS["rank+gc"]
    adapter = Adapter(wrapped().double(), protocol, method)
    views = [Views(photographs, seed, protocol.view, method.types) for seed in range(2)]
    found = [
        list(score_batches(adapter, views, batches, at_once=at_once, workers=workers))
        for at_once, workers in ((1, 0), (3, 2))
    ]
    for one, other in zip(*found):
        assert one.source.keys() == other.source.keys() and one.faults == other.faults
        for which in ("source", "adapted"):
            a, b = (list(getattr(batch, which).values()) for batch in (one, other))
            np.testing.assert_allclose(a, b, rtol=1e-9)
    assert (
        not found[0][1].source and set(found[0][1].faults) == {4, 5, 6, 7} and set(found[0][2].faults) == {7}
    )


def test_an_image_is_the_same_however_it_is_given(folder, tmp_path):
    """By folder, pattern or list, through a link, once for all; and its MOS is found."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more/linked").symlink_to(folder)
    (tmp_path / "more/loop.png").symlink_to("loop.png")
    labels = folder / "labels.csv"
    labels.write_text("image_name,MOS\n" + "".join(f"{n:02}.png,{n}\n" for n in range(20)))
    by_folder = collect([str(folder)]).photographs
    by_pattern = collect([f"{folder}/**/*.png", str(folder)]).photographs
    _, by_list, lists = collect([str(folder), str(labels)])
    assert (
        [image.key for image in by_folder]
        == [image.key for image in by_pattern]
        == [f"{n:02}.png" for n in range(20)]
    )
    assert [image.mos for image in by_list] == list(range(20)) and lists == [labels]
    linked = collect([str(tmp_path / "more")]).photographs
    assert [image.key for image in linked] == [f"linked/{n:02}.png" for n in range(20)] + ["loop.png"]
    labels.write_text("image_name,MOS\n00.png,1\n00.png,2\n")
    with pytest.raises(UserError, match="named more than once"):
        collect([str(labels)])
    labels.write_text("image_name,MOS\n00.png,good\n")
    with pytest.raises(UserError, match="MOS good"):
        collect([str(labels)])


def test_nothing_that_is_read_is_overwritten(folder, capsys):
    labels, weights = folder / "labels.csv", folder / "w.pth"
    labels.write_text("image_name\n00.png\n")
    torch.save(network().state_dict(), weights)
    for target in (folder / "00.png", labels, weights):
        given = [str(folder), str(labels), "--weights", str(weights), "--output", str(target)]
        before = target.read_bytes()
        assert score_images.main([*given, *MODEL]) == 2
        assert "read by this very command" in capsys.readouterr().err and target.read_bytes() == before
    empty = folder.parent / "empty"
    empty.mkdir()
    assert run(empty, folder.parent / "s.csv") == 2 and "no image in" in capsys.readouterr().err
