"""What a command imports before it knows that there is anything to do."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (*ROOT.glob("scripts/*.py"), *ROOT.glob("*/all_expt.py"), ROOT / "weights/manifest.py")
    if path.stem != "__init__"
)
LATER = ("torch", "torchvision", "scipy", "pandas", "timm", "matplotlib", "skimage", "sklearn")
# The command as a process of its own, which ends by naming those of LATER that it imported.
PROGRAM = f"""
import atexit, runpy, sys
atexit.register(lambda: print("imported:", *sorted(set({LATER}) & set(sys.modules))))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def answer(*command: str) -> tuple[int, list[str], str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *command], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_a_mistyped_option_wait_for_no_import(command):
    status, lines, _ = answer(command, "--help")
    assert status == 0 and lines[0].startswith(f"usage: python -m {command}") and lines[-1] == "imported:"
    status, lines, error = answer(command, "--no-such-option")
    assert status == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert lines == ["imported:"]


def test_names_of_checkpoints_and_of_absent_images_wait_for_no_import(tmp_path):
    status, lines, _ = answer("scripts.download_weights", "--list", "--dest", str(tmp_path))
    assert status == 0 and lines[-1] == "imported:" and len(lines) > 3
    status, lines, error = answer("scripts.score_images", str(tmp_path / "absent.jpg"))
    assert status == 2 and "absent.jpg" in error and lines == ["imported:"]
