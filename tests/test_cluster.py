"""A sweep on the workers of a Dask cluster: killed, added, cut off and wrong ones; and jobs of Slurm."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("distributed")

from common.runs import cluster
from tests import miniature
from tests.test_sweep import ROOT, content

SWEEP = ("--backbones", "tres", "--tables", "1", "3", "--datasets", "pipal", "koniq10k", "--seeds", "8")
LAUNCHER = (  # asks for little at a time, so that a kill meets a job half done
    "import sys; from common.runs import cluster, sweep; cluster.SECONDS = 0.1; sweep.STATUS_SECONDS = 0.1; "
    "from tests import miniature; miniature.dask_setup(None); sys.exit(miniature.main(sys.argv[1:]))"
)


def launch(root, results, *more):
    options = miniature.options(root, results, *SWEEP, *more)
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *options],
        cwd=ROOT,
        env={**os.environ, **miniature.ENVIRONMENT},
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
    os.environ.update({**cluster.worker_environment("cpu"), **miniature.ENVIRONMENT, **environment})
    log = os.open(f"{scheduler_file}.{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import dask
    from distributed.cli.dask_worker import main

    dask.config.refresh()
    main(cluster.worker_command(str(scheduler_file), name, "--no-nanny")[3:])


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
        os.kill(process.pid, signal.SIGKILL)
        process.join()


@contextmanager
def scheduler(folder):
    """A scheduler of Dask in a process of its own; gives the file that it writes."""
    file = folder / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--no-dashboard", "--scheduler-file", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    workers = Workers(file)
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
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
    """One of three workers at work dies again and again, and another comes; the launcher dies once."""
    chance = random.Random(0)
    with scheduler(tmp_path) as (file, workers):
        results = tmp_path / "results"
        names = dict(workers.add() for _ in range(3))
        process = launch(root, results, "--scheduler", str(file))
        printed, kills, deadline = "", 0, time.monotonic() + 300
        while process.poll() is None:
            assert time.monotonic() < deadline
            victims = sorted(at_work(results) & names.keys())
            if kills < 24 and victims:
                victim = chance.choice(victims)
                workers.kill(names.pop(victim))
                names |= [workers.add()]
                kills += 1
                if kills == 12:
                    process.kill()
                    printed += process.communicate()[0]
                    process = launch(root, results, "--scheduler", str(file))
            time.sleep(0.05)
        printed += ended(process)
    assert kills == 24 and printed.count("LOST") >= 20
    assert content(results) == alone
