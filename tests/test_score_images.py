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

from common.adapter import Outcome
from common.cell import Setting, run_cells
from common.protocols import METHODS, PAPER
from common.scoring import kept_order
from common.views import View
from common.wrap import wrap
from data.csv_folder import DATASET
from data.dataset import read
from scripts import score_images
from tests.conftest import SmallNet

ROOT = Path(__file__).parent.parent
MODEL = ["--model", "tests.test_score_images:network", "--features", "trunk", "--size", "32", "--device", "cpu", "--workers", "0"]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return SmallNet()


def picture(path, mode="RGB", size=(48, 40), **options):
    rng = np.random.default_rng(list(path.name.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
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
    assert run(folder, tmp_path / "s.csv", "--batch-size", "4") == 1
    rows = {Path(row["image"]).name: row for row in table(tmp_path / "s.csv")}
    bad = {"cut.jpg", "empty.jpg", "text.png", "lost.jpg"}
    assert set(rows) == bad | {"a.jpg", "b.JPG", "c.png", "d.png", "e.gif", "f.webp", "small.png", "whole.jpg"}
    for name, row in rows.items():
        assert (row["source_score"] == "") == (row["adapted_score"] == "") == (name in bad), row
    assert all(rows[name]["notes"] for name in bad) and "no such image" in rows["lost.jpg"]["notes"]
    assert (rows["small.png"]["width"], rows["small.png"]["height"]) == ("9", "7") and "scaled up" in rows["small.png"]["notes"]
    assert list(rows) == [Path(row["image"]).name for row in sorted(rows.values(), key=lambda row: row["image"])]
    assert "8 of 12 images" in capsys.readouterr().out


def test_scores_are_those_of_a_cell_and_so_are_the_correlations(folder, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text("image_name,MOS\n" + "".join(f"photos/{n:02}.png,{(n * 7) % 20}\n" for n in range(20)))
    assert run(labels, tmp_path / "s.csv", "--json", str(tmp_path / "s.json")) == 0
    photographs = read(DATASET, labels).photographs
    protocol = replace(PAPER, view=View(size=32))
    y = wrap(network(), "trunk", size=32)
    (cell,) = run_cells(y, photographs, [Setting(protocol, METHODS["rank+gc"])], seeds=[0], progress=False)
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
def test_an_interrupted_run_keeps_what_it_had_and_goes_on(folder, tmp_path, how):
    arguments = [str(folder), *MODEL, "--batch-size", "2", "--crops", "3", "--guard", "0.9"]
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
    assert score_images.main([arguments[0], "--output", str(output), *arguments[2:], "--resume", "--seed", "1"]) == 2
    assert score_images.main([arguments[0], "--output", str(output), *arguments[2:], "--resume"]) == 0
    assert score_images.main([arguments[0], "--output", str(tmp_path / "whole.csv"), *arguments[2:]]) == 0
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes() and not partial.exists()
    again = {row["image"]: row for row in table(output)}
    assert all(again[row["image"]] == row for row in kept)


def test_the_guard_keeps_the_sources_scores(folder, tmp_path, capsys):
    """Above 1 it keeps them all; below -1 none."""
    assert run(folder, tmp_path / "all.csv", "--guard", "1.5") == 0
    rows = table(tmp_path / "all.csv")
    assert all(row["source_score"] == row["adapted_score"] and "lost the source's order" in row["notes"] for row in rows)
    assert "in 3 of 3 episodes" in capsys.readouterr().out
    assert run(folder, tmp_path / "none.csv", "--guard", "-1.5") == 0
    assert all(row["source_score"] != row["adapted_score"] and not row["notes"] for row in table(tmp_path / "none.csv"))
    assert "warning" not in capsys.readouterr().out


def test_kept_order():
    def of(source, adapted):
        scores = (torch.tensor(values, dtype=torch.float64) for values in (source, adapted))
        return kept_order(Outcome(*scores, torch.empty(0), torch.empty(0), False, False))

    assert of([1, 2, 3, 4], [5, 6, 7, 9]) == pytest.approx(1) and of([1, 2, 3, 4], [9, 7, 6, 5]) == pytest.approx(-1)
    assert of([1, 2, 3, 4], [2, 1, 3, 4]) == pytest.approx(0.8) and of([1, 2, 3], [4, 4, 4]) == 0
    assert np.isnan(of([1, 2], [1, 2])) and np.isnan(of([3, 3, 3], [1, 2, 3]))


def test_best_and_worst(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "s.csv", "--top", "2") == 0
    printed = capsys.readouterr().out
    ranked = [row["image"] for row in sorted(table(tmp_path / "s.csv"), key=lambda row: float(row["adapted_score"]))]
    best, worst = printed.split("worst:")
    assert ranked[-1] in best and ranked[-2] in best and ranked[0] in worst and ranked[1] in worst


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "either --backbone"),
        (["--backbone", "tres", *MODEL], "either --backbone"),
        (["--backbone", "tres"], "no --weights"),
        (["--model", "tests.test_score_images"], "package.module:function"),
        (["--model", "tests.nowhere:network"], "tests.nowhere"),
        (["--model", "tests.test_score_images:nothing"], "nothing"),
        (["--model", "tests.test_score_images:table_of"], "returned a dict"),
        (["--model", "tests.test_score_images:network"], "its parts are trunk"),
        ([*MODEL, "--features", "trunc"], "did you mean 'trunk'"),
        (["nowhere/*.jpg", *MODEL], "nowhere/*.jpg"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, capsys, arguments, message):
    assert score_images.main([str(folder), "--output", str(tmp_path / "s.csv"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "s.csv").exists()


def table_of():
    return {}


def test_nothing_that_is_read_is_overwritten(folder, capsys):
    assert score_images.main([str(folder), "--output", str(folder / "00.png"), *MODEL]) == 2
    assert "read by this very command" in capsys.readouterr().err
    empty = folder.parent / "empty"
    empty.mkdir()
    assert run(empty, folder.parent / "s.csv") == 2 and "no image in" in capsys.readouterr().err
