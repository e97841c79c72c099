"""The command lines as users run them: results, bad input, and interruption."""

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

from common.protocols import METHODS, PAPER, Setting
from common.runs.cell import run_cells
from common.views import View
from data.catalogue import DATASETS
from data.dataset import read_dataset
from scripts import reproduce_cell
from tests.conftest import make_small
from weights.networks import BACKBONES

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(11)]
    for i, name in enumerate(names):
        blocks = rng.integers(0, 256, (40 // (1 + i % 4), 40, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((250, 200 + 10 * i)).save(folder / name)
    write_labels(folder, names)
    return folder


def write_labels(folder, names):
    (folder / "scores.csv").write_text(
        "image_name,MOS\n" + "".join(f"{name},{int(name.split('.')[0])}\n" for name in names)
    )


def cell(photographs, weights, *options):
    return [
        *("--backbone", "metaiqa", "--data-root", str(photographs), "--weights", str(weights)),
        *("--device", "cpu", "--workers", "0", "--niter", "1", "--seeds", "1", *options),
    ]


def read_scores(path):
    with path.open() as file:
        return {(row["image"], row["seed"]): row for row in csv.DictReader(file)}


def test_a_cell(photographs, weights, tmp_path, capsys):
    listing = sorted((p.name, p.stat().st_mtime_ns) for p in photographs.iterdir())
    outputs = ["--json", str(tmp_path / "new/cell.json"), "--scores", str(tmp_path / "new/scores.csv")]
    assert reproduce_cell.main(cell(photographs, weights, "--seeds", "2", *outputs)) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "new/cell.json").read_text())
    rows = read_scores(tmp_path / "new/scores.csv")
    assert len(rows) == 22 and result["n_images"] == 11
    assert list(rows["0.png", "0"]) == [
        "image",
        "type",
        "mos",
        "seed",
        "source_score",
        "adapted_score",
        "distortion",
        "loss_1",
    ]
    assert all(float(row["loss_1"]) > 0 for row in rows.values())
    assert {row["distortion"] for row in rows.values()} <= {"blur", "compression", "noise"}
    assert result["config"]["method"]["niter"] == 1
    file = result["config"]["weights_file"]
    assert len(file["sha256"]) == 64 and file["size"] == weights.stat().st_size
    for which in ("source", "adapted"):
        per_seed = [seed[which]["srocc"] for seed in result["seeds"]]
        for seed, srocc in enumerate(per_seed):
            scores = [float(rows[f"{i}.png", str(seed)][f"{which}_score"]) for i in range(11)]
            ranks = np.argsort(np.argsort(scores))
            assert srocc == pytest.approx(np.corrcoef(ranks, np.arange(11))[0, 1])
        assert result[which]["srocc"]["mean"] == pytest.approx(np.mean(per_seed))
        assert result[which]["srocc"]["std"] == pytest.approx(np.std(per_seed, ddof=1))
    low, high = result["srocc_gain"]["interval_95"]
    assert low <= result["srocc_gain"]["mean"] <= high
    assert result["episodes"] == {"total": 4, "group_loss_left_out": 2, "fell_back_to_source": 0}
    assert "note: 2 of 4 episodes had too few images for the group loss" in printed
    assert (
        "views are of images smaller than the crop" in printed
        and f"{result['adapted']['srocc']['mean']:.4f}" in printed
    )
    assert listing == sorted((p.name, p.stat().st_mtime_ns) for p in photographs.iterdir())


def test_scores_depend_neither_on_workers_nor_on_the_order_of_files(photographs, weights, tmp_path):
    def run(name, *options):
        assert (
            reproduce_cell.main(cell(photographs, weights, "--scores", str(tmp_path / name), *options)) == 0
        )
        return read_scores(tmp_path / name)

    first = run("a.csv")
    try:
        write_labels(photographs, [f"{i}.png" for i in (5, 3, 10, 0, 9, 1, 8, 2, 7, 6, 4)])
        assert run("b.csv", "--workers", "2") == first
    finally:
        write_labels(photographs, [f"{i}.png" for i in range(11)])


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize(
    "options",
    [
        ["--method", "source"],
        ["--method", "rotation"],
        ["--method", "contrastive"],
        ["--method", "contrique"],
        ["--method", "online"],
        ["--distortion", "all", "--batch-size", "4"],
    ],
)
def test_methods_and_protocols_run(photographs, weights, protocol, options, capsys):
    assert reproduce_cell.main(cell(photographs, weights, "--protocol", protocol, *options)) == 0
    assert "images/s" in capsys.readouterr().out


def test_cells_that_share_work_equal_cells_alone(photographs):
    images = read_dataset(DATASETS["csv"], photographs).photographs
    protocol = replace(PAPER, view=View(size=32))
    methods = [
        *METHODS.values(),
        replace(METHODS["rank"], distortion="blur"),
        replace(METHODS["rank+gc"], niter=1),
    ]
    settings = [Setting(protocol, method) for method in methods]
    settings += [Setting(replace(protocol, lr=1e-2), METHODS["gc"])]
    together = run_cells(make_small(), images, settings, seeds=(0, 3), progress=False)
    for setting, scores in zip(settings, together):
        (alone,) = run_cells(make_small(), images, [setting], seeds=(0, 3), progress=False)
        for name in ("source", "adapted", "choice", "losses"):
            np.testing.assert_array_equal(
                getattr(scores, name), getattr(alone, name), err_msg=f"{setting.method} {name}"
            )
    assert not np.array_equal(together[-1].adapted, together[list(METHODS).index("gc")].adapted)
    with pytest.raises(ValueError, match="share views"):
        run_cells(make_small(), images, [settings[0], Setting(PAPER, METHODS["gc"])], seeds=(0,))


def test_no_label_is_read(photographs):
    images = read_dataset(DATASETS["csv"], photographs).photographs
    others = [replace(image, mos=-(image.mos**2)) for image in images]
    setting = Setting(replace(PAPER, view=View(size=32)), METHODS["rank+gc"])
    (one,), (other,) = (
        run_cells(make_small(), these, [setting], seeds=[0], progress=False) for these in (images, others)
    )
    np.testing.assert_array_equal(one.adapted, other.adapted)


def broken(path, change):
    state = BACKBONES["metaiqa"].network().state_dict()
    change(state)
    torch.save(state, path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("net.fc3.bias"), "1 entry missing (net.fc3.bias)"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 entry unknown (extra)"),
        (lambda state: state.update({"net.fc3.bias": torch.zeros(2)}), "net.fc3.bias is (2,), not (1,)"),
        (lambda state: state["net.fc3.bias"].fill_(float("nan")), "not finite (net.fc3.bias)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_explained(photographs, tmp_path, capsys, change, message):
    broken(tmp_path / "x.pth", change)
    assert reproduce_cell.main(cell(photographs, tmp_path / "x.pth")) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "options, message",
    [
        (["--weights", "absent.pth"], "absent.pth: no such checkpoint"),
        (["--data-root", "absent"], "absent: no such folder"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["--adapt", "bn+cls"], "no cut 'transformer'"),
        (["--p", "0.7"], "2 groups of 0.7 of a batch do not fit"),
        (["--p", "0.5", "--groups", "3"], "3 groups of 0.5 of a batch do not fit"),
        (["--method", "bn-stats", "--running-from", "none"], "moves nothing"),
        (["--device", "meta"], "device 'meta' cannot be used"),
        (["--json", "a.json", "--scores", "a.json"], "in the way of another output"),
        (["--leak-state", "--episodes", "2"], "--leak-state"),
        (["--method", "online", "--episodes", "2"], "--method online"),
    ],
)
def test_mistakes_get_one_line_and_status_2(photographs, weights, capsys, options, message):
    assert reproduce_cell.main(cell(photographs, weights, *options)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_an_output_never_replaces_the_checkpoint(photographs, weights, capsys):
    before = weights.read_bytes()
    assert reproduce_cell.main(cell(photographs, weights, "--json", str(weights))) == 2
    assert "read by this very command" in capsys.readouterr().err and weights.read_bytes() == before


def test_results_are_not_written_into_the_data_folder(photographs, weights, capsys):
    assert reproduce_cell.main(cell(photographs, weights, "--json", str(photographs / "out.json"))) == 2
    assert "where nothing is written" in capsys.readouterr().err


def run_script(*command):
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        **{
            "cwd": ROOT,
            "env": environment,
            "text": True,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        },
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # which a shell's background jobs would ignore
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_truncated_image_ends_the_command_without_a_traceback(photographs, weights, tmp_path, workers):
    for path in photographs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:2000])
    process = run_script(
        "scripts.reproduce_cell", *cell(tmp_path, weights, "--method", "source", "--workers", workers)
    )
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "7.png: cannot be read as an image" in error and "Traceback" not in error


def test_an_interrupted_command_leaves_no_half_written_file(photographs, weights, tmp_path):
    options = cell(
        photographs, weights, "--seeds", "500", "--workers", "2", "--scores", str(tmp_path / "out/scores.csv")
    )
    process = run_script("scripts.reproduce_cell", *options)
    assert "500 seeds" in process.stdout.readline()
    time.sleep(3)  # well into the episodes
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_losses_and_metrics_need_no_torchvision():
    code = (
        "import sys; sys.modules['torchvision'] = None; "
        "import common.losses, common.runs.metrics, common.adapter"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_network_is_named_in_common():
    for path in (ROOT / "common").glob("*.py"):
        text = path.read_text().lower()
        assert not [name for name in BACKBONES if name in text], path
