"""Changed files keep the promise for some seconds (`make fuzz`: two minutes); who breaks it is found."""

import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz import __main__ as fuzz

ROOT = Path(__file__).parent.parent


def test_changed_files_of_every_kind_keep_the_promise(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = re.findall(r"^(\S.*?) +(\d+) +\d+ +\d+ +[\d.]+ +0$", done.stdout, re.MULTILINE)
    assert len(figures) == 12 and all(int(files) for _, files in figures), done.stdout


PLANTED = """
import os, socket, subprocess, sys, time
from pathlib import Path
from common.system.errors import UserError
from collections import Counter
from hypothesis import Phase
from tests.fuzz import contract, reading
from tests.fuzz.readers import Reader
from tests.fuzz.seeds import alone

contract.SECONDS, contract.MEGABYTES, reading.PHASES = 2, 100, [Phase.generate]
def when_changed(harm):
    def read(folder):
        content = (folder / "x").read_bytes()
        if content != b"a" * 50 and len(content) > 20:
            harm(folder)
    return read

def user_error(message):
    raise UserError(message)

def caught(folder):
    try:
        time.sleep(60)
    except Exception:
        pass

PLANTED = {
    "raises": lambda folder: {}["a"],
    "waits": caught,
    "takes": lambda folder: bytearray(contract.MEGABYTES << 21).count(1),
    "starts": lambda folder: subprocess.run(["gs", "-v"]),
    "asks": lambda folder: socket.create_connection(("127.0.0.1", 9)),
    "writes": lambda folder: (folder / "y").write_text("a"),
    "removes": lambda folder: (folder / "x").unlink(),
    "talks": lambda folder: user_error("a" * 3000),
    "good": lambda folder: user_error("a"),
}
found = contract.Contract(Path(sys.argv[1]))
for name, harm in PLANTED.items():
    reader = Reader(name, lambda: [alone("x", b"a" * 50)], when_changed(harm))
    try:
        reading.some(reader, found, Path(sys.argv[1]), 1, Counter())
    except contract.Broken as error:
        reading.tell(reader=name, broken=str(error))
"""


def test_who_breaks_the_promise_is_found(tmp_path):
    told, _, fault = fuzz.watched([sys.executable, "-c", PLANTED, str(tmp_path)], tmp_path)
    assert not fault
    broken = {line["reader"]: line["broken"] for line in told if "broken" in line}
    for name, how in {
        "raises": "KeyError: 'a'",
        "waits": "still at it after 2 s",
        "takes": "took ",
        "starts": "subprocess.Popen",
        "asks": "socket.connect",
        "writes": "wrote: ['open",
        "removes": "os.remove",
        "talks": "a message of 3000 letters",
    }.items():
        assert how in broken.pop(name, ""), (name, told)
    assert not broken


def test_a_crash_or_a_hang_is_found(tmp_path, monkeypatch):
    crash = "print('{}', flush=True); import os; os.kill(os.getpid(), 11)"
    assert fuzz.watched([sys.executable, "-c", crash], tmp_path)[2].startswith("the process ended by SIGSEGV")
    monkeypatch.setattr(fuzz, "SILENCE", 1)
    assert "hangs" in fuzz.watched([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path)[2]
