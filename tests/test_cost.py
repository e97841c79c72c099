"""What a sweep says that it will do and take, beside what it does."""

import json
import re

import pytest
import torch

from common.runs.cell import episodes_of
from common.runs.cost import Cost, Rates
from common.runs.jobs import jobs
from common.runs.survey import Survey
from data.inputs import INPUTS
from scripts import all_expt
from tests import miniature
from tests.conftest import make_small
from tests.test_sweep import grid
from weights.networks import BACKBONES


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All but one data set and one checkpoint."""
    root = tmp_path_factory.mktemp("miniature")
    data, files = miniature.build(root)
    (data / "pipal").rename(root / "not here")
    (files / "tres-live_iqa.pth").unlink()
    return root


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, backbone in BACKBONES.items():
        monkeypatch.setitem(BACKBONES, name, miniature.small(backbone))


def rates_file(path, **seconds):
    networks = [{"network": name, "forward_seconds": value} for name, value in seconds.items()]
    path.write_text(json.dumps({"format": 1, "machine": {"title": "a GPU"}, "networks": networks}))
    return str(path)


def dry_run(root, tmp_path, capsys, *more):
    options = miniature.options(root, tmp_path / "results", "--dry-run", "--seeds", "2", *more)
    assert all_expt.main(options) == 0
    assert not (tmp_path / "results").exists()
    return capsys.readouterr().out


def test_the_estimate_is_of_the_passes_that_run(root):
    """Source passes, answers and steps, shared where a sweep shares them."""
    cells = [e.cell for e in grid(2) if (e.backbone, e.target.dataset) == ("metaiqa", "cid2013")]
    images = INPUTS.images(cells[0].target, None, root / "data", False)
    found = Survey(INPUTS, {(cells[0].target, None): images}, {}, {})
    cost = Cost.of(jobs(cells), found, Rates({"metaiqa": 0.5}, "", ""))
    done = []
    for job in jobs(cells):
        settings = [cell.setting for cell in job.cells]
        network, photographs = make_small(), images.photographs
        list(episodes_of(network, photographs, settings, job.seed, tell=lambda _, n, fe: done.append(n * fe)))
    (row,) = cost.rows
    assert row.passes == sum(done) and row.seconds == sum(done) / 2 == cost.seconds(1)
    assert cost.seconds(2) == cost.longest == sum(done) / 4 == cost.seconds(3)  # a job per seed


def test_what_can_be_done_and_what_is_missing(root, tmp_path, capsys):
    printed = dry_run(root, tmp_path, capsys)
    head, to_do, not_yet, missing = printed.split("\n\n")
    ready, waiting = map(int, re.search(r"(\d+) to do, (\d+) cannot be run yet", head).groups())
    assert ready + waiting == 181 and waiting == 38 + 8 - 2  # two want both
    for table, cells in ((to_do, ready), (not_yet, waiting)):
        counts = [line.replace(",", "").split()[-4:-2] for line in table.splitlines()[1:]]
        *rows, total = [(int(cells), int(passes)) for cells, passes in counts]
        assert total == tuple(map(sum, zip(*rows))) and total[0] == cells and len(rows) > 4
    assert "pipal" not in to_do and "pipal" in not_yet
    assert [line.split(",")[0] for line in missing.splitlines()] == [
        "missing: pipal",
        "missing: tres-live_iqa",
    ]
    listed = dry_run(root, tmp_path, capsys, "--verbose").split("\n\n")
    assert listed[:4] == [head, to_do, not_yet, missing.rstrip("\n")] and listed[4].count("\n") == 222


def test_no_device_is_touched(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, "empty", None)
    monkeypatch.setattr(torch.cuda, "is_available", None)
    some = ("--backbones", "metaiqa", "--tables", "1", "--datasets", "cid2013", "koniq10k")
    by = [dry_run(root, tmp_path, capsys, *some, "--device", name) for name in ("auto", "cuda:7,cuda:8")]
    assert "one device like 2 CPU cores" in by[0] and "2 devices, each like 2 CPU cores" in by[1]


def test_rates_of_another_machine(root, tmp_path, capsys):
    some = ("--tables", "1", "--datasets", "cid2013", "--backbones", "metaiqa", "musiq")
    file = rates_file(tmp_path / "bench.json", metaiqa=3600.0)
    printed = dry_run(root, tmp_path, capsys, *some, "--rates", file)
    lines = [line.split() for line in printed.splitlines()]
    (row,) = (line for line in lines if line[:2] == ["metaiqa", "cid2013"])
    hours = int(row[4])
    assert hours > 100 and row[5:] == [f"{hours:,}", "h"]
    assert next(line for line in lines if line[:2] == ["musiq", "cid2013"])[-1] == "unknown"
    assert "a GPU" in printed and f"over {hours} h" in printed and f"no rate of musiq in {file}" in printed


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": 9, "machine": {"title": "x"}, "networks": []}',
        '{"format": 1, "machine": {"title": "x"}, "networks": [{"network": "tres"}]}',
        '{"format": 1, "machine": {"title": "x"}, "networks": [{"network": "tres", "forward_seconds": -1}]}',
    ],
)
def test_rates_that_are_none_end_in_one_line(root, tmp_path, capsys, content):
    (tmp_path / "b.json").write_text(content)
    options = miniature.options(root, tmp_path, "--dry-run", "--rates", str(tmp_path / "b.json"))
    assert all_expt.main(options) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "scripts.benchmark --json" in error


def test_rates_of_this_machine(root, tmp_path, capsys):
    printed = dry_run(root, tmp_path, capsys, "--measure", "--backbones", "metaiqa", "--tables", "1")
    assert "measured just now" in printed and "unknown" not in printed
    assert all_expt.main(miniature.options(root, tmp_path / "results", "--measure")) == 2
    assert "--dry-run" in capsys.readouterr().err and not (tmp_path / "results").exists()


def test_what_shares_the_work_divides_it(root, tmp_path, capsys):
    """Jobs of Slurm, and machines that know nothing of each other."""
    some = ("--backbones", "metaiqa", "--tables", "1", "--datasets", "cid2013", "koniq10k")

    def passes(*more):
        printed = dry_run(root, tmp_path, capsys, *some, *more)
        return int(re.search(r"([\d,]+) forward passes", printed)[1].replace(",", ""))

    halves = passes("--part", "1/2"), passes("--part", "2/2")
    assert sum(halves) == passes() and min(halves) > 0
    assert "4 devices" in dry_run(root, tmp_path, capsys, *some, "--slurm", "-p gpu", "--workers-max", "4")
