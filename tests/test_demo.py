"""The demo, its data and its weights, and the study, each as a user runs it, on fewer images."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from common.distortions import compress
from common.protocols import METHODS, PAPER, Setting
from common.runs.cell import run_cells
from common.runs.results import summarise
from common.system.seeds import generator
from data import demo as demo_data
from data.csv_folder import DATASET
from data.dataset import read_dataset
from scripts import demo, study, study_tables
from scripts.run import demo as demo_run
from weights.trained import SHIPPED, trained_source

EXPERIMENTS = Path(__file__).parent.parent / "docs/experiments.md"


@pytest.fixture(scope="module")
def few():
    """Of five photographs the best and the worst copy."""
    kept = list(demo_data.PHOTOGRAPHS)[:5]
    ends = ("_00.png", f"_{demo_data.STEPS - 1:02d}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_data, "PHOTOGRAPHS", {name: demo_data.PHOTOGRAPHS[name] for name in kept})
        return [
            version
            for version in demo_data.versions(demo_data.FAULTS["light"])
            if version.name.endswith(ends)
        ]


@pytest.fixture(scope="module")
def shown(few, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_run, "versions", lambda fault: iter(few))
        assert demo.main(["--out", str(out), "--seeds", "2", "--device", "cpu"]) == 0
    return out


def test_the_data_come_out_the_same_every_time(few):
    first = few[0]
    again = demo_data.lose_light(
        demo_data.PHOTOGRAPHS[first.reference]()[16:496, 16:496], 0.0, generator(0, "demo", first.name)
    )
    assert first.reference == "astronaut" and np.array_equal(first.image, again)
    spoilt = next(v for v in few if v.name == "astronaut_09.png")
    assert spoilt.severity == demo_data.STOPS and not np.array_equal(first.image, spoilt.image)


def test_compression_grows_and_nothing_else_changes(few):
    image = few[0].image[:, :300]
    errors = [
        np.abs(demo_data.pass_on(image, quality).astype(float) - image).mean() for quality in (80, 9, 1)
    ]
    assert errors == sorted(errors) and 0 < errors[0] < errors[-1]
    make = demo_data.FAULTS["compression"].make
    (first, least), (last, most) = (make(image, "any", step) for step in (0, demo_data.STEPS - 1))
    assert (least, most) == (0, 9) and first.shape == last.shape == image.shape
    assert np.array_equal(last, demo_data.pass_on(image, demo_data.QUALITIES[1]))


def test_the_summary_says_what_its_runs_say(shown):
    summary = json.loads((shown / "summary.json").read_text())
    methods = summary["methods"]
    assert list(methods) == ["source", "bn-stats", "rotation", "gc", "rank", "rank+gc", "tuned"]
    for found in methods.values():
        assert found["n"] == 10
        for metric in ("srocc", "plcc"):
            assert len(found[metric]["values"]) == 2
            assert found[metric]["mean"] == pytest.approx(np.mean(found[metric]["values"]))
            assert found[metric]["std"] == pytest.approx(np.std(found[metric]["values"], ddof=1))
    photographs = read_dataset(DATASET, shown / "photographs").photographs
    ynet = trained_source(SHIPPED).ynet
    (scores,) = run_cells(ynet, photographs, [Setting(PAPER, METHODS["rank"])], seeds=range(2))
    assert summarise(scores, photographs).adapted["plcc"].to_json() == methods["rank"]["plcc"]
    assert methods["rank"]["plcc"] != methods["source"]["plcc"]
    assert methods["tuned"]["plcc"] == methods["source"]["plcc"]  # so few images decide nothing
    assert [decision["chosen"] for decision in summary["decisions"]] == ["source"] * 2


def test_the_page_needs_nothing_beside_itself(shown):
    page = (shown / "index.html").read_text()
    assert (
        not re.search(r'(src|href)="(?!data:|#)', page)
        and "@import" not in page
        and "url(" not in re.sub(r"url\(#\w+\)", "", page)
    )
    assert page.count("<img ") == 10 and page.count("<svg") == 5 and "MOS" not in page
    methods = json.loads((shown / "summary.json").read_text())["methods"]
    for found in methods.values():
        assert f"{found['srocc']['mean']:.3f}" in page


@pytest.mark.parametrize("name, least", [("efficientnet_lite0", 0.74), ("metaiqa", 0.5)])
def test_the_weights_are_a_network_of_the_card(few, name, least):
    file = SHIPPED.with_name(f"{name}.safetensors")
    card = file.with_suffix(".md").read_text()
    assert "python -m scripts.train_source" in card
    assert float(re.search(r"SROCC (\d\.\d+)", card).group(1)) > least
    source = trained_source(file)
    clean = [version.image[:224, :224] for version in few[::2]]
    spoilt = [compress(image, 5) for image in clean]
    clean, spoilt = (torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2) / 255 for x in (clean, spoilt))
    with torch.no_grad():
        before, after = (source.ynet.predict(source.ynet.normalised(x)).mean() for x in (clean, spoilt))
    assert before > after


def test_the_weights_that_ship_are_small():
    assert sum(file.stat().st_size for file in SHIPPED.parent.glob("*.safetensors")) < 40_000_000


VIEWS = ["source, 4 views, as dear as tuned"]


def test_a_study_compares_like_with_like_and_its_tables_say_what_its_file_says(shown, tmp_path):
    options = ["--weights", str(SHIPPED), "--data-root", str(shown / "photographs"), "--seeds", "1"]
    rows = ["0 steps", "1 steps", "bn-stats", "tuned", "sorted by MOS, bn-stats", *VIEWS]
    parts = ["--parts", "methods", "tuned", "steps", "sorted", "views", "--rows", *rows]
    out = tmp_path / "study"
    assert study.main([*options, *parts, "--device", "cpu", "--out", str(out), "--name", "few"]) == 0
    content = json.loads((out / "few.json").read_text())
    found = {row["name"]: row for row in content["rows"]}
    assert content["interval"] == "over groups" and set(found) == set(rows)
    assert found["0 steps"]["adapted"] == found["0 steps"]["source"] == found["1 steps"]["source"]
    assert found["0 steps"]["srocc_gain"]["mean"] == 0
    before = [found[name]["source"]["srocc"] for name in ("bn-stats", "sorted by MOS, bn-stats")]
    assert before[0] == before[1]  # the very same views
    mean_of_views = found[VIEWS[0]]
    assert mean_of_views["source"]["srocc"] == before[0] != mean_of_views["adapted"]["srocc"]
    assert found["sorted by MOS, bn-stats"]["adapted"] != found["bn-stats"]["adapted"]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table gains -->\nold\n<!-- end -->\nafter\n")
    for _ in range(2):
        assert study_tables.main([str(out), "--into", str(page)]) == 0
        text = page.read_text()
        assert text.startswith(
            "before\n<!-- table gains -->\n| study | bn-stats | tuned |"
        ) and text.endswith("-->\nafter\n")
        gain = f"{found['bn-stats']['srocc_gain']['mean']:+.3f}"
        assert f"| few | {gain} [" in text and "old" not in text
    page.write_text("<!-- table nothing -->\n<!-- end -->\n")
    assert study_tables.main([str(out), "--into", str(page)]) == 2


def test_the_tables_of_the_study_are_those_of_its_files(tmp_path):
    page = tmp_path / "experiments.md"
    page.write_text(EXPERIMENTS.read_text())
    (folder,) = set(re.findall(r"results/study-[\w-]+", page.read_text()))
    assert study_tables.main([str(EXPERIMENTS.parents[1] / folder), "--into", str(page)]) == 0
    assert page.read_text() == EXPERIMENTS.read_text()
