"""What the README tells a new user to type, typed."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from common.system.cli import Parser

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)


def block(part):
    (found,) = [text for _, text in BLOCKS if part in text]
    return found


@pytest.mark.parametrize(
    "part", ["scripts.score_images", "import Adaptation", "from common.wrap import wrap"]
)
def test_the_examples_run_as_written(tmp_path, part):
    """In a copy of what they read, since they write to results/."""
    for name in ("common", "data", "scripts", "weights", "tres", "musiq", "hyperiqa", "metaiqa"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    shell = ["bash", "-e", "-c"] if "import" not in part else [sys.executable, "-c"]
    done = subprocess.run(
        [*shell, block(part)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if part == "scripts.score_images":
        assert "12 of 12 images scored" in done.stdout and "best:" in done.stdout
        assert re.match(r"( +\d\.\d{4}  .*\n){3}best:", done.stdout)
        assert len((tmp_path / "results/scores.csv").read_text().splitlines()) == 13
    else:
        assert len(re.findall(r"-?\d+\.\d+", done.stdout)) == (24 if part == "import Adaptation" else 8)


class Parsed(Exception):
    """A command has understood its options."""


@pytest.mark.parametrize("document, count", [("README.md", 18), ("docs/cluster.md", 7)])
def test_every_command_is_understood(monkeypatch, capsys, document, count):
    """By its own parser, as far as that goes before anything is done."""

    def parse_args(self, *arguments):
        super(Parser, self).parse_args(*arguments)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", parse_args)
    text = (ROOT / document).read_text(encoding="utf-8")
    text = text.replace("\\\n", " ").replace("$SLURM_ARRAY_TASK_ID", "1")
    commands = re.findall(r"^python -m (scripts\.\S+|tres\.\S+)(.*?)&?$", text, re.M)
    assert len(commands) >= count
    for module, arguments in commands:
        with pytest.raises(Parsed):
            status = importlib.import_module(module).main(shlex.split(arguments, comments=True))
            pytest.fail(f"{module} {arguments}: {status}, {capsys.readouterr().err}")
