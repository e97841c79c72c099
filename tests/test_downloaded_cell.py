"""What a user does: download a checkpoint, check the data set, reproduce the cell."""

import functools
import http.server
import json
import threading

import pytest
import torch

import weights.manifest
from scripts import check_data, download_weights, reproduce_cell
from tests.layouts import koniq10k, live_iqa
from weights.networks import BACKBONES

NAME = "metaiqa-tid2013-kadid10k"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    torch.manual_seed(0)
    torch.save(
        BACKBONES["metaiqa"].network().state_dict(), folder / weights.manifest.read_manifest()[NAME].file
    )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "name, build, column, direction, resize",
    [
        ("live_iqa", live_iqa, "dmos_new", "higher is worse, negated", None),
        ("koniq10k", koniq10k, "MOS_zscore", "higher is better", [512, 384]),
    ],
)
def test_from_download_to_cell(mirror, tmp_path, monkeypatch, capsys, name, build, column, direction, resize):
    monkeypatch.setattr(weights.manifest, "FILES", tmp_path / "files")
    root = tmp_path / "data"
    build(root / name)
    assert download_weights.main([NAME, "--base-url", mirror, "--dest", str(tmp_path / "files")]) == 0
    assert check_data.main([name, "--data-root", str(root), "--decode"]) == 1  # a few images of thousands
    assert "expected" in capsys.readouterr().out
    options = [
        "--backbone",
        "metaiqa",
        "--dataset",
        name,
        "--data-root",
        str(root),
        "--weights",
        NAME,
        "--device",
        "cpu",
    ]
    outputs = ["--seeds", "1", "--niter", "1", "--workers", "0", "--json", str(tmp_path / "cell.json")]
    assert reproduce_cell.main([*options, *outputs]) == 0
    config = json.loads((tmp_path / "cell.json").read_text())["config"]
    lock = json.loads((tmp_path / "files" / "lock.json").read_text())
    assert config["weights_file"]["sha256"] == lock[NAME]["sha256"]
    found = tuple(config["data"][key] for key in ("dataset", "score_column", "direction", "resize"))
    assert found == (name, column, direction, resize)
