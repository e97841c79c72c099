"""The paper's grid, and a sweep over it in miniature: shared, resumed after a kill, run twice at once, spoilt
and mended."""

import csv
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tres.all_expt
from common.runs.cell import Plan
from common.runs.grid import PAPER_PLACES, Target, paper_grid, published
from common.runs.jobs import jobs
from common.runs.journal import Journal, line_of, value_of
from common.runs.store import Store
from common.runs.worker import Worker
from common.system.errors import UserError
from data import inputs
from scripts import all_expt, merge_results, report, reproduce_cell
from scripts.run import reproduce_cell as reproduce_cell_run
from tests import miniature, power
from weights.networks import BACKBONES, experiments

ROOT = Path(__file__).parent.parent
EXPECTED = Path(__file__).parent / "golden/miniature_report.md"
SOME = ("--backbones", "tres", "--tables", "1", "3", "--datasets", "pipal", "live_iqa", "--seeds", "2")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("miniature")
    miniature.build(root)
    return root


@pytest.fixture
def small(monkeypatch):
    for name, backbone in BACKBONES.items():
        monkeypatch.setitem(BACKBONES, name, miniature.small(backbone))


def grid(seeds=5, protocol="paper"):
    """The paper's places."""
    entries = paper_grid(experiments(), protocol, range(seeds))
    return [entry for entry in entries if entry.place in PAPER_PLACES]


def miniature_grid(seeds):
    """The same, as tests.miniature has them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, backbone in BACKBONES.items():
            patch.setitem(BACKBONES, name, miniature.small(backbone))
        return grid(seeds)


def content(results):
    """What a sweep found, without when."""
    return {
        path.relative_to(results): path.read_bytes()
        for path in results.rglob("*.*")
        if path.name in ("result.json", "scores.csv") and ".work" not in path.parts
    }


def complaint(errors):
    """The one line that is no note."""
    (line,) = (line for line in errors.splitlines() if not line.startswith("note: "))
    return line


def start(root, results, *more):
    program = [sys.executable, "-m", "tests.miniature", *miniature.options(root, results, *more)]
    environment = {**os.environ, **miniature.ENVIRONMENT}
    return subprocess.Popen(
        program, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def alone(root, tmp_path_factory):
    """What an uninterrupted sweep over SOME finds."""
    results = tmp_path_factory.mktemp("alone")
    process = start(root, results, *SOME)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "16 of 16 cells" in printed
    return content(results)


def test_every_published_value_has_exactly_one_cell():
    places = Counter(entry.key for entry in grid())
    values = published()
    assert len(values) == len({(*value.key, value.metric) for value in values}) == 344
    assert all(places[value.key] == 1 for value in values)
    assert {entry.key for entry in grid() if entry.place.isdigit()} == {value.key for value in values}


def test_equal_work_is_one_cell():
    """Table 1's TTA-IQA is Table 2's rank+gc; Table 3's best is its rank; Tables 4 and 5 begin with its
    gc."""
    where = {}
    for entry in grid():
        where.setdefault((entry.backbone, entry.weights, str(entry.target), entry.cell.id), set()).add(
            (entry.place, entry.setting)
        )
    shared = next(places for places in where.values() if ("4", "p=0.25") in places)
    assert shared == {("2", "gc"), ("4", "p=0.25"), ("5", "groups=2")}
    assert any(places >= {("1", "TTA-IQA"), ("2", "rank+gc"), ("7", "TTA-IQA")} for places in where.values())
    assert any(places >= {("2", "rank"), ("3", "best")} for places in where.values())
    cell = grid()[0].cell
    renamed = replace(cell, method=replace(cell.method, name="another"))
    assert renamed.id == cell.id
    others = {entry.cell.id for entry in grid(4)} | {entry.cell.id for entry in grid(protocol="released")}
    assert not others & {entry.cell.id for entry in grid()}


def test_jobs_share_what_can_be_shared():
    """One job per network, images and seed; and fewer passes than cell by cell."""
    cells = {entry.cell.id: entry.cell for entry in grid(2)}.values()
    work = jobs(cells)
    assert sum(len(job.cells) for job in work) == 2 * len(cells)
    assert len(work) == len({(job.cells[0].weights, job.cells[0].target, job.seed) for job in work})
    for job in work:
        assert job.forwards <= sum(Plan.of([cell.setting]).forwards for cell in job.cells)


def begun(journal):
    """Whether it holds an episode, and its cell is not done."""
    with suppress(FileNotFoundError):
        return journal.read_bytes().count(b"\n") > 1
    return False


def test_a_killed_sweep_goes_on_as_if_nothing_had_been(root, tmp_path, alone):
    process = start(root, tmp_path, *SOME)
    deadline = time.monotonic() + 120
    while not (
        list(tmp_path.glob("*/*/*/result.json")) and any(map(begun, tmp_path.glob(".work/*/*.jsonl")))
    ):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    journal = next(filter(begun, tmp_path.glob(".work/*/*.jsonl")))
    before = content(tmp_path)
    assert len(before) < len(alone)
    with journal.open("ab") as file:  # a line that was being written
        file.write(b'{"batch": 1, "sour')
    process = start(root, tmp_path, *SOME)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert content(tmp_path) == alone
    assert all(content(tmp_path)[name] == value for name, value in before.items())
    assert sorted(path.name for path in tmp_path.glob(".work/*")) == ["lock", "status.json"]


def test_a_power_cut_leaves_whole_results_and_the_sweep_goes_on(root, tmp_path, alone):
    """At any time of a sweep, on a disk that loses what it may."""
    if not power.can_mount(tmp_path):
        pytest.skip("mounting a disk takes root and mkfs.ext4")
    image, rng = power.new_disk(tmp_path / "disk.img"), random.Random(0)
    cuts, lost = int(os.environ.get("POWER_CUTS", 3)), Counter()
    with power.mounted(image, tmp_path / "disk") as disk:
        process = start(root, disk / "results", *SOME)
        while not (disk / "results/.work/status.json").exists():
            time.sleep(0.02)
        left = []
        while process.poll() is None:
            time.sleep(rng.uniform(0.02, 0.5))
            process.send_signal(signal.SIGSTOP)
            left.append((power.cut(image, tmp_path / f"{len(left)}.img"), content(disk / "results")))
            process.send_signal(signal.SIGCONT)
        assert process.returncode == 0, process.stderr.read()
        left.append((power.cut(image, tmp_path / "last.img"), content(disk / "results")))
    for copy, before in rng.sample(left[:-1], min(cuts - 1, len(left) - 1)) + left[-1:]:
        with power.mounted(copy, tmp_path / copy.stem) as disk:
            found = content(disk / "results")
            assert found.items() <= alone.items()
            lost["files"] += len(before) - len(found)
            _, errors = (process := start(root, disk / "results", *SOME)).communicate(timeout=300)
            assert process.returncode == 0, errors
            assert content(disk / "results") == alone
            lost["cuts"] += 1
    print(f"{lost['cuts']} power cuts, {lost['files']} files of results lost that were not on the disk yet")


def test_an_episode_that_was_kept_is_not_run_again(root, tmp_path, small, monkeypatch, capsys):
    """A score that is changed in a journal comes back in the result; what follows a damaged line is run
    again."""
    append, options = Journal.append, miniature.options(root, tmp_path, *SOME)

    def interrupted(journal, number, batch):
        append(journal, number, batch)
        if journal.path.stem == "1" and number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", interrupted)
    assert all_expt.main(options) == 130
    monkeypatch.setattr(Journal, "append", append)
    path = next(path for path in tmp_path.glob(".work/*/1.jsonl") if path.read_bytes().count(b"\n") == 4)
    head, first, second, third = path.read_bytes().splitlines(keepends=True)
    line = value_of(first)
    line["adapted"][0] = 123.0
    path.write_bytes(head + line_of(line) + b"x" + second + third)
    assert all_expt.main(options) == 0
    (folder,) = tmp_path.glob(f"*/*/*-{path.parent.name}")
    with (folder / "scores.csv").open(newline="") as file:
        assert sorted(float(row["adapted_score"]) for row in csv.DictReader(file))[-2:][1] == 123.0


def test_a_worker_computes_in_the_precision_that_was_asked_for():
    def episodes():
        yield 0, 0, {"autocast": torch.is_autocast_enabled("cpu")}

    for name, expected in (("float32", False), ("bfloat16", True)):
        worker = Worker(None, None, False, None, torch.device("cpu"), 0, name, episodes=episodes())
        assert worker.go_on(1.0).episodes == [(0, 0, {"autocast": expected})]
    assert not torch.is_autocast_enabled("cpu")


def test_episodes_of_another_precision_are_run_again(root, tmp_path, small, monkeypatch):
    append, options = Journal.append, miniature.options(root, tmp_path, *SOME)

    def interrupted(journal, number, batch):
        append(journal, number, batch)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", interrupted)
    assert all_expt.main(options) == 130
    monkeypatch.setattr(Journal, "append", append)
    (path,) = tmp_path.glob(".work/*/0.jsonl")
    head, kept = path.read_bytes().splitlines(keepends=True)
    line = value_of(kept)
    line["adapted"][0] = 123.0
    path.write_bytes(head + line_of(line))
    assert all_expt.main([*options, "--precision", "tf32"]) == 0
    (folder,) = tmp_path.glob(f"*/*/*-{path.parent.name}")
    assert ",123.0," not in (folder / "scores.csv").read_text()
    assert json.loads((folder / "result.json").read_text())["environment"]["precision"] == "tf32"


def test_a_second_sweep_on_a_folder_says_who_has_it_and_leaves_or_waits(root, tmp_path, alone):
    store = Store(tmp_path)
    with store.held(wait=False):
        second = start(root, tmp_path, *SOME)
        _, errors = second.communicate(timeout=120)
        assert second.returncode == 2
        assert f"process {os.getpid()} on {socket.gethostname()} since 20" in complaint(errors)
        waiting = start(root, tmp_path, *SOME, "--wait")
        assert f"process {os.getpid()}" in waiting.stdout.readline()
        time.sleep(0.5)
        assert waiting.poll() is None and not content(tmp_path)
        shown = subprocess.run(
            [sys.executable, "-m", "tests.miniature", *miniature.options(root, tmp_path, *SOME, "--status")],
            cwd=ROOT,
            capture_output=True,
            text=True,
        ).stdout
        assert "0 of 16 cells" in shown and f"process {os.getpid()}" in shown
    _, errors = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, errors
    assert content(tmp_path) == alone


def test_a_result_that_lost_a_file_is_made_again(root, tmp_path, small, capsys):
    options = miniature.options(root, tmp_path, "--backbones", "metaiqa", "--tables", "8", "--seeds", "1")
    assert all_expt.main(options) == 0
    whole = content(tmp_path)
    for name in ("result.json", "scores.csv"):
        next(tmp_path.glob(f"*/*/*/{name}")).unlink()
        assert all_expt.main(options) == 0 and content(tmp_path) == whole


def test_the_whole_paper_and_its_report(root, tmp_path, small, capsys):
    """Every table and figure with all four networks, and what the report says of them, beside a report that
    was looked at."""
    assert all_expt.main(miniature.options(root, tmp_path / "results", "--seeds", "2")) == 0
    assert "181 of 181 cells" in capsys.readouterr().out
    with (tmp_path / "results/cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 181 and {row["state"] for row in rows} == {"done"}
    assert all((tmp_path / "results" / row["folder"] / "scores.csv").is_file() for row in rows)
    assert sum(len(row["places"].split("; ")) for row in rows) == len(grid(2))
    assert (
        report.main(
            [str(tmp_path / "results"), "--out", str(tmp_path / "out"), "--data-root", str(root / "data")]
        )
        == 0
    )
    made, expected = (path.read_text(encoding="utf-8") for path in (tmp_path / "out/report.md", EXPECTED))
    number = re.compile(r"[-+\u2212]?\d+\.\d+")
    hint = (
        f"if the change is meant, look at {tmp_path / 'out' / 'index.html'}, and copy report.md to {EXPECTED}"
    )
    assert number.sub("#", made) == number.sub("#", expected), hint
    values = [
        [float(value.replace("\u2212", "-")) for value in number.findall(text)] for text in (made, expected)
    ]
    assert values[0] == pytest.approx(values[1], abs=0.002), hint
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert (
        page.count("<img") > 20 and page.count("<svg") > 60
    )  # photographs; 16 networks and data sets, four drawings each


def test_several_devices_share_the_jobs_and_one_that_dies_is_replaced(root, tmp_path, alone):
    process = start(root, tmp_path, *SOME, "--device", "cpu,cpu")
    deadline = time.monotonic() + 120
    while not any(map(begun, tmp_path.glob(".work/*/*.jsonl"))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [child for child in children if "dask_worker" in Path(f"/proc/{child}/cmdline").read_text()]
    assert len(workers) == 2
    for worker in workers:
        os.kill(int(worker), signal.SIGKILL)
    printed, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert "LOST" in printed and content(tmp_path) == alone
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_parts_that_know_nothing_of_each_other_are_put_together(root, tmp_path, alone, capsys):
    parts = [tmp_path / str(number) for number in (1, 2, 3)]
    for process in [start(root, part, *SOME, "--part", f"{part.name}/3") for part in parts]:
        printed, errors = process.communicate(timeout=120)
        assert process.returncode == 0 and "merge_results" in printed, errors
    assert all(list(part.glob(".work/*/*.jsonl")) for part in parts)
    out = tmp_path / "out"
    assert merge_results.main([str(out), *map(str, parts)]) == 0
    assert len(list(out.glob(".work/*/*.jsonl"))) == 32
    process = start(root, out, *SOME)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert content(out) == alone
    assert "seed" not in next(out.glob("logs/*.log")).read_text().partition("\n")[2], "no job was begun"


def test_parts_that_disagree_are_not_put_together(root, tmp_path, capsys):
    process = start(root, tmp_path / "a", *SOME, "--methods", "gc", "rank")
    assert process.communicate(timeout=60) and process.returncode == 0
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    scores = next((tmp_path / "b").glob("*/*/*/scores.csv"))
    scores.write_text(scores.read_text().replace("1", "2"))
    assert merge_results.main([str(tmp_path / "out"), str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert scores.parent.name in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_several_devices_need_dask(root, tmp_path, small, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert all_expt.main(miniature.options(root, tmp_path, *SOME, "--device", "cpu,cpu")) == 2
    assert "pip install" in capsys.readouterr().err
    assert all_expt.main(miniature.options(root, tmp_path, *SOME)) == 0


def test_a_full_disk_ends_in_one_line_and_loses_nothing(root, tmp_path, alone):
    """A limit of the size of files stands for the disk: a journal grows beyond it."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); "
        "from tests import miniature; miniature.dask_setup(None); sys.exit(miniature.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *miniature.options(root, tmp_path, *SOME)]
    full = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    reason = complaint(full.stderr)
    assert full.returncode == 2 and str(tmp_path) in reason
    assert "cannot be written (File too large)" in reason
    kept = {path: path.read_bytes() for path in tmp_path.glob(".work/*/*.jsonl")}
    assert any(value.count(b"\n") > 1 for value in kept.values())
    process = start(root, tmp_path, *SOME)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert content(tmp_path) == alone


def test_what_is_spoilt_fails_alone_and_can_be_mended(root, tmp_path, small, capsys):
    """An image that cannot be read, and a checkpoint that is not there, among good ones."""
    miniature.build(tmp_path)
    image, checkpoint = (
        tmp_path / "data/cid2013/IS5/co8/IS_V_C08_D12.jpg",
        tmp_path / "weights/tres-live_iqa.pth",
    )
    saved = image.read_bytes(), checkpoint.read_bytes()
    image.write_bytes(saved[0][:200])
    checkpoint.unlink()
    results = tmp_path / "results"
    options = miniature.options(
        tmp_path, results, "--backbones", "tres", "metaiqa", "--tables", "1", "7", "--seeds", "1"
    )
    assert all_expt.main(options) == 1
    printed = capsys.readouterr().out
    failed = [line for line in printed.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 3 + 3 and "22 of 36 cells" in printed
    assert all("IS_V_C08_D12.jpg" in line for line in failed)
    (missing,) = [line for line in printed.splitlines() if line.startswith("missing: ")]
    assert "tres-live_iqa, for 8 cells" in missing and "download_weights tres-live_iqa" in missing
    good = {path: path.stat().st_mtime_ns for path in results.glob("*/*/*/result.json")}
    image.write_bytes(saved[0])
    checkpoint.write_bytes(saved[1])
    assert all_expt.main(options) == 1, "what failed is not tried again unless asked for"
    assert "30 of 36 cells" in capsys.readouterr().out, "what was missing is"
    assert all_expt.main([*options, "--retry-failed"]) == 0
    assert "36 of 36 cells" in capsys.readouterr().out and not list((results / "failed").iterdir())
    assert all(path.stat().st_mtime_ns == then for path, then in good.items())


def test_a_dry_run_on_an_empty_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IQA_DATA_ROOT", raising=False)
    assert all_expt.main(["--dry-run", "--weights-dir", str(tmp_path / "weights")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("222 places, 181 cells: 0 done, 0 failed before")
    assert "0 to do, 181 cannot be run yet\nto do: nothing; cannot be run yet: about " in printed
    missing = [line for line in printed.splitlines() if line.startswith("missing: ")]
    assert len(missing) == 5 + 7 and "2 CPU cores" in printed
    assert any(f"download_weights tres-live_iqa --dest {tmp_path}" in line for line in missing)
    assert any("dslr" in line and "--data-root" in line and "M-SCQALE" in line for line in missing)
    assert not list(tmp_path.iterdir())
    assert all_expt.main([]) == 2
    assert "IQA_DATA_ROOT" in capsys.readouterr().err
    assert tres.all_expt.main(["--dry-run", "--weights-dir", str(tmp_path / "weights")]) == 0
    assert "117 places, 92 cells: " in capsys.readouterr().out


def test_a_target_is_a_band_of_dmos_or_a_fixed_few(root):
    """Above the first bound, up to the second; and the same few images whatever else there is."""
    band = inputs.images(Target("live_iqa", between=(40.0, 60.0)), None, root / "data").photographs
    assert sorted(-photograph.mos for photograph in band) == [45, 50, 55, 60, 60]
    few, more = (
        {photograph.key for photograph in inputs.images(Target("live_iqa"), limit, root / "data").photographs}
        for limit in (3, 7)
    )
    assert len(few) == 3 and len(more) == 7 and few < more
    with pytest.raises(UserError, match="at least 2"):
        inputs.images(Target("live_iqa", between=(41.0, 42.0)), None, root / "data")


def test_results_do_not_go_into_the_data(root, capsys):
    options = miniature.options(root, root / "data/results")
    assert all_expt.main(options) == 2 and "data folder" in capsys.readouterr().err


def test_one_cell_beside_the_published_one(root, tmp_path, small, capsys):
    """The command for one cell finds what the sweep finds, and prints what the paper does."""
    sweep = miniature.options(
        root, tmp_path, "--backbones", "tres", "--tables", "4", "--datasets", "pipal", "--seeds", "2"
    )
    assert all_expt.main(sweep) == 0
    (entry,) = (entry for entry in grid(2) if entry.key[:1] + entry.key[3:] == ("4", "pipal", "p=0.375"))
    found = json.loads(Store(tmp_path).result(entry.cell).read_text())
    capsys.readouterr()
    one = [
        "--table",
        "4",
        "--backbone",
        "tres",
        "--dataset",
        "pipal",
        "--method",
        "gc",
        "--p",
        "0.375",
        "--seeds",
        "2",
    ]
    weights = [
        "--weights",
        str(root / "weights/tres-live_fb.pth"),
        "--data-root",
        str(root / "data"),
        "--device",
        "cpu",
    ]
    assert reproduce_cell.main([*one, *weights, "--json", str(tmp_path / "one.json")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("SROCC  "))
    measured = json.loads((tmp_path / "one.json").read_text())["adapted"]["srocc"]["mean"]
    assert measured == found["adapted"]["srocc"]["mean"]
    assert "0.4602" in line and f"{measured - 0.4602:+.4f}" in line
    assert (
        reproduce_cell.main([*one, "--temperature", "1"]) == 2
        and "p=0.25, p=0.375, p=0.5" in capsys.readouterr().err
    )
    seven = ["--table", "7", "--backbone", "tres", "--dataset"]
    assert (
        reproduce_cell.main([*seven, "pipal"]) == 2
        and "tres-live_fb and tres-live_iqa" in capsys.readouterr().err
    )
    assert reproduce_cell.main([*seven, "spaq", "--weights", "tres-live_iqa"]) == 2
    assert "tres-live_fb" in capsys.readouterr().err
    for other in (["--batch-size", "4"], ["--subset", "distortion_1"]):
        assert reproduce_cell.main([*one, *weights, *other]) == 2 and other[0] in capsys.readouterr().err
    six = ["--table", "6", "--backbone", "tres", "--dataset", "pipal", "--seeds", "1", *weights, "--adapt"]
    for adapt, row in (("bn", "BN Only"), ("ln+bn", "BN+LN")):
        assert reproduce_cell.main([*six, adapt]) == 0 and row in capsys.readouterr().out


def test_one_cell_is_reported_like_a_sweep(root, tmp_path, small, capsys):
    """The command for one cell writes what the sweep writes, and the report shows it."""
    places = ["--backbone", "tres", "--dataset", "pipal", "--method", "gc", "--seeds", "2", "--device", "cpu"]
    files = ["--data-root", str(root / "data"), "--weights-dir", str(root / "weights")]
    one, swept = tmp_path / "one", tmp_path / "swept"
    cell = [*places, *files, "--weights", "tres-live_fb", "--results", str(one)]
    assert reproduce_cell.main([*cell, "--json", str(tmp_path / "one.json")]) == 0
    options = (
        "--backbones",
        "tres",
        "--tables",
        "2",
        "--datasets",
        "pipal",
        "--methods",
        "gc",
        "--seeds",
        "2",
    )
    assert all_expt.main(miniature.options(root, swept, *options)) == 0
    assert content(one) == content(swept) and len(content(one)) == 2
    assert next(one.glob("*/*/*/result.json")).read_bytes() == (tmp_path / "one.json").read_bytes()
    capsys.readouterr()
    assert report.main([str(one), "--out", str(tmp_path / "out"), "--data-root", str(root / "data")]) == 0
    assert capsys.readouterr().out.startswith("1 of 181 cells finished")
    index = (one / "cells.csv").read_text()
    assert index == (swept / "cells.csv").read_text().replace("Table 2: gc", "") and "done" in index
    nothing = ["--data-root", str(tmp_path / "none"), "--weights-dir", str(tmp_path / "none")]
    assert reproduce_cell.main([*cell, *nothing]) == 2, "before anything is read"
    assert "is there already" in capsys.readouterr().err


def test_a_network_is_imported_when_it_is_asked_for():
    code = (
        "import sys, argparse; from weights.networks import BACKBONES, CPU_SECONDS, NAMES; "
        "argparse.ArgumentParser().add_argument('--backbone', choices=BACKBONES); "
        "assert 'tres' in BACKBONES and tuple(BACKBONES) == tuple(CPU_SECONDS) == NAMES; "
        "assert not set(NAMES) & set(sys.modules); BACKBONES['musiq']; "
        "assert 'musiq.wrapper' in sys.modules and 'tres' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_another_checkpoint_in_a_place_of_a_table_is_another_cell():
    """Else a sweep would count it as done."""
    asked = ["--table", "1", "--backbone", "tres", "--dataset", "pipal"]
    own, place = reproduce_cell_run.cell_of(reproduce_cell.parser().parse_args(asked))
    other, same_place = reproduce_cell_run.cell_of(
        reproduce_cell.parser().parse_args([*asked, "--weights", "my.pth"])
    )
    assert place == same_place and own == place.cell
    assert other == replace(own, weights="my.pth") and other.id != own.id


def test_what_adapts_has_one_order():
    asked = ["--backbone", "tres", "--dataset", "pipal", "--weights", "w.pth", "--adapt"]
    cells = [
        reproduce_cell_run.cell_of(reproduce_cell.parser().parse_args([*asked, kinds]))[0]
        for kinds in ("cls+ln", "ln+cls", "ln+cls+ln")
    ]
    assert len({cell.id for cell in cells}) == 1 and cells[0].method.adapt == ("ln", "cls")
