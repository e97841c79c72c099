"""The recipes of CONTRIBUTING.md, followed in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(heading):
    """The Python of a recipe."""
    (recipe,) = (part for part in TEXT.split("\n## ") if part.startswith(heading))
    return re.findall(r"```python\n(.*?)```", recipe, re.S)


@pytest.fixture
def copy(tmp_path):
    packages = ("common", "data", "weights", "scripts", "tres", "musiq", "hyperiqa", "metaiqa")
    for name in packages:
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "files", "raw")
        )
    return tmp_path


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((230 + 10 * i, 230)).save(folder / f"{i}.png")
    (folder / "scores.csv").write_text("image_name,MOS\n" + "".join(f"{i}.png,{i}\n" for i in range(4)))
    return folder


def run(copy, module, *arguments):
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def cell(copy, photographs, *arguments):
    options = ("--data-root", photographs, "--seeds", 1, "--niter", 1, "--device", "cpu", "--workers", 0)
    return run(copy, "scripts.reproduce_cell", *options, *arguments)


def test_a_loss(copy, photographs):
    for file, code in zip(("losses", "protocols"), blocks("Add a loss")):
        with (copy / f"common/{file}.py").open("a") as target:
            target.write(code)
    weights = copy / "weights/demo/metaiqa.safetensors"
    printed = cell(copy, photographs, "--backbone", "metaiqa", "--weights", weights, "--method", "near")
    assert "metaiqa, near," in printed and "SROCC" in printed


def test_a_network(copy, photographs):
    (copy / "mynet").mkdir()
    for file, code in zip(("model", "wrapper"), blocks("Add a network")):
        (copy / f"mynet/{file}.py").write_text(code)
    networks = copy / "weights/networks.py"
    source = networks.read_text()
    changed, times = re.subn(r'    "metaiqa": [\d.]+,\n', r'\g<0>    "mynet": 0.02,\n', source)
    assert times == 1
    networks.write_text(changed)
    state = {f"trunk.{name}": value for name, value in resnet18(num_classes=1).state_dict().items()}
    torch.save(state, copy / "mynet.pth")
    printed = cell(copy, photographs, "--backbone", "mynet", "--weights", copy / "mynet.pth")
    assert "mynet, rank+gc," in printed


def test_a_data_set(copy):
    (code,) = blocks("Add a data set")
    (copy / "data/mydata.py").write_text(code)
    catalogue = copy / "data/catalogue.py"
    source = catalogue.read_text()
    assert "SOURCES = (live_fb," in source and "    live_fb,\n" in source
    source = source.replace("SOURCES = (live_fb,", "SOURCES = (mydata, live_fb,")
    catalogue.write_text(source.replace("    live_fb,\n", "    live_fb,\n    mydata,\n", 1))
    folder = copy / "there/mydata"
    folder.mkdir(parents=True)
    (folder / "scores.csv").write_text("name,mos,scene\na.png,1.5,x\nb.png,4,y\n")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    printed = run(copy, "scripts.check_data", "mydata", "--data-root", copy / "there")
    assert "My data" in printed and "1.5 to 4" in printed
