"""The report on a GPU, on a CPU with a small network: its parts, its checks, and what a failure leaves."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from common.distortions import TYPES
from common.protocols import PAPER, TUNED
from common.runs import device_rates, device_report, parts
from common.runs.cost import Rates
from common.runs.device_check import checks
from common.runs.device_rates import made_batch
from common.runs.parts import Part, run_parts
from common.system.device import default_workers
from common.system.precision import precision
from common.views import View
from common.y import YNetwork
from scripts import gpu_report
from scripts.run import gpu_report as gpu_report_run
from tests import miniature
from tests.conftest import CUTS, SmallNet, make_small
from weights.networks import BACKBONES

SMALL = replace(PAPER, view=View(size=32))
CPU = torch.device("cpu")


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Run the command; return its status, the content of its file, and its table."""
    small = replace(miniature.small(BACKBONES["metaiqa"]), network=SmallNet)
    monkeypatch.setitem(BACKBONES, "metaiqa", small)
    monkeypatch.setattr(gpu_report_run, "trained", lambda: (make_small(), SMALL))
    monkeypatch.setattr(device_report, "LOADING", 0.1)
    monkeypatch.setattr(device_rates, "LONG_ENOUGH", 0.0)
    monkeypatch.setattr(device_rates, "TUNED", replace(TUNED, adapt_on=8, judge_on=16, least=8))
    options = ["--backbone", "metaiqa", "--episodes", "2", "1", "--batch-size", "4", "--workers", "0"]

    def run(*more):
        status = gpu_report.main([*options, "--device", "cpu", "--out", str(tmp_path / "out"), *more])
        texts = ((tmp_path / "out" / f"gpu_report.{kind}").read_text() for kind in ("json", "txt"))
        return status, json.loads(next(texts)), next(texts)

    run.out = tmp_path / "out"
    return run


def test_what_is_measured(report):
    status, content, text = report()
    assert status == 0 and not [part["fault"] for part in content["parts"] if part["fault"]]
    rates = [part for part in content["parts"] if part["kind"] == "rates"]
    assert [(part["precision"], part["episodes"]) for part in rates] == [
        ("float32", 2),
        ("bfloat16", 2),
        ("float32", 1),
        ("bfloat16", 1),
    ]
    assert all(
        part["result"][kind]["images_per_second"] > 0 for part in rates for kind in ("plain", "rank+gc")
    )
    loaders = [part for part in content["parts"] if part["kind"] == "loaders"]
    assert len(loaders) == 4 and all(part["result"]["images_per_second"] > 0 for part in loaders)
    tuned = [part["result"] for part in content["parts"] if part["kind"] == "tuned"]
    assert len(tuned) == 2 and all(set(one["rates"]) == {"1", "2"} for one in tuned)
    passed = [check for part in content["parts"] if part["kind"] == "check" for check in part["result"]]
    assert len(passed) == 11 and all(check["ok"] for check in passed)
    best = max(
        part["result"]["rank+gc"]["images_per_second"] for part in rates if part["precision"] == "float32"
    )
    read = Rates.read(report.out / "gpu_report.json")
    assert read.seconds["metaiqa"] == pytest.approx(1 / best / 26)
    assert content["paper"]["float32"]["seconds"] == pytest.approx(
        10_022_240 * read.seconds["metaiqa"], rel=0.1
    )
    assert text.count(" im/s") == 3 * 4 + 4 and "the paper in bfloat16, metaiqa: " in text


def test_a_part_that_fails_takes_no_other_with_it(report, monkeypatch):
    def out_of_memory(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB\nmore")

    for name in ("checks", "episode_rates", "tuned_rates"):
        monkeypatch.setattr(device_report, name, out_of_memory)
    status, content, text = report()
    assert status == 1 and content["networks"] == [] and content["paper"] == {}
    faults = [part["kind"] for part in content["parts"] if part["fault"]]
    assert faults == ["check", "rates", "rates", "tuned", "tuned", "rates", "rates"]
    assert (
        "rates metaiqa bfloat16 1: OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB" in text
    )
    assert text.count(" im/s by 0 processes") == 4


def test_without_time_nothing_is_begun(report):
    status, content, text = report("--minutes", "1e-9")
    assert status == 1 and all(part["fault"] == "left out: no time" for part in content["parts"])


def test_parts_of_a_series_are_expected_to_take_as_long_as_their_size_says(monkeypatch):
    now, ran = [0.0], []
    monkeypatch.setattr(parts, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def takes(seconds):
        ran.append(seconds)
        now[0] += seconds

    series = [Part({"n": n}, lambda n=n: takes(3 * n), "series", n) for n in (1, 100, 2)]
    other = [Part({"n": "other"}, lambda: takes(1), least=91)]
    done = list(run_parts([*series, *other], 100))
    assert ran == [3, 6] and [part.seconds for part in done] == [3, 0, 6, 0]
    assert [bool(part.fault) for part in done] == [False, True, False, True]


def test_a_device_that_computes_otherwise_fails(monkeypatch):
    """A network whose state an episode leaves behind."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        ynet = YNetwork(SmallNet(), CUTS["resnet"])
    ynet.draw_head(0)
    batches = [made_batch(SMALL, TYPES, range(start, start + 4)) for start in (0, 4)]
    assert all(check.ok for check in checks(ynet, SMALL, batches, CPU))
    forward = SmallNet.forward
    calls = []

    def drifting(self, x):
        calls.append(len(x))
        return forward(self, x) * (1 + 0.01 * len(calls))

    monkeypatch.setattr(SmallNet, "forward", drifting)
    failed = {check.name for check in checks(ynet, SMALL, batches, CPU) if not check.ok}
    assert {"an episode after others is as it was", "source against the CPU", "2 episodes at once"} <= failed


def test_a_precision_ends_with_its_block():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), precision("tf32", CPU):
        assert torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "high"
        raise KeyError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    with precision("bfloat16", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("cores, gpus, expected", [(16, 1, 16), (64, 1, 16), (64, 8, 8), (2, 4, 1)])
def test_loaders_of_a_gpu_take_its_share_of_the_cores(monkeypatch, cores, gpus, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores), raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert default_workers(torch.device("cuda")) == expected
    assert default_workers(CPU) == min(2, cores - 1)
