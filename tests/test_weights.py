"""Checkpoints: every format as it comes, files that try to run code, and downloads from a server that
misbehaves."""

import copyreg
import hashlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import types
import urllib.request
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import nn
from torchvision.models import resnet50

from common.system import torch_file
from common.system.errors import UserError
from hyperiqa.model import HyperIQA
from metaiqa.model import MetaIQA
from scripts import convert_weights, download_weights
from weights import download, manifest
from weights.download import Patience, obtain
from weights.loading import load_weights, read_state_dict
from weights.networks import BACKBONES

ROOT = Path(__file__).parent.parent


def checkpoint(seed):
    """The bytes of a checkpoint, a million of them."""
    around = len(save({"x": torch.zeros(990_000, dtype=torch.uint8)})) - 990_000
    data = np.random.default_rng(seed).bytes(1_000_000 - around)
    return save({"x": torch.frombuffer(bytearray(data), dtype=torch.uint8)})


FILE, OTHER = checkpoint(0), checkpoint(1)
PAGE = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>Sorry</body></html>"
)


# --- Loading


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU())
        self.head = nn.Linear(4, 1, bias=False)
        self.register_buffer("grid", torch.arange(6.0).view(2, 3).t())  # a view with strides
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Small()


def same(found, expected):
    return list(found) == list(expected) and all(torch.equal(found[key], expected[key]) for key in expected)


def test_state_dicts_as_they_come(small, tmp_path):
    bare = small.state_dict()
    save_file({key: value.contiguous() for key, value in bare.items()}, tmp_path / "bare.safetensors")
    torch.save(bare, tmp_path / "bare.pth", _use_new_zipfile_serialization=False)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in bare.items()}, "epoch": 3},
        tmp_path / "parallel.pth",
    )
    for name in ("bare.safetensors", "bare.pth", "parallel.pth"):
        found = read_state_dict(tmp_path / name)
        assert same(dict(sorted(found.items())), dict(sorted(bare.items())))
    optimiser = torch.optim.Adam(small.parameters())
    sum(p.sum() for p in small.parameters()).backward()
    optimiser.step()
    halves = {
        "model_backbone_state_dict": {"a": torch.zeros(1)},
        "model_transformer_state_dict": {"b": torch.ones(1)},
    }
    torch.save(
        {**halves, "epoch": 3, "optimizer_state_dict": optimiser.state_dict()}, tmp_path / "halves.pth"
    )
    found = BACKBONES["musiq"].rename(read_state_dict(tmp_path / "halves.pth"))
    assert found.keys() == {"backbone.a", "transformer.b"}
    target = tmp_path / "halves.safetensors"
    assert convert_weights.main([str(tmp_path / "halves.pth"), str(target)]) == 0  # of whichever network
    assert load_file(target).keys() == {"backbone.a", "transformer.b"}


class PyiqaHyperNet(nn.Module):
    """The layers of IQA-PyTorch's HyperNet under its names; no two of the renamed ones have the same
    shape."""

    def __init__(self):
        super().__init__()
        self.base_model = resnet50()
        del self.base_model.fc
        wide, narrow, tiles = (256, 512, 1024), (16, 32, 64), (64, 16, 4)
        pools = [nn.Conv2d(w, n, 1, bias=False) for w, n in zip(wide, narrow)]
        lda = [
            nn.Sequential(pool, nn.ReLU(), nn.Flatten(), nn.Linear(n * t, 16))
            for pool, n, t in zip(pools, narrow, tiles)
        ]
        self.lda_modules = nn.ModuleList([*lda, nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(2048, 176))])
        maps = [nn.Conv2d(112, channels, 3) for channels in (512, 128, 32, 8)]
        self.fc_w_modules = nn.ModuleList([*maps, nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(112, 14))])
        biases = [
            nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(112, width)) for width in (112, 56, 28, 14, 1)
        ]
        self.fc_b_modules = nn.ModuleList(biases)
        convolutions = (
            nn.Conv2d(2048, 1024, 1),
            nn.ReLU(),
            nn.Conv2d(1024, 512, 1),
            nn.ReLU(),
            nn.Conv2d(512, 112, 1),
        )
        self.conv1 = nn.Sequential(*convolutions)


def test_hyperiqa_under_iqa_pytorchs_names(tmp_path):
    theirs = PyiqaHyperNet()
    torch.save({"params": theirs.state_dict()}, tmp_path / "pyiqa.pth")
    ours = HyperIQA()
    load_weights(ours, tmp_path / "pyiqa.pth", BACKBONES["hyperiqa"].rename)
    assert torch.equal(ours.res.layer1[0].conv1.weight, theirs.base_model.layer1[0].conv1.weight)
    assert torch.equal(ours.res.lda4_fc.bias, theirs.lda_modules[3][2].bias)
    assert torch.equal(ours.fc4w_conv.weight, theirs.fc_w_modules[3].weight)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_whole_module_is_read_without_its_classes(small, tmp_path, zipped, protocol):
    torch.save(small, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    assert same(read_state_dict(tmp_path / "m.pt"), small.state_dict())
    nested = {"model": nn.DataParallel(small), "epoch": 2}
    torch.save(nested, tmp_path / "n.pt", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    assert same(read_state_dict(tmp_path / "n.pt"), small.state_dict())


def test_metaiqa_as_its_authors_pickled_it(tmp_path, monkeypatch):
    """PyTorch 0.4.1: every module has a backend that a call brings back, BN has no counter, storages come
    last."""
    thnn = types.ModuleType("torch.nn.backends.thnn")
    exec("def _get_thnn_function_backend(): raise AssertionError", thnn.__dict__)
    monkeypatch.setitem(sys.modules, "torch.nn.backends.thnn", thnn)

    class Backend:
        def __reduce__(self):
            return thnn._get_thnn_function_backend, ()

    network = MetaIQA()
    expected = {key: value.clone() for key, value in network.state_dict().items()}
    for module in network.modules():
        module._backend = Backend()
        module._buffers.pop("num_batches_tracked", None)
        del module.__dict__["_non_persistent_buffers_set"]
    torch.save(network, tmp_path / "TID2013_KADID10K.pt", _use_new_zipfile_serialization=False)
    loaded = MetaIQA()
    load_weights(loaded, tmp_path / "TID2013_KADID10K.pt")
    assert same(loaded.state_dict(), expected)


class Reduce:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


class SetState:
    def __init__(self, path):
        self.path = str(path)

    def __setstate__(self, state):
        Path(state["path"]).touch()


def in_dict(harm):
    return {"weight": torch.zeros(1), "harm": harm}


def in_module(harm):
    module = Small()
    module.features[0].notes = [{"deep": (harm,)}]
    return module


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", [in_dict, in_module])
@pytest.mark.parametrize("kind", [Reduce, SetState])
def test_nothing_in_a_pickle_runs(tmp_path, zipped, place, kind):
    executed = tmp_path / "executed"
    torch.save(place(kind(executed)), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert executed.exists()  # so an ordinary reader would have run it
    executed.unlink()
    if kind is SetState and place is in_module:  # an attribute, left inert
        assert read_state_dict(tmp_path / "x.pt").keys() == Small().state_dict().keys()
    else:
        with pytest.raises(UserError, match="system" if kind is Reduce else "holds no state dict"):
            read_state_dict(tmp_path / "x.pt")
    assert not executed.exists()


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"  # of four numbers
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\0K\x04\x85K\x01\x85\x89NtR"
INSTANCE = b"cthere\nIs.None\n)\x81"
DEEP = b")" + b"\x85" * 300_000  # a tuple in a tuple in a tuple ...


class Registered:
    """A class that copyreg's registry knows, and keeps at hand once a pickle has named it."""

    def __new__(cls):
        raise AssertionError


def crafted(path, opcodes):
    """A checkpoint of whose pickle no tool would be the author."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x04" + opcodes)
        archive.writestr("x/data/0", bytes(16))
    return path


@pytest.mark.parametrize(
    "opcodes, message",
    [
        (b"cos\nsystem\nX\x04\0\0\0true\x85R.", "a call of os.system"),
        (b"X\x02\0\0\0osX\x06\0\0\0system\x93X\x04\0\0\0true\x85R.", "a call of os.system"),
        (
            b"X\x0b\0\0\0collectionsX\x14\0\0\0OrderedDict.fromkeys\x93)R.",
            "a call of collections.OrderedDict",
        ),
        (b"(X\x04\0\0\0trueios\nsystem\n.", "opcode INST"),
        (b"(cos\nsystem\nX\x04\0\0\0trueo.", "opcode OBJ"),
        (b"cthere\nIs.None\n)}\x92.", "opcode NEWOBJ_EX"),
        (b"\x82\xf0)R.", "opcode EXT1"),
        (b"\x83\xf0\0)\x81.", "opcode EXT2"),
        (b"Pos.system\n.", "opcode PERSID"),
        (b"X\x04\0\0\0execcos\nsystem\n\x86Q.", "an external exec"),
        (TENSOR + b"(NNNNtb.", "a state for a Tensor"),
        (b"cos\nsystem\n}X\x08\0\0\0__code__Nsb.", "a state for a Name"),
        (TENSOR + b"K\0K\x01s.", "a Tensor in place of a dict"),
        (TENSOR + b"(" + TENSOR + b"\x90.", "a Tensor in place of a set"),
        (INSTANCE + b"}X\x06\0\0\0appendcos\nsystem\nsbX\x04\0\0\0truea.", "an? Instance in place of a list"),
        (TENSOR.replace(b"K\0K\x04\x85", b"K\x01K\x04\x85") + b".", "outside its storage"),
        (TENSOR.replace(b"K\x04\x85K\x01", b"J\xff\xff\xff\x7f\x85K\0") + b".", "outside its storage"),
        (TENSOR.replace(b"K\x04\x85K\x01\x85", (TENSOR + b"\x85") * 2) + b".", "not of numbers"),
        (b"}" + DEEP + b"Ns.", "a nested tuple"),
        (b"cbuiltins\nset\n]" + DEEP + b"a\x85R.", "a nested tuple"),
        (
            (INSTANCE + b"}X\x08\0\0\0_modules}X\x01\0\0\0k") * 9999 + b"N" + b"ssb" * 9999 + b".",
            "is no tree of modules",
        ),
    ],
)
def test_a_crafted_pickle_is_refused(tmp_path, monkeypatch, opcodes, message):
    monkeypatch.setitem(copyreg._extension_cache, 0xF0, Registered)
    with pytest.raises(torch_file.Refused, match=message):
        torch_file.read(crafted(tmp_path / "x.pt", opcodes))


def test_a_state_is_only_kept(tmp_path):
    """A stand-in keeps whatever attributes a file gives it, and none of them does anything."""
    harm = b"}X\x0c\0\0\0__setstate__cos\nsystem\nsX\x09\0\0\0__class__cos\nsystem\nsb"
    found = torch_file.read(crafted(tmp_path / "x.pt", INSTANCE + harm + b"X\x04\0\0\0trueb."))
    system = torch_file.Name("os.system")
    assert found.attributes == {"__setstate__": system, "__class__": system, "state": "true"}


def test_a_memo_takes_no_more_memory_than_its_entries(tmp_path):
    assert torch_file.read(crafted(tmp_path / "x.pt", b"Nr\xff\xff\xff\x7f.")) is None


def test_a_file_that_wraps_itself_ends(tmp_path):
    content = {"epoch": 1}
    content["model"] = content
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state_dict(tmp_path / "x.pth")


def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(in_dict(Reduce(tmp_path / "executed"))))
    with pytest.raises(UserError, match="was not loaded"):
        read_state_dict(tmp_path / "x.pkl")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_module_that_is_cut_off_is_refused(small, tmp_path, zipped):
    torch.save(small, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "m.pt").read_bytes()
    for length in (10, len(whole) // 2, len(whole) - 40):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_state_dict(tmp_path / "cut.pt")


def test_conversion_keeps_what_is_known(tmp_path, capsys):
    network = MetaIQA()
    torch.save(network, tmp_path / "m.pt")
    sha256 = hashlib.sha256((tmp_path / "m.pt").read_bytes()).hexdigest()
    entry = {"file": "m.pt", "size": 1, "sha256": sha256, "source": ""}
    (tmp_path / "lock.json").write_text(json.dumps({"metaiqa-tid2013-kadid10k": entry}))
    target = tmp_path / "new/m.safetensors"
    command = [str(tmp_path / "m.pt"), str(target)]
    assert convert_weights.main([*command, "--backbone", "tres"]) == 2
    assert "does not fit" in capsys.readouterr().err and not target.exists()
    assert convert_weights.main([*command, "--backbone", "metaiqa"]) == 0
    assert target.stat().st_mode == (tmp_path / "lock.json").stat().st_mode  # others may read it too
    with safe_open(target, "pt") as file:
        kept = file.metadata()
    assert (
        kept["source_sha256"] == sha256
        and kept["source_file"] == "m.pt"
        and kept["name"] == "metaiqa-tid2013-kadid10k"
    )
    assert json.loads(kept["preprocessing"])["mean"] == [0.485, 0.456, 0.406]
    loaded = MetaIQA()
    load_weights(loaded, target)
    assert same(loaded.state_dict(), network.state_dict())


def test_the_readme_is_the_manifests():
    written = (ROOT / "weights/README.md").read_text(encoding="utf-8")
    assert written == manifest.readme(manifest.read_manifest())


def test_weights_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "FILES", tmp_path)
    with pytest.raises(UserError, match="scripts.download_weights tres-live_fb"):
        manifest.located("tres-live_fb")
    (tmp_path / "tres-live_fb.pth").touch()
    assert manifest.located("tres-live_fb").path == tmp_path / "tres-live_fb.pth"
    assert manifest.located("some/file.pth") == manifest.SourceFile(Path("some/file.pth"))


def test_a_checkpoint_by_name_is_the_one_that_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "FILES", tmp_path)
    (tmp_path / "metaiqa-tid2013-kadid10k.pth").write_bytes(b"1")
    source = manifest.located("metaiqa-tid2013-kadid10k")
    source.verify("metaiqa")  # neither the manifest nor a download knows its sha256
    with pytest.raises(UserError, match="a checkpoint of metaiqa, not of tres"):
        source.verify("tres")
    entry = {"file": source.path.name, "size": 1, "sha256": hashlib.sha256(b"2").hexdigest(), "source": ""}
    (tmp_path / "lock.json").write_text(json.dumps({"metaiqa-tid2013-kadid10k": entry}))
    with pytest.raises(UserError, match="download_weights --replace metaiqa-tid2013-kadid10k downloads it"):
        source.verify("metaiqa")
    (tmp_path / manifest.read_manifest()["musiq-resnet50"].file).write_bytes(b"1")
    with pytest.raises(UserError, match="not 0676ba61 as musiq-resnet50"):
        manifest.located("musiq-resnet50").verify()
    with pytest.raises(UserError, match="of no network of the paper, not of musiq"):
        manifest.located("musiq-resnet50").verify("musiq")
    manifest.SourceFile(source.path).verify("tres")  # a file of the user's own


# --- Downloads


class Server(ThreadingHTTPServer):
    """Serves FILE as the first part of the path says; remembers every request as (behaviour, Range, bytes
    sent)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []

    def url(self, behaviour):
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/file.pth"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        behaviour = self.path.split("/")[1]
        earlier = sum(request[0] == behaviour for request in self.server.requests)
        self.record = [behaviour, self.headers["Range"], 0]
        self.server.requests.append(self.record)
        getattr(self, behaviour)(earlier)

    def send(
        self,
        content,
        *,
        ranges=True,
        tag='"1"',
        limit=None,
        pause=0.0,
        kind="application/octet-stream",
        length=True,
    ):
        start = 0
        if ranges and self.headers["Range"] and (ranges == "blindly" or self.headers["If-Range"] == tag):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if kind:
            self.send_header("Content-Type", kind)
        if tag:
            self.send_header("ETag", tag)
        if length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        for at in range(start, len(content) if limit is None else min(start + limit, len(content)), 50_000):
            self.wfile.write(content[at : at + 50_000])
            self.record[2] += len(content[at : at + 50_000])
            time.sleep(pause)

    def status(self, code, **headers):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def good(self, _):
        self.send(FILE)

    def slow(self, _):
        self.send(FILE, pause=0.05)

    def cuts(self, _):
        self.send(FILE, limit=300_000)

    def cuts_without_range(self, earlier):
        self.send(FILE, ranges=False, limit=300_000 if earlier < 2 else None)

    def cuts_without_mark(self, earlier):
        self.send(FILE, ranges="blindly", tag=None, limit=300_000 if earlier < 2 else None)

    def changes(self, earlier):
        self.send(
            *((OTHER, FILE)[earlier > 0],),
            tag='"2"' if earlier else '"1"',
            limit=None if earlier else 300_000,
        )

    def changes_and_splices(self, earlier):
        tag = '"2"' if earlier else '"1"'
        self.send((OTHER, FILE)[earlier > 0], ranges="blindly", tag=tag, limit=None if earlier else 300_000)

    def endless(self, _):
        self.send(FILE, length=False)

    def page(self, _):
        self.send(PAGE, kind="text/html; charset=utf-8")

    def untyped_page(self, _):
        self.send(b"\n" + PAGE, kind=None)

    def other(self, _):
        self.send(OTHER)

    def short(self, _):
        self.send(FILE[:-1])

    def short_without_length(self, _):
        self.send(FILE[:-1], length=False)

    def empty(self, _):
        self.send(b"")

    def dead(self, _):
        self.send(FILE, limit=0)

    def missing(self, _):
        self.status(404)

    def busy(self, earlier):
        self.status(429, Retry_After="0") if earlier < 2 else self.send(FILE)

    def busy_for_long(self, _):
        self.status(429, Retry_After="86400")

    def moved(self, _):
        self.status(302, Location="/cuts/elsewhere?signature=1")

    def moved_to_page(self, _):
        self.status(302, Location="/page/login")

    def moved_to_file(self, _):
        self.status(302, Location="file:///etc/passwd")

    def moved_to_ftp(self, _):
        self.status(302, Location="ftp://127.0.0.1/x")

    def partial_unasked(self, _):
        self.status(206)

    def partial_at_once(self, _):
        self.status(206, Content_Range=f"bytes 0-{len(FILE) - 1}/{len(FILE)}")

    def busy_for_ever(self, _):
        self.status(503, Retry_After="Mon, 01 Jan 99999999999 00:00:00 GMT")

    def busy_for_a_large_number(self, _):
        self.status(503, Retry_After="9" * 5000)

    def coded(self, _):
        self.status(200, Content_Encoding="gzip")

    def steering_title(self, _):
        self.send(PAGE.replace(b"Google", b"\x1b]0;owned\x07\xe2\x80\xae"), kind="text/html")

    def steering_status(self, _):
        self.wfile.write(b"HTTP/1.1 404 \x1b[31mred\r\nContent-Length: 0\r\n\r\n")

    def more_than_said(self, _):
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(FILE)

    def drips(self, start, piece):
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 " + start)
            while True:
                self.wfile.write(piece)
                time.sleep(0.02)

    def drips_bytes(self, _):
        self.drips(b"200 OK\r\n\r\n", b"a")

    def drips_headers(self, _):
        self.drips(b"200 OK\r\nX: ", b"a")

    def drips_continues(self, _):
        self.drips(b"100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n")

    def drips_lengths(self, _):
        self.drips(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a")

    def drips_trailers(self, _):
        self.drips(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n")


@pytest.fixture
def server():
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def arguments(server, tmp_path, monkeypatch):
    """arguments("page", "good", ...): the command that downloads x, whose sources behave in these ways, in
    this order."""
    monkeypatch.delenv("TTA_IQA_WEIGHTS_URL", raising=False)

    def made(*behaviours, known=True):
        entry = {
            "name": "x",
            "file": "x.pth",
            "backbone": None,
            "source_data": "",
            "used_for": "",
            "licence": "",
            "note": "",
        }
        entry |= {"preprocessing": {}, "constructor": {}, "size": None, "sha256": None}
        if known:
            entry |= {"size": len(FILE), "sha256": hashlib.sha256(FILE).hexdigest()}
        entry["sources"] = [{"url": server.url(behaviour)} for behaviour in behaviours]
        (tmp_path / "manifest.json").write_text(json.dumps([entry]))
        options = ["--manifest", str(tmp_path / "manifest.json"), "--dest", str(tmp_path / "files")]
        return ["x", *options, "--tries", "3", "--wait", "0.01"]

    return made


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "files").iterdir() if not path.name.endswith(".lock"))


def arrived(tmp_path):
    return left(tmp_path) == ["lock.json", "x.pth"] and (tmp_path / "files/x.pth").read_bytes() == FILE


def test_a_download_is_recorded_and_not_repeated(server, arguments, tmp_path, capsys):
    command = arguments("good", known=False)
    assert download_weights.main(command) == 0 and arrived(tmp_path)
    recorded = json.loads((tmp_path / "files/lock.json").read_text())["x"]
    assert (
        recorded["sha256"] == hashlib.sha256(FILE).hexdigest()
        and recorded["sha256"] in capsys.readouterr().out
    )
    assert download_weights.main(command) == 0 and "x: present" in capsys.readouterr().out
    assert len(server.requests) == 1


def test_a_change_at_the_source_is_noticed(arguments, tmp_path, capsys):
    assert download_weights.main(arguments("good", known=False)) == 0
    (tmp_path / "files/x.pth").write_bytes(OTHER)
    assert (
        download_weights.main(arguments("good", known=False)) == 1
        and "no longer the file" in capsys.readouterr().out
    )
    (tmp_path / "files/x.pth").unlink()
    assert (
        download_weights.main(arguments("other", known=False)) == 1
        and "no longer the file" in capsys.readouterr().out
    )
    assert left(tmp_path) == ["lock.json"]


@pytest.mark.parametrize(
    "behaviour, reason",
    [
        ("page", "Google Drive - Quota exceeded"),
        ("untyped_page", "Google Drive - Quota exceeded"),
        ("moved_to_page", "Google Drive - Quota exceeded"),
        ("other", "has sha256"),
        ("short", "has 999999 bytes, not 1000000"),
        ("short_without_length", "has 999999 bytes, not 1000000"),
        ("empty", "has 0 bytes, not 1000000"),
        ("dead", "given up after 3 tries"),
        ("missing", "HTTP 404"),
        ("busy_for_long", "come back in 86400 s"),
        ("busy_for_a_large_number", "HTTP 503"),
        ("busy_for_ever", "HTTP 503"),
        ("moved_to_file", "HTTP 302"),
        ("moved_to_ftp", "leads from http to ftp, which is not followed"),
        ("partial_unasked", "answers with a part of the file"),
        ("partial_at_once", "answers with a part of the file"),
        ("coded", "comes coded as gzip, which was not asked for"),
        ("steering_title", r"\x1b]0;owned\x07\u202e"),
        ("steering_status", r"HTTP 404 \x1b[31mred"),
        ("more_than_said", "has more than 1000000 bytes"),
    ],
)
def test_a_wrong_answer_is_refused_and_the_next_source_tried(
    server, arguments, tmp_path, capsys, behaviour, reason
):
    assert download_weights.main(arguments(behaviour)) == 1
    printed = capsys.readouterr().out
    assert reason in printed and server.url(behaviour) in printed and "--from-file x=PATH" in printed
    assert all(line.isprintable() for line in printed.splitlines())
    assert left(tmp_path) == []
    assert download_weights.main(arguments(behaviour, "good")) == 0 and arrived(tmp_path)


@pytest.mark.parametrize("behaviour", ["page", "untyped_page", "empty"])
def test_a_page_is_no_file_even_if_nothing_is_known_of_it(arguments, tmp_path, behaviour):
    assert download_weights.main(arguments(behaviour, known=False)) == 1 and left(tmp_path) == []


@pytest.mark.parametrize(
    "behaviour, ranges",
    [
        ("cuts", [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]),
        ("cuts_without_range", [None, "bytes=300000-", "bytes=300000-"]),
        ("cuts_without_mark", [None, None, None]),
        ("changes", [None, "bytes=300000-"]),
        ("changes_and_splices", [None, "bytes=300000-", None]),
        ("busy", [None, None, None]),
        ("endless", [None]),
    ],
)
def test_what_may_pass_is_tried_again(server, arguments, tmp_path, behaviour, ranges):
    assert download_weights.main(arguments(behaviour, known=False)) == 0 and arrived(tmp_path)
    assert [request[1] for request in server.requests] == ranges


@pytest.mark.parametrize("what", ["bytes", "headers", "continues", "lengths", "trailers"])
def test_a_server_that_drips_is_given_up(server, arguments, tmp_path, what):
    """Each byte ends a time limit of the socket, so that they alone would go on for ever."""
    arguments(f"drips_{what}", known=False)
    (entry,) = manifest.read_manifest(tmp_path / "manifest.json").values()
    patience = Patience(tries=2, wait=0.01, timeout=10, window=0.3, least=1000)
    begun = time.perf_counter()
    outcome = obtain(entry, tmp_path / "files", patience=patience)
    assert outcome.state == "failed" and time.perf_counter() - begun < 5
    assert "sends less than 1000 bytes in 0 s; given up after 2 tries" in outcome.reasons[0]


def test_a_download_ends_in_time(server, arguments, tmp_path):
    arguments("slow", known=False)
    (entry,) = manifest.read_manifest(tmp_path / "manifest.json").values()
    outcome = obtain(entry, tmp_path / "files", patience=Patience(wait=0.01, window=10, overall=0.5))
    assert outcome.state == "failed" and "is not there in time; given up" in outcome.reasons[0]


def test_a_file_of_unknown_size_has_a_limit(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 10_000_000)
    assert download_weights.main(arguments("more_than_said", known=False)) == 1
    assert "has more than 10000000 bytes" in capsys.readouterr().out and left(tmp_path) == []
    monkeypatch.setattr(download, "LARGEST", 900_000)
    assert download_weights.main(arguments("good", known=False)) == 1
    assert "has 1000000 bytes, more than the 900000" in capsys.readouterr().out and left(tmp_path) == []


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "x.pth", "http://["]
)
def test_only_addresses_of_the_web_are_opened(arguments, tmp_path, capsys, address):
    command = arguments(known=False)
    entries = json.loads((tmp_path / "manifest.json").read_text())
    entries[0]["sources"] = [{"url": address}]
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    assert download_weights.main(command) == 1
    assert "is no address" in capsys.readouterr().out and left(tmp_path) == []


def test_no_step_leads_away_from_https():
    request = urllib.request.Request("https://a/x", headers={"Range": "bytes=1-"})
    for address in ("http://a/x", "ftp://a/x"):
        with pytest.raises(download.Failed, match="leads from https to"):
            download._Redirects().redirect_request(request, None, 302, "", {}, address)
    again = download._Redirects().redirect_request(request, None, 302, "", {}, "https://b/x")
    assert again.full_url == "https://b/x" and again.headers["Range"] == "bytes=1-"


def test_redirects_keep_the_range(server, arguments, tmp_path):
    assert download_weights.main(arguments("moved")) == 0 and arrived(tmp_path)
    assert sum(request[2] for request in server.requests) == len(FILE)


def test_a_mirror_comes_first(server, arguments, tmp_path, monkeypatch):
    command = arguments("missing")
    mirror = f"http://127.0.0.1:{server.server_port}/good"
    assert download_weights.main([*command, "--base-url", mirror]) == 0 and arrived(tmp_path)
    assert [request[0] for request in server.requests] == ["good"]


def test_a_file_from_elsewhere(server, arguments, tmp_path, capsys):
    (tmp_path / "mine").write_bytes(OTHER)
    command = [*arguments("good"), "--from-file", f"x={tmp_path / 'mine'}"]
    assert (
        download_weights.main(command) == 1
        and "has sha256" in capsys.readouterr().out
        and left(tmp_path) == []
    )
    (tmp_path / "mine").write_bytes(FILE)
    assert download_weights.main(command) == 0 and arrived(tmp_path) and not server.requests


def test_only_what_fits_its_network_is_named_and_recorded(arguments, tmp_path, capsys, weights):
    """By hand, by download, or where it lay before."""
    command = arguments("good", known=False)
    entries = json.loads((tmp_path / "manifest.json").read_text())

    def of(backbone):
        (tmp_path / "manifest.json").write_text(json.dumps([entries[0] | {"backbone": backbone}]))

    by_hand = [*command, "--from-file", f"x={weights}"]
    of("hyperiqa")
    for tried in (by_hand, command):
        assert download_weights.main(tried) == 1
        assert "does not fit this network" in capsys.readouterr().out and left(tmp_path) == []
    of("unheard of")
    assert download_weights.main(by_hand) == 1 and left(tmp_path) == []
    assert "no network here is called that" in capsys.readouterr().out
    (tmp_path / "files/x.pth").write_bytes(FILE)
    of("metaiqa")
    assert download_weights.main(command) == 1 and left(tmp_path) == ["x.pth"]
    assert "does not fit this network" in capsys.readouterr().out
    assert download_weights.main([*by_hand, "--replace"]) == 0 and left(tmp_path) == ["lock.json", "x.pth"]
    assert (tmp_path / "files/x.pth").read_bytes() == weights.read_bytes()


def test_another_file_is_compared_and_a_wrong_one_replaced(arguments, tmp_path, capsys, monkeypatch):
    (tmp_path / "wrong").write_bytes(OTHER)
    (tmp_path / "right").write_bytes(FILE)
    command = arguments("good", known=False)
    assert download_weights.main([*command, "--from-file", f"x={tmp_path / 'wrong'}"]) == 0
    assert download_weights.main([*command, "--from-file", f"x={tmp_path / 'wrong'}"]) == 0
    capsys.readouterr()
    right = [*command, "--from-file", f"x={tmp_path / 'right'}"]
    assert download_weights.main(right) == 1
    printed = capsys.readouterr().out
    assert "right is another file, with sha256" in printed and "x=PATH --dest" in printed
    named = re.search(r"python -m scripts.download_weights (.* --replace)", printed)[1]
    named = named.replace("PATH", str(tmp_path / "right")).split()
    assert download_weights.main([*named, "--manifest", str(tmp_path / "manifest.json")]) == 0
    assert arrived(tmp_path)
    sha256 = hashlib.sha256(FILE).hexdigest()
    assert json.loads((tmp_path / "files/lock.json").read_text())["x"]["sha256"] == sha256
    for absent in ("absent", "files"):
        assert download_weights.main([*command, "--from-file", f"x={tmp_path / absent}"]) == 1
        assert f"{absent}" in capsys.readouterr().out and arrived(tmp_path)


def test_a_result_tells_which_file_it_is_of(monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "FILES", tmp_path)
    (tmp_path / "tres-live_fb.pth").write_bytes(b"1")
    (tmp_path / "resnet50-0676ba61.pth").write_bytes(b"12")
    source = manifest.located("tres-live_fb")
    (note,) = source.notes()
    assert note.startswith("no sha256 of tres-live_fb is published")
    sha256 = hashlib.sha256(b"1").hexdigest()
    assert source.record == {"file": str(source.path), "sha256": sha256, "size": 1}
    assert not manifest.located("musiq-resnet50").notes()  # its digits are known
    assert not manifest.located(str(source.path)).notes()  # a file of the user's own


def start(command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "scripts.download_weights", *command]
    return subprocess.Popen(
        program,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # which a shell's background jobs would ignore
    )


def test_two_at_once_download_once(server, arguments, tmp_path):
    both = [start(arguments("slow")) for _ in range(2)]
    printed = sorted(process.communicate(timeout=60)[0].splitlines()[-1].split(",")[0] for process in both)
    assert printed == ["x: downloaded", "x: present"] and arrived(tmp_path)
    assert len(server.requests) == 1


def test_an_interrupted_download_says_what_to_do(arguments, tmp_path):
    process, part = start(arguments("slow")), tmp_path / "files/x.pth.part"
    while not part.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=10)
    assert process.returncode == 130 and "the same command goes on" in error and "Traceback" not in error


def test_a_killed_download_goes_on_where_it_stopped(server, arguments, tmp_path):
    process, part = start(arguments("slow")), tmp_path / "files/x.pth.part"
    while not (part.exists() and part.stat().st_size >= 262_144):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert left(tmp_path) == ["x.pth.part", "x.pth.part.json"]
    had = part.stat().st_size
    assert download_weights.main(arguments("slow")) == 0 and arrived(tmp_path)
    assert server.requests[1][1] == f"bytes={had}-" and server.requests[1][2] == len(FILE) - had


@pytest.mark.parametrize(
    "command, message",
    [
        ([], "nothing to download"),
        (["unheard-of"], "no weights are called 'unheard-of'"),
        (["--from-file", "tres-live_fb"], "give NAME=PATH"),
    ],
)
def test_mistakes_get_one_line_and_status_2(capsys, command, message):
    assert download_weights.main(command) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
