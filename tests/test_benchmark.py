"""What scripts.benchmark writes, and a stand-in for the authors' code that it calls."""

import json

import pytest

from common.runs.cost import Rates
from scripts import benchmark
from tests import miniature
from weights.networks import BACKBONES

SOLVER = """
import torch
from data_loader import count
from pandas_ods_reader import read_ods
from skvideo.utils.mscn import gen_gauss_window


class METAIQASolver:
    def __init__(self, config, path, train_idx, test_idx):
        assert config.batch_size == 4 and torch.get_num_threads() == 1
        rows = open(path + "/MOS.csv").read().splitlines()
        assert rows[0] == "0,1" and len(rows) == 1 + len(test_idx) == 1 + count(path)
        open(path + "/Compressed_1.jpg", "w").close()

    def new_ttt(self, svPath, config):
        assert config.rank and config.group_contrastive
        config.group_contrastive = False
        state = torch.load(svPath + "model_IQA/TID2013_KADID10K_IQA_Meta_resnet18_38")
        assert torch.nn.Linear(1, 1).cuda().weight.cuda().device.type == "cpu" and "norm.weight" in state
        print("After 8 images")
"""
LOADER = """
import os

def count(path):
    return len([name for name in os.listdir(path) if name[0] == "0"])
"""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, backbone in BACKBONES.items():
        monkeypatch.setitem(BACKBONES, name, miniature.small(backbone))


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout/MetaIQA"
    folder.mkdir(parents=True)
    (folder / "ttt.py").write_text(SOLVER)
    (folder / "data_loader.py").write_text(LOADER)
    return folder.parent


def options(tmp_path, *more):
    usual = ("--backbone", "metaiqa", "--device", "cpu", "--threads", "1", "--batch-size", "4")
    return [*usual, "--rounds", "2", "--json", str(tmp_path / "b.json"), *more]


def test_the_file_of_a_comparison(tmp_path, checkout, capsys):
    data, _ = miniature.build(tmp_path / "miniature")
    before = sorted(data.rglob("*"))
    more = ("--release", str(checkout), "--stream", "32", "--images", str(data / "live_iqa"))
    assert benchmark.main(options(tmp_path, *more)) == 0
    printed = capsys.readouterr().out
    assert printed.count("im/s") == 4 and "After 8 images" not in printed
    assert sorted(data.rglob("*")) == before
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["format"] == 1 and content["machine"]["threads"] == 1 and content["machine"]["title"]
    (found,) = content["networks"]
    kinds = found["seconds_per_photograph"]
    assert list(kinds) == ["plain", "rank+gc", "tuned", "release"]
    for kind in kinds.values():
        walls = [timing["wall"] for timing in kind["rounds"]]
        assert len(walls) == 2 and min(walls) <= kind["median"] <= max(walls)
    assert Rates.read(tmp_path / "b.json").seconds == {"metaiqa": kinds["rank+gc"]["median"] / 26}


def test_a_release_that_is_none(tmp_path, checkout, capsys):
    (checkout / "MetaIQA/ttt.py").write_text("import nothing_of_this_name")
    for folder, message in ((tmp_path, "no MetaIQA/ttt.py"), (checkout, "nothing_of_this_name")):
        assert benchmark.main(options(tmp_path, "--release", str(folder))) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error and not (tmp_path / "b.json").exists()
    assert benchmark.main(options(tmp_path, "--release", str(checkout), "--backbone", "musiq")) == 2
    assert "musiq" in capsys.readouterr().err
