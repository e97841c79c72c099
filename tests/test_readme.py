"""What the README tells a new user to type, typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_every_command_of_the_readme_exists():
    """Modules and options."""
    for line in "\n".join(text for _, text in BLOCKS).replace("\\\n", " ").splitlines():
        if found := re.match(r"python -m (\S+)([^#]*)", line):
            module, arguments = found.groups()
            shown = subprocess.run(
                [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True
            )
            assert shown.returncode == 0, module
            for option in re.findall(r"--[\w-]+", re.sub(r'"[^"]*"', "", arguments)):
                assert option in shown.stdout, (module, option)
