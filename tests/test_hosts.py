"""A sweep on several hosts, each with a network and folders of its own: a line is cut, and a host dies."""

import os
import re
import shutil
import subprocess
import time

import pytest

from tests import miniature
from tests.test_cluster import (
    alone,  # noqa: F401, a fixture, as the next one
    at_work,
    ended,
    keep_worker,
    launch,
    root,  # noqa: F401
    start_scheduler,
    wait_for,
)
from tests.test_sweep import content

HEAD = "10.213.77.1"
FAST = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s"}  # the least that Dask allows


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no network namespaces here: ip {' '.join(arguments)}: {done.stderr.strip()}")


@pytest.fixture(scope="module")
def hosts():
    """Names of three network namespaces: the first has the bridge between them, with a port for each other's
    name."""
    if shutil.which("ip") is None:
        pytest.skip("no network namespaces here: there is no ip command")
    head, *others = names = [f"iqa{os.getpid()}{letter}" for letter in "hab"]
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", head, "link", "add", "name", "bridge", "type", "bridge")
        ip("-n", head, "addr", "add", f"{HEAD}/24", "dev", "bridge")
        ip("-n", head, "link", "set", "bridge", "up")
        for number, name in enumerate(others, start=2):
            ip("-n", head, "link", "add", "name", name, "type", "veth", "peer", "name", "line", "netns", name)
            ip("-n", head, "link", "set", name, "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"{HEAD[:-1]}{number}/24", "dev", "line")
            ip("-n", name, "link", "set", "line", "up")
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name])


def on(host):
    return "ip", "netns", "exec", host


def test_a_line_that_is_cut_and_a_host_that_dies_change_nothing(hosts, root, tmp_path, alone):  # noqa: F811
    """The scheduler is on one host, as is the launcher; each of the others has copies of what it reads.

    The line to one is cut twice: too shortly to matter, and until both its ends have noticed. Its worker
    comes again, after the other host has died.
    """
    head, cut, dies = hosts
    file, results = tmp_path / "scheduler.json", tmp_path / "results"
    logs = {name: tmp_path / f"{name}.log" for name in (cut, dies)}
    processes = [start_scheduler(file, HEAD, on(head), **FAST)]
    environment = {**miniature.ENVIRONMENT, **FAST, "MINIATURE_PAUSE": "0.1"}
    try:
        for name, log in logs.items():
            shutil.copytree(root, tmp_path / name)
            own = (
                "--data-root",
                str(tmp_path / name / "data"),
                "--weights-dir",
                str(tmp_path / name / "weights"),
            )
            processes.append(keep_worker(file, log, *own, inside=on(name), **environment))
        process = launch(root, results, "--scheduler", str(file), inside=on(head), **FAST)
        processes.append(process)
        wait_for(lambda: len(at_work(results)) == 2 or process.poll() is not None)
        (sweep_log,) = (results / "logs").glob("*.log")

        ip("-n", head, "link", "set", cut, "down")
        time.sleep(3)
        ip("-n", head, "link", "set", cut, "up")
        time.sleep(1)
        assert "LOST" not in sweep_log.read_text()

        ip("-n", head, "link", "set", cut, "down")
        began = time.monotonic()
        wait_for(lambda: "LOST" in sweep_log.read_text())
        assert time.monotonic() - began < 20
        wait_for(lambda: "the worker ended with status 0" in logs[cut].read_text())
        ip("-n", head, "link", "set", cut, "up")
        processes[2].kill()
        printed = ended(process)
    finally:
        for one in processes:
            one.kill()
            one.wait()
    assert content(results) == alone
    names = {name: re.findall(r"Worker name: +(\S+)", log.read_text()) for name, log in logs.items()}
    assert len(names[cut]) == 2 and len(names[dies]) == 1
    lost = re.findall(r"\((\S+)\) on \S+ LOST: it ended, or its machine or the line to it did", printed)
    assert lost == [names[cut][0], names[dies][0]]
    assert f"({names[cut][1]})" in sweep_log.read_text()
