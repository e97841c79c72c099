"""A sweep on the workers of a Dask cluster: killed, added, cut off and wrong ones; and jobs of Slurm."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

import scripts.worker
from common.runs import dask_worker
from common.runs.slurm import lifetime, time_limit
from common.system.errors import UserError
from tests import miniature, stand_in_slurm
from tests.test_sweep import ROOT, complaint, content

KILLS = int(os.environ.get("SWEEP_KILLS", 24))  # of workers; make soak has more
SEEDS = str(max(8, KILLS // 3))
SWEEP = ("--backbones", "tres", "--tables", "1", "3", "--datasets", "pipal", "live_iqa", "--seeds", SEEDS)
LAUNCHER = (  # asks for little at a time, so that a kill meets a job half done
    "import sys; from common.runs import cluster, slurm, sweep; "
    "cluster.SECONDS = sweep.STATUS_SECONDS = 0.1; slurm.LOOK = 0.5; "
    "from tests import miniature; miniature.dask_setup(None); sys.exit(miniature.main(sys.argv[1:]))"
)


def launch(root, results, *more, sweep=SWEEP, inside=(), **environment):
    """inside: a command that runs another one."""
    options = miniature.options(root, results, *sweep, *more)
    return subprocess.Popen(
        [*inside, sys.executable, "-c", LAUNCHER, *options],
        cwd=ROOT,
        env={**os.environ, **miniature.ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process, timeout=240):
    printed, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, printed + errors
    return printed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("miniature")
    miniature.build(root)
    return root


@pytest.fixture(scope="module")
def alone(root, tmp_path_factory):
    """What an uninterrupted sweep on one device finds."""
    results = tmp_path_factory.mktemp("alone")
    ended(launch(root, results))
    return content(results)


def run_worker(scheduler_file, name, environment):
    """Be a worker of Dask, in a process that has imported everything already."""
    os.environ.update({**dask_worker.worker_environment("cpu"), **miniature.ENVIRONMENT, **environment})
    log = os.open(f"{scheduler_file}.{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import dask
    from distributed.cli.dask_worker import main

    dask.config.refresh()
    main(dask_worker.worker_command(str(scheduler_file), name)[3:])


class Workers:
    """Processes of workers that start fast."""

    def __init__(self, scheduler_file):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.test_cluster", "distributed.cli.dask_worker"])
        self.scheduler_file, self.number, self.processes = scheduler_file, 0, []

    def add(self, **environment):
        self.number += 1
        arguments = self.scheduler_file, f"w{self.number}", environment
        process = self.context.Process(target=run_worker, args=arguments)
        process.start()
        self.processes.append(process)
        return arguments[1], process

    def kill(self, process):
        self.processes.remove(process)
        process.kill()
        process.join()


def start_scheduler(file, host="127.0.0.1", inside=(), **environment):
    """Start a scheduler of Dask, and wait until it has written its address to a file."""
    command = [*inside, sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", host, "--port", "0"]
    process = subprocess.Popen(
        [*command, "--no-dashboard", "--scheduler-file", str(file)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(file.exists)
    return process


def wait_for(come, timeout=60):
    deadline = time.monotonic() + timeout
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def scheduler(folder, **environment):
    """A scheduler and its workers; gives the file that it has written."""
    file = folder / "scheduler.json"
    process, workers = start_scheduler(file, **environment), Workers(file)
    try:
        yield file, workers
    finally:
        for worker in list(workers.processes):
            workers.kill(worker)
        process.kill()
        process.wait()


def at_work(results):
    """The names of the workers that have a job."""
    try:
        status = json.loads((results / ".work/status.json").read_text())
    except (OSError, ValueError):
        return set()
    return {re.search(r"\((.*)\)", one["worker"])[1] for one in status["workers"] if one["job"]}


def test_kills_of_workers_and_of_the_launcher_change_nothing(root, tmp_path, alone):
    """One of three workers at work dies again and again; with every twelfth the launcher, but the last."""
    chance = random.Random(0)
    with scheduler(tmp_path) as (file, workers):
        results = tmp_path / "results"
        names = dict(workers.add() for _ in range(3))
        process = launch(root, results, "--scheduler", str(file))
        printed, kills, launchers, begun = "", 0, 1, time.monotonic()
        while process.poll() is None:
            assert time.monotonic() - begun < 300 + 10 * KILLS
            victims = sorted(at_work(results) & names.keys())
            if kills < KILLS and victims:
                victim = chance.choice(victims)
                workers.kill(names.pop(victim))
                names |= [workers.add()]
                kills += 1
                if kills % 12 == 0 and kills < KILLS:
                    process.kill()
                    printed += process.communicate()[0]
                    (results / ".work/status.json").unlink()  # what it said is of the one that died
                    process, launchers = launch(root, results, "--scheduler", str(file)), launchers + 1
            time.sleep(0.05)
        printed += ended(process)
    seconds, lost = time.monotonic() - begun, printed.count("LOST")
    print(f"{kills} workers killed, {lost} of them seen, {launchers - 1} launchers; {seconds:.0f} s")
    # A launcher looks once a second, and may die before it has told of the last death of any of the three.
    assert kills == KILLS and lost >= KILLS - 3 * launchers
    assert content(results) == alone


def test_a_worker_that_hangs_is_given_up(root, tmp_path, alone):
    """Its kernel answers, as that of a machine that swaps does; when it goes on, it is too late."""
    with scheduler(tmp_path, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="3s") as (file, workers):
        results = tmp_path / "results"
        names = dict(workers.add(MINIATURE_PAUSE="0.05") for _ in range(2))
        process = launch(root, results, "--scheduler", str(file))
        wait_for(lambda: len(at_work(results)) == 2 or process.poll() is not None)
        os.kill(names["w1"].pid, signal.SIGSTOP)
        wait_for(lambda: at_work(results) == {"w2"} or process.poll() is not None, 30)
        os.kill(names["w1"].pid, signal.SIGCONT)
        names["w1"].join(30)
        assert names["w1"].exitcode == 0
        printed = ended(process)
    assert "(w1) on" in printed and printed.count("LOST") == 1
    assert content(results) == alone


def test_workers_with_other_code_data_or_weights_are_left_out(root, tmp_path, alone):
    """Each with its reason, in one line; the others do the work."""
    other = tmp_path / "other"
    shutil.copytree(root, other)
    with next((other / "data/live_iqa").rglob("*.bmp")).open("ab") as file:
        file.write(b"\0")
    weights = next((other / "weights").glob("tres-live_fb*"))
    weights.write_bytes(weights.read_bytes() + b"\0")
    code = tmp_path / "code"
    for name in ("common", "data", "weights", "scripts", "tests", "tres", "musiq", "hyperiqa", "metaiqa"):
        shutil.copytree(
            ROOT / name, code / name, ignore=shutil.ignore_patterns("raw", "files", "__pycache__")
        )
    with (code / "common/losses.py").open("a") as file:
        file.write("# a change\n")
    results = tmp_path / "results"
    with scheduler(tmp_path) as (file, workers):
        workers.add(IQA_DATA_ROOT=str(other / "data"))
        workers.add(IQA_WEIGHTS_DIR=str(other / "weights"))
        log = tmp_path / "log"
        elsewhere = keep_worker(file, log, cwd=code, **miniature.ENVIRONMENT)
        try:
            wait_for(lambda: "Registered to" in log.read_text())
            process = launch(root, results, "--scheduler", str(file))
            wait_for(lambda: left_out(results) == 3)
            workers.add()
            printed = ended(process)
        finally:
            elsewhere.kill()
            elsewhere.wait()
    assert content(results) == alone
    for name, fault in (
        ("w1", "its images of live_iqa are others, by their names and sizes: copy them anew"),
        ("w2", r"its tres-live_fb has sha256 \w{12}, not \w{12}: copy it anew"),
        (r"\S+-cpu-\w{4}", r"its code is another one \(digest \w{12}, here \w{12}\): use one commit"),
    ):
        assert re.search(rf"\] worker \d \({name}\) on \S+ LEFT OUT: {fault}\n", printed), printed
    assert printed.count("LEFT OUT") == 3


def left_out(results):
    with suppress(OSError, ValueError):
        return len(json.loads((results / ".work/status.json").read_text())["left_out"])


def test_a_cell_that_kills_its_workers_fails_alone(root, tmp_path, alone):
    results = tmp_path / "results"
    with scheduler(tmp_path) as (file, workers):
        process = launch(root, results, "--datasets", "live_iqa", "--scheduler", str(file))
        deaths = 0
        while process.poll() is None:
            for dead in [one for one in workers.processes if not one.is_alive()]:
                workers.processes.remove(dead)
                deaths += 1
            while len(workers.processes) < 2:
                workers.add(MINIATURE_POISON="rotation")
            time.sleep(0.05)
        printed, errors = process.communicate()
    assert process.returncode == 1, errors
    assert "7 of 8 cells" in printed and "1 failed" in printed
    assert re.search(
        r"failed: \w{16}  .*: Rotation .*: 5 workers in a row died at it; the last: it ended", printed
    )
    good = {path: told for path, told in alone.items() if "live_iqa" in path.parts}
    assert content(results) == {path: told for path, told in good.items() if "rotation" not in str(path)}
    assert 10 <= deaths <= 25


def keep_worker(scheduler, log, *options, cwd=ROOT, inside=(), **environment):
    """`python -m scripts.worker`, whose workers load the small networks if the environment says so."""
    command = [*inside, sys.executable, "-m", "scripts.worker", str(scheduler), "--device", "cpu", *options]
    with log.open("wb") as output:
        return subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **environment}, stdout=output, stderr=output
        )


def test_a_kept_worker_outlives_the_scheduler_and_ends_after_a_while(tmp_path):
    file, log = tmp_path / "scheduler.json", tmp_path / "log"
    kept = keep_worker(file, log, "--patience", "8")  # there is no scheduler yet
    for number in (1, 2):
        scheduler = start_scheduler(file)
        wait_for(lambda found=number: log.read_text().count("Registered to") == found)
        file.unlink()
        scheduler.kill()
        scheduler.wait()
    assert kept.wait(60) == 0
    assert log.read_text().splitlines()[-1] == f"the scheduler at {file} has been away for 8 seconds"
    names = re.findall(r"Worker name: +(\S+)", log.read_text())
    assert len(names) == len(set(names)) == 2
    assert all(name.startswith(f"{socket.gethostname()}-cpu-") for name in names)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_kept_worker_ends_with_its_command(tmp_path, how):
    log = tmp_path / "log"
    kept = keep_worker("127.0.0.1:9", log)
    wait_for(lambda: "Waiting to connect" in log.read_text())
    (worker,) = psutil.Process(kept.pid).children()
    kept.send_signal(how)
    kept.wait(10)
    wait_for(lambda: not worker.is_running(), 10)


def test_a_kept_worker_lives_no_longer_than_it_may(tmp_path):
    with scheduler(tmp_path) as (file, _):
        kept = keep_worker(file, tmp_path / "log", "--lifetime", "2s")
        assert kept.wait(60) == 0
    assert "Reason: worker-lifetime-reached" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "options, fault",
    [
        (["127.0.0.1:9", "--patience", "1"], "no scheduler of Dask at 127.0.0.1:9"),
        (["127.0.0.1:9", "--data-root", "nowhere"], "nowhere: no such folder"),
        (["127.0.0.1:9", "--device", "gpu"], "device 'gpu' is none"),
        (["127.0.0.1:9", "--lifetime", "8"], "'8' is no time, such as 7h50m"),
        (["127.0.0.1:9", "--dask", "no-such"], "mend --dask"),
    ],
)
def test_what_a_kept_worker_cannot_do_is_said_in_one_line(options, fault, capfd):
    assert scripts.worker.main(options) == 2
    assert fault in capfd.readouterr().err.splitlines()[-1]


def test_a_kept_worker_needs_dask(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert scripts.worker.main(["127.0.0.1:9"]) == 2
    assert re.fullmatch("error: several devices or machines need Dask: .*\n", capsys.readouterr().err)


@pytest.fixture
def slurm(tmp_path):
    """The folder of a stand-in for Slurm, and the environment that has its commands."""
    folder = tmp_path / "slurm"
    environment = stand_in_slurm.install(folder)
    yield folder, {**environment, "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "1s"}
    left = stand_in_slurm.live(folder)
    for number in left:
        stand_in_slurm.scancel(folder, number)
    assert not left


def test_jobs_of_slurm_that_end_change_nothing(root, tmp_path, alone, slurm):
    """The first is killed before its worker is there; the others end themselves before their limit."""
    folder, environment = slurm
    stand_in_slurm.doom(folder, 1)
    results = tmp_path / "results"
    asked = ("--slurm", "--partition=gpu --gres=gpu:1 --time=00:00:30", "--workers-max", "2")
    process = launch(root, results, *asked, MINIATURE_PAUSE="0.12", **environment)
    seen = {}
    while process.poll() is None:
        for path in (folder / "jobs").glob("*.pid"):
            with suppress(psutil.Error, OSError, ValueError):
                of_nanny = psutil.Process(int(path.read_text())).children(recursive=True)
                seen |= {
                    one.pid: one.environ() for one in of_nanny if "spawn_main" in " ".join(one.cmdline())
                }
        assert len(stand_in_slurm.live(folder)) <= 3  # one of them may be ending
        time.sleep(0.1)
    ended(process)
    assert content(results) == alone
    log = stand_in_slurm.log(folder)
    assert "1 killed" in log and not any("timed out" in line for line in log)
    printed = [path.read_text() for path in (results / "logs").glob("*.err")]
    assert sum("Reason: worker-lifetime-reached" in text for text in printed) >= 2
    assert len(log) == len(printed) >= 5 and len(seen) >= 4
    for worker in seen.values():
        assert worker["CUDA_VISIBLE_DEVICES"] == stand_in_slurm.GPU and worker["IQA_DEVICE"] == "cpu"
        assert "MALLOC_TRIM_THRESHOLD_" not in worker


def test_jobs_of_slurm_without_work_are_ended(root, tmp_path, slurm):
    """One that waits in the queue, and one whose worker is idle, while another is still at the last job."""
    folder, environment = slurm
    stand_in_slurm.hold(folder, 3)
    results = tmp_path / "results"
    sweep = ("--backbones", "tres", "--tables", "1", "3", "--seeds", "1", "--datasets", "pipal", "live_iqa")
    asked = ("cid2013", "--slurm", "--partition=gpu --time=01:00:00", "--workers-max", "3")
    process = launch(root, results, *asked, sweep=sweep, MINIATURE_PAUSE="0.5", **environment)
    before = []
    while process.poll() is None:
        found = stand_in_slurm.log(folder)
        if len(list(results.glob("*/live_iqa/*/result.json"))) == 0:
            before = found
        time.sleep(0.05)
    ended(process)
    assert len(before) == 2 and "3 cancelled" in before
    assert sorted(stand_in_slurm.log(folder)) == ["1 cancelled", "2 cancelled", "3 cancelled"]


@pytest.mark.parametrize(
    "partition, fault",
    [
        ("night", "--slurm: sbatch fails: sbatch: error: invalid partition specified: night"),
        (
            "gpu",
            "3 jobs of Slurm in a row ended before they could do anything: what they printed is in .*logs",
        ),
    ],
)
def test_a_sweep_ends_where_slurm_gives_it_nothing(root, tmp_path, slurm, partition, fault):
    folder, environment = slurm
    stand_in_slurm.doom(folder, 1, 2, 3, 4)
    asked = ("--slurm", f"--partition={partition} --time=10", "--workers-max", "1")
    process = launch(root, tmp_path / "results", *asked, **environment)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert re.fullmatch(f"error: {fault}.*", complaint(errors))


def test_jobs_of_slurm_that_cannot_take_part_are_ended(root, tmp_path, slurm):
    """Those whose machine has other data, for which Slurm would only find the same machine again."""
    folder, environment = slurm
    asked = ("--slurm", "--partition=gpu --time=1:00:00", "--workers-max", "1")
    process = launch(root, tmp_path / "results", *asked, IQA_DATA_ROOT=str(tmp_path / "none"), **environment)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert re.search(r"LEFT OUT: \S+/none: no such folder", printed)
    reason = complaint(errors)
    assert re.match(r"error: no worker in a job of Slurm can take part: \S+/none: no such folder", reason)
    assert stand_in_slurm.log(folder) == ["1 cancelled"]


@pytest.mark.parametrize(
    "options, seconds",
    [
        ("--partition=gpu", None),
        ("--time=90", 5400),
        ("-t 90:30", 5430),
        ("-t08:00:00 --gres=gpu:1", 28800),
        ("--time 1-12", 129600),
        ("--time=1-12:30", 131400),
        ("--time=2-00:00:01", 172801),
        ("--time=1 --time=2", 120),
        ("--time=0", None),
        ("--time=UNLIMITED", None),
    ],
)
def test_times_of_slurm(options, seconds):
    assert time_limit(options) == seconds


@pytest.mark.parametrize("text", ["soon", "1:2:3:4", "-5", "1-", "1.5"])
def test_what_is_no_time_of_slurm_is_refused(text):
    with pytest.raises(UserError, match="is no time of Slurm's"):
        time_limit(f"--time={text}")


def test_a_worker_ends_well_before_its_limit():
    for limit in (60, 900, 8 * 3600):
        _, mean, _, spread = lifetime(limit)
        earliest, latest = (float(mean[:-1]) + sign * float(spread[:-1]) for sign in (-1, 1))
        assert 0.5 * limit <= earliest < latest <= limit - min(300, limit / 6)
