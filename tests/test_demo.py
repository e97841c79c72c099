"""The demo, its data and its weights, and the study, each as a user runs it, on fewer images."""

import itertools
import json
import re

import numpy as np
import pytest
import torch

from data import demo as demo_data
from data.csv_folder import DATASET
from data.dataset import read_dataset
from scripts import demo, reproduce_cell, study
from weights.loading import load_weights
from weights.networks import BACKBONES


@pytest.fixture(scope="module")
def few():
    """Of each target photograph the best and the worst copy."""
    versions = list(demo_data.target_versions())
    return [v for v in versions if v.name.endswith(("_00.png", f"_{demo_data.STEPS - 1:02d}.png"))]


@pytest.fixture(scope="module")
def shown(few, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "target_versions", lambda: iter(few))
        assert demo.main(["--out", str(out), "--seeds", "2", "--device", "cpu"]) == 0
    return out


def test_the_data_come_out_the_same_every_time(few, tmp_path):
    again = {v.name: v for v in demo_data.target_versions()}
    assert all(np.array_equal(v.image, again[v.name].image) and v.mos == again[v.name].mos for v in few)
    first = list(itertools.islice(demo_data.source_versions(), 45))
    for one, two in zip(first, demo_data.source_versions()):
        assert one.name == two.name and np.array_equal(one.image, two.image)
    assert not {v.reference for v in first} & set(demo_data.TARGET)
    noisy = [v for v in first if v.kind == "noise"]
    assert [v.mos for v in noisy[:5]] == sorted((v.mos for v in noisy[:5]), reverse=True) and len(
        {v.mos for v in noisy}
    ) == 10


def test_the_summary_says_what_reproduce_cell_says(shown, tmp_path):
    methods = json.loads((shown / "summary.json").read_text())["methods"]
    assert list(methods) == ["source", "rotation", "gc", "rank", "rank+gc"]
    for found in methods.values():
        assert found["n"] == 6
        for metric in ("srocc", "plcc"):
            assert len(found[metric]["values"]) == 2
            assert found[metric]["mean"] == pytest.approx(np.mean(found[metric]["values"]))
            assert found[metric]["std"] == pytest.approx(np.std(found[metric]["values"], ddof=1))
    cell = [
        "--backbone",
        "metaiqa",
        "--weights",
        str(demo.WEIGHTS),
        "--data-root",
        str(shown / "photographs"),
        "--seeds",
        "2",
    ]
    assert (
        reproduce_cell.main(
            [*cell, "--method", "rank", "--device", "cpu", "--json", str(tmp_path / "cell.json")]
        )
        == 0
    )
    result = json.loads((tmp_path / "cell.json").read_text())
    assert (
        result["adapted"]["plcc"] == methods["rank"]["plcc"]
        and result["source"]["plcc"] == methods["source"]["plcc"]
    )
    assert methods["rank"]["plcc"] != methods["source"]["plcc"]


def test_the_page_needs_nothing_beside_itself(shown):
    page = (shown / "index.html").read_text()
    assert (
        not re.search(r'(src|href)="(?!data:|#)', page)
        and "@import" not in page
        and "url(" not in re.sub(r"url\(#\w+\)", "", page)
    )
    assert page.count("<img ") == 6 and page.count("<svg") == 5
    methods = json.loads((shown / "summary.json").read_text())["methods"]
    for found in methods.values():
        assert f"{found['srocc']['mean']:.3f}" in page


def test_the_weights_are_a_network_of_the_card(tmp_path):
    network = BACKBONES["metaiqa"].network().eval()
    load_weights(network, demo.WEIGHTS)
    assert demo.WEIGHTS.stat().st_size < 30_000_000
    card = demo.WEIGHTS.with_suffix(".md").read_text()
    assert (
        "python -m scripts.train_source" in card and float(re.search(r"SROCC (\d\.\d+)", card).group(1)) > 0.6
    )
    clean, spoilt = (
        torch.from_numpy(demo_data.degrade(image, "noise", severity, np.random.default_rng(0))).permute(
            2, 0, 1
        )[None]
        / 255
        for image in [demo_data.SOURCE["coffee"]()[:224, :224]]
        for severity in (1e-6, 0.08)
    )
    ynet = BACKBONES["metaiqa"].wrap(network, BACKBONES["metaiqa"].protocols["paper"])
    with torch.no_grad():
        assert ynet.predict(ynet.normalised(clean)) > ynet.predict(ynet.normalised(spoilt)) + 0.2


def test_a_study_compares_like_with_like(shown, tmp_path):
    options = [
        "--backbone",
        "metaiqa",
        "--weights",
        str(demo.WEIGHTS),
        "--data-root",
        str(shown / "photographs"),
        "--seeds",
        "1",
    ]
    assert study.main([*options, "--parts", "steps", "head", "--device", "cpu", "--out", str(tmp_path)]) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "study.json").read_text())["rows"]}
    assert (
        rows["0 steps"]["adapted"] == rows["0 steps"]["source"] and rows["0 steps"]["srocc_gain"]["mean"] == 0
    )
    assert rows["released head: logits, 128-d"]["source"] == rows["1 steps"]["source"]
    assert len((tmp_path / "study.md").read_text().splitlines()) == 2 + len(rows)
    assert len(read_dataset(DATASET, shown / "photographs").photographs) == 6
