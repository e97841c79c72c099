"""The doors of a command: what it is given, how it ends, and what it prints."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from common.system import cli, device, files
from common.system.cli import Parser
from common.system.errors import UserError, command, fault
from common.system.locks import locked
from common.system.output import check_targets
from common.system.text import counted, printable, shortened
from tests.test_start_up import COMMANDS

ROOT = Path(__file__).parent.parent


# --- How a command ends


def system(number, name=None):
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    "raised, status, said",
    [
        (UserError("a\x1b[31mb\nc"), 2, r"error: a\x1b[31mb c"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "error: this takes more memory than there is: fewer --workers, or"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            2,
            "error: this takes more memory",
        ),
        (
            RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed."),
            2,
            "error: the system ended a loader",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
        (system(errno.ENOSPC, "a/b"), 2, "error: a/b: No space left on device: free some space, or"),
        (
            system(errno.EACCES, b"a\xff"),
            2,
            "error: a\ufffd: Permission denied: choose another place, or mend",
        ),
        (system(errno.ENAMETOOLONG, "x"), 2, "error: x: File name too long: choose a shorter name"),
        (OSError("of no number"), 2, "error: of no number"),
    ],
)
def test_what_ends_a_command_is_one_line(capsys, raised, status, said):
    @command
    def main(argv):
        print("before")
        raise raised

    assert main([]) == status
    out, error = capsys.readouterr()
    assert out == "before\n" and error.startswith(said) and error.count("\n") == bool(said)


def test_a_fault_of_the_program_has_its_traceback():
    @command
    def main(argv):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        main([])


def test_what_a_command_prints_steers_no_terminal(capsys):
    @command
    def main(argv):
        print("a\x1b]0;title\x07b", "c\udcff", "d\u202ee\tf")
        sys.stdout.write("g\nh\n")

    assert main([]) == 0
    assert capsys.readouterr().out == "a\\x1b]0;title\\x07b c\ufffd d\\u202ee\\tf\ng\nh\n"


def run(*words, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, *words],
        **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment, **options},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


LISTING = ("-m", "scripts.download_weights", "--list")


def test_an_output_that_nobody_reads_ends_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    process = run(*LISTING, stdout=writing)
    os.close(writing)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 141 and error == b""


def test_an_output_on_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        process = run(*LISTING, stdout=full)
    _, error = process.communicate(timeout=60)
    assert (
        process.returncode == 2
        and error == b"error: No space left on device: free some space, or choose another place\n"
    )


def test_names_that_the_terminal_has_no_letters_for_are_printed(tmp_path):
    names = [b"x\xff", "日本".encode()]
    for name in names:
        os.mkdir(os.path.join(os.fsencode(tmp_path), name))
        environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
        process = run(
            "-m",
            "scripts.check_data",
            "--data-root",
            os.path.join(os.fsencode(tmp_path), name),
            env=environment,
        )
        out, error = process.communicate(timeout=60)
        assert process.returncode == 1 and error == b"" and b"not there" in out and out.isascii()


SLOW = """
import os, sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["SLOW"] and os.environ.pop("MARK", None):
            open(os.environ["SEEN"], "w").close()
            time.sleep(60)
sys.meta_path.insert(0, Slow())
"""


@pytest.mark.parametrize(
    "name, slow",
    [
        *((name, "common.system.cli") for name in COMMANDS if name != "weights.manifest"),
        ("scripts.score_images", "torch"),
    ],
)
def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path, name, slow):
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    seen = tmp_path / "seen"
    environment = {"PYTHONPATH": str(tmp_path), "SLOW": slow, "MARK": "1", "SEEN": str(seen)}
    process = (
        run("-m", name, str(ROOT / "docs/figures/none.jpg"), env=environment)
        if slow != "torch"
        else run(
            "-m",
            name,
            "--backbone",
            "metaiqa",
            "--weights",
            "weights/demo/metaiqa.safetensors",
            str(picture(tmp_path)),
            env=environment,
        )
    )
    while not seen.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and error == b"interrupted\n"


def picture(folder):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(folder / "x.png")
    return folder / "x.png"


# --- What it is given


@pytest.mark.parametrize("words", [["--results", ""], ["--results="], [""], ["a", ""]])
def test_an_empty_argument_is_refused(words):
    parser = Parser()
    parser.add_argument("--results", type=Path)
    parser.add_argument("paths", nargs="*")
    with pytest.raises(UserError, match="is empty: is a variable of the shell not set"):
        parser.parse_args(words)
    assert parser.parse_args(["--results", "a", "b"]).paths == ["b"]


@pytest.mark.parametrize(
    "kind, good, bad, message",
    [
        (cli.seeds, "10000", "10001", "must be at most 10000 seeds"),
        (cli.batch_size, "4096", "100000", "at most 4096 images of a batch"),
        (cli.steps, "0", "1000000000000", "at most 10000 steps"),
        (cli.side, "224", "0", "must be at least 1"),
        (cli.positive, "5", "1_0", "is no whole number"),
        (cli.positive, "5", "１", "is no whole number"),
        (cli.natural, "0", "9" * 5000, "is no whole number"),
        (cli.finite, "1e-3", "1_0", "is no number"),
        (cli.finite, "-1", "１", "is no number"),
        (cli.finite, ".5", "inf", "must be finite"),
        (cli.seconds, "0", "-1", "must not be negative"),
    ],
)
def test_numbers_have_bounds_that_say_what_they_are_for(kind, good, bad, message):
    parser = Parser()
    parser.add_argument("--n", type=kind)
    assert parser.parse_args(["--n", good]).n == float(good)
    with pytest.raises(UserError, match=message):
        parser.parse_args(["--n", bad])


def test_a_link_to_itself_is_no_output(tmp_path):
    (tmp_path / "x.csv").symlink_to("x.csv")
    with pytest.raises(UserError, match="x.csv is no ordinary file"):
        check_targets([tmp_path / "x.csv"], [])
    check_targets([tmp_path / "y.csv"], [tmp_path / "x.csv"])
    with pytest.raises(UserError, match="a name of 300 characters: choose a shorter one"):
        check_targets([tmp_path / ("x" * 300)], [])


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refused(self):
        raise system(errno.ENOLCK)

    monkeypatch.setattr(FileLock, "_acquire", refused)
    for wait in (False, True):
        with (
            pytest.raises(UserError, match="cannot be locked .No locks available.: choose a folder"),
            locked(tmp_path / "x", wait),
        ):
            pass


def test_a_text_that_is_larger_than_what_it_should_be_is_not_read(tmp_path):
    (tmp_path / "x").write_text("a" * 11)
    with pytest.raises(UserError, match="has more than 10 bytes, as no list has"):
        files.read_text(tmp_path / "x", "list", 10)
    assert files.read_text(tmp_path / "x", "list", 11) == "a" * 11


def test_the_commit_of_another_repository_is_not_recorded(tmp_path, monkeypatch):
    """The project, unpacked inside a checkout of something else."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "a"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "project").mkdir()
    monkeypatch.setattr(device, "ROOT", tmp_path)
    assert device._commit()
    monkeypatch.setattr(device, "ROOT", tmp_path / "project")
    assert device._commit() is None
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "project"))
    assert device._commit() is None


# --- Words


def test_words():
    assert printable("a b\u00a0c\u3000é日") == "a b\u00a0c\u3000é日"
    assert printable("a\tb\r\nc\ud800") == r"a\tb c" + "\ufffd"
    assert counted(1, "image") == "1 image" and counted(0, "try", "tries") == "0 tries"
    assert shortened("a" * 100) == "a" * 100 and shortened("a" * 101, 50) == "a" * 47 + "..."
    assert shortened("one two three four five six", 20) == "one two three..."
    assert fault(KeyError("a")) == "KeyError: 'a'" and fault(ValueError()) == "ValueError"
    assert (
        fault(system(errno.EIO, "x")) == "Input/output error" and len(fault(ValueError("a\nb" * 500))) <= 100
    )
