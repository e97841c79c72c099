"""Files that were made to harm: nothing they say is run, waited for without end, or given all memory."""

import copy
import io
import json
import os
import pickle
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import scipy.io
import timm
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from common.photographs import FORMATS, read_rgb, size_of
from common.report.study_tables import read_studies
from common.runs.cost import Rates
from common.runs.dask_worker import address_of
from common.runs.reference import Reference
from common.runs.scale import Scale
from common.runs.training import load_state
from common.system.errors import UserError
from common.system.typed_json import read_object
from data import label_files
from data.catalogue import DATASETS
from data.collect import collect
from data.csv_folder import DATASET
from data.dataset import read_dataset
from data.label_files import read_columns, read_csv, read_list, read_mat
from tests.crafted import EXHAUSTING, dictionary, legacy, many, storage, tensor, zipped
from tests.layouts import koniq10k
from weights.loading import read_state_dict
from weights.manifest import lock, read_manifest
from weights.networks import BACKBONES
from weights.trained import metadata_of, trained_source

ROOT = Path(__file__).parent.parent
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 300 300\n%%EndComments\nshowpage\n"


def one_line(raised):
    return str(raised.value).isprintable()


# --- Images


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program called gs on the PATH, and the file that tells that it was run."""
    ran = tmp_path / "ran"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (tmp_path / "bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # looked for once
    return ran


def test_no_image_starts_a_program(stand_in, tmp_path):
    (tmp_path / "x.png").write_bytes(EPS)
    with pytest.raises(OSError), Image.open(tmp_path / "x.png") as image:
        image.load()
    assert stand_in.exists()  # so that an ordinary reader would have run it
    stand_in.unlink()
    for read in (read_rgb, size_of):
        with pytest.raises(UserError, match=r"x.png: cannot be read as an image \(cannot identify"):
            read(tmp_path / "x.png")
    assert not stand_in.exists()


@pytest.mark.filterwarnings("ignore:.*image format is deprecated")
def test_only_formats_of_photographs_are_decoded(tmp_path):
    Image.init()
    others, decoded = set(), set()
    for kind in Image.SAVE:
        try:
            Image.new("RGB", (8, 8)).save(tmp_path / "x", kind)
            Image.open(tmp_path / "x").close()
        except Exception:  # no format for such an image, or one that cannot be read again
            continue
        try:
            read_rgb(tmp_path / "x")
            decoded.add(kind)
        except UserError:
            others.add(kind)
    assert len(others) > 10 and decoded - {"MPO", "DIB"} == set(FORMATS)  # MPO: a JPEG with others behind it


def test_whatever_a_decoder_raises_is_one_line(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    for error in (
        NotImplementedError("a\nb\x1b[31m"),
        RuntimeError(),
        MemoryError(),
        KeyError("a"),
        Exception("x" * 9999),
    ):

        def raises(*_, error=error):
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(PngImagePlugin.PngImageFile, "load_prepare", raises)
            with pytest.raises(UserError, match="x.png: cannot be read as an image") as raised:
                read_rgb(tmp_path / "x.png")
        assert one_line(raised) and len(str(raised.value)) < 400


# --- Pipes, devices and folders in place of files


@pytest.fixture(params=["pipe", "device", "folder", "loop"])
def no_file(request, tmp_path):
    """No file, under a name that asks for one."""

    def made(name):
        path = tmp_path / name
        {
            "pipe": os.mkfifo,
            "device": lambda path: path.symlink_to("/dev/zero"),
            "folder": os.mkdir,
            "loop": lambda path: path.symlink_to(path.name),
        }[request.param](path)
        return path

    return made


@pytest.mark.parametrize(
    "name, read",
    [
        ("x.jpg", read_rgb),
        ("x.jpg", size_of),
        ("x.csv", read_csv),
        ("x.txt", read_list),
        ("x.mat", lambda path: read_mat(path, "a")),
        ("x.xlsx", lambda path: read_columns(path, ["a"])),
        ("x.pth", read_state_dict),
        ("x.safetensors", read_state_dict),
        ("x.safetensors", metadata_of),
        ("x.npz", lambda path: Reference.read(path, {})),
        ("x.resume.pth", lambda path: load_state(path, {})),
        ("manifest.json", read_manifest),
        ("lock.json", lambda path: lock(path.parent)),
        ("result.json", read_object),
        ("study.json", lambda path: read_studies(path.parent)),
        ("rates.json", Rates.read),
        ("scheduler.json", lambda path: address_of(str(path))),
    ],
)
def test_only_ordinary_files_are_read(no_file, name, read):
    with pytest.raises(UserError, match="no ordinary file|no such"):
        read(no_file(name))


def test_a_label_file_is_an_ordinary_one(no_file, tmp_path):
    no_file("scores.csv")
    with pytest.raises(UserError, match="no CSV file"):
        read_dataset(DATASET, tmp_path)


# --- Label files


def spreadsheet(path, cells):
    """An .xlsx file whose one sheet holds what nobody's program would write."""
    buffer = io.BytesIO()
    openpyxl.Workbook().save(buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                content = re.sub(
                    rb"<sheetData ?/>|<sheetData></sheetData>",
                    f"<sheetData>{cells}</sheetData>".encode(),
                    content,
                )
                assert cells.encode() in content
            new.writestr(name, content)
    return path


def ods(path, rows):
    content = (
        '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:spreadsheet>'
        f'<table:table table:name="A">{rows}</table:table>'
        "</office:spreadsheet></office:body></office:document-content>"
    )
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    manifest = (
        '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">'
        f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{kind}"/>'
        '<manifest:file-entry manifest:full-path="content.xml" manifest:media-type="text/xml"/>'
        "</manifest:manifest>"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", kind)
        archive.writestr("content.xml", content)
        archive.writestr("META-INF/manifest.xml", manifest)
    return path


def ods_cell(columns=1):
    attributes = f'office:value-type="string" table:number-columns-repeated="{columns}"'
    return f"<table:table-cell {attributes}><text:p>a</text:p></table:table-cell>"


def ods_row(cell, rows=1):
    return f'<table:table-row table:number-rows-repeated="{rows}">{cell}</table:table-row>'


BOMBS = {
    "a far cell": (spreadsheet, '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'),
    "a far row": (spreadsheet, '<row r="99999999999"><c r="A1"><v>1</v></c></row>'),
    "many wide rows": (spreadsheet, '<row><c r="XFD1"><v>1</v></c></row>' * 10_000),
    "much text": (spreadsheet, f'<row><c t="str"><v>{"a" * (1 << 26)}</v></c></row>'),
    "a billion columns": (ods, ods_row(ods_cell(10**9))),
    "a billion rows": (ods, ods_row(ods_cell(), 10**9)),
    "a billion rows before one": (ods, ods_row("", 10**9) + ods_row(ods_cell())),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_spreadsheet_cannot_take_time_or_memory(tmp_path, kind):
    build, rows = BOMBS[kind]
    path = build(tmp_path / f"x.{'ods' if build is ods else 'xlsx'}", rows)
    assert path.stat().st_size < 100_000
    begun = time.perf_counter()
    with pytest.raises(UserError, match=r"x\.(xlsx|ods): .* \(it has more than 4000000 cells, or") as raised:
        read_columns(path, ["a"])
    assert one_line(raised) and time.perf_counter() - begun < 30


def test_what_reads_label_files_has_limits():
    code = "from data.unpack import limit; limit(); open('/dev/null').read(); bytearray(1 << 30)"
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert child.stderr.splitlines()[-1] == "MemoryError"


def test_what_crashes_its_reader_is_one_line(tmp_path, monkeypatch):
    """Mutated MATLAB files end the interpreter by a signal; each version of SciPy by others."""
    crashes = tmp_path / "unpack.py"
    scipy.io.savemat(tmp_path / "x.mat", {"a": np.arange(3.0)})
    assert read_mat(tmp_path / "x.mat", "a")[0].tolist() == [0, 1, 2]
    monkeypatch.setattr(label_files, "UNPACK", crashes)
    monkeypatch.setattr(label_files, "PATIENCE", 2)
    for code, message in (
        ("import os; os.kill(os.getpid(), 11)", "by status -11"),
        ("print('[1, 2')", "by status 0"),
        ("import time; time.sleep(60)", "more than 2 s"),
    ):
        crashes.write_text(code)
        with pytest.raises(UserError, match=f"x.mat: cannot be read as a MATLAB file .*{message}") as raised:
            read_mat(tmp_path / "x.mat", "a")
        assert one_line(raised)


def test_a_list_of_many_spaces_takes_no_time(tmp_path):
    (tmp_path / "x.txt").write_text("a" + " " * 3_000_000 + "b c\n")
    with pytest.raises(UserError, match="line 1 has 3 fields, not 2"):
        read_list(tmp_path / "x.txt")


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/a.png", "..\\a.png", "x/../../a.png", ".", "./", "/", "a\0.png"]
)
def test_a_label_names_an_image_below_its_folder(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    for place in (tmp_path, folder):
        Image.new("RGB", (8, 8)).save(place / "a.png")
    (folder / "x.csv").write_text(f"image_name,MOS\na.png,1\n{name},2\n")
    for read in (lambda: read_dataset(DATASET, folder), lambda: collect([str(folder / "x.csv")])):
        with pytest.raises(
            UserError, match="is no name of an image below that folder|cannot be read as a CSV"
        ):
            read()


def test_an_image_is_in_one_set_of_koniq10k(tmp_path):
    koniq10k(tmp_path)
    sets = "image_name,set\n10000.jpg,test\n10000.jpg,training\n"
    (tmp_path / "koniq10k_distributions_sets.csv").write_text(sets)
    with pytest.raises(UserError, match="10000.jpg is in two sets, test and training: keep one row"):
        read_dataset(DATASETS["koniq10k"], tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("image_name,MOS,MOS\na.png,1,5\nb.png,2,4\n", "more than one column 'MOS', which differ"),
        ("image_name,Mos,mos\na.png,1,5\nb.png,2,4\n", "more than one column 'MOS', which differ"),
        ("image_name,MOS\na.png,1_0\nb.png,2\n", "the MOS of a.png is no finite number"),
        ("image_name,MOS\na.png,１\nb.png,2\n", "the MOS of a.png is no finite number"),
        ("image_name,MOS\na.png,1e308\nb.png,2\n", "the MOS of a.png is no finite number of a score's size"),
        ("image_name,MOS\na.png,inf\nb.png,2\n", "the MOS of a.png is no finite number"),
        ("image_name,MOS\na.png,1\n./a.png,2\n", "are one file"),
        ('image_name,MOS\na.png,"1\nb.png,2\n', "cannot be read as a CSV"),
        (
            "image_name,MOS\na.png" + "," * 20_000 + "\n",
            "cannot be read as a CSV file (row 2 has 20001 fields",
        ),
        ("a," * 20_000 + "\n", "cannot be read as a CSV file (row 1 has 20001 fields"),
        ("image_name,MOS\n\x1b]0;owned\x07,1\nb.png,2\n", "1 of 2 images are nowhere below"),
    ],
)
def test_labels_that_contradict_themselves_or_are_no_numbers(tmp_path, text, message):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "scores.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        read_dataset(DATASET, tmp_path)
    assert one_line(raised)


# --- Checkpoints


def read_all(folder):
    """Read every file of a folder as a checkpoint in a process of its own, which may crash or hang."""
    command = [sys.executable, "-m", "tests.crafted", folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    found = [json.loads(line) for line in child.stdout.splitlines()]
    assert len(found) == len(list(folder.iterdir())), (child.stderr, child.returncode, found[-1:])
    return found


def test_a_checkpoint_cannot_take_time_or_memory(tmp_path):
    for name, opcodes in EXHAUSTING.items():
        for write in (zipped, legacy) if len(opcodes) < 10_000 else (zipped,):
            path = tmp_path / f"{name}, {write.__name__}.pth"
            write(path, opcodes, 50_000 if name == "tensors of one storage" else 4)
            assert path.stat().st_size < 17_000_000
    found = read_all(tmp_path)
    for row in found:
        assert "was not loaded" in row["said"] or "holds no state dict" in row["said"], row
        assert row["said"].isprintable() and len(row["said"]) < 500, row
    assert sum(row["seconds"] for row in found) < 60, found
    assert max(row["megabytes"] for row in found) < 500, found


def test_an_archive_holds_what_it_says_once(tmp_path):
    numel, opcodes = 250_000, dictionary(many(1, tensor(250_000)))
    zipped(tmp_path / "0.pth", opcodes, numel)
    assert read_state_dict(tmp_path / "0.pth")["0"].shape == (numel,)
    with zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + b"N0" * (1 << 27))
    zipped(tmp_path / "overlapping.pth", opcodes, numel)
    with zipfile.ZipFile(tmp_path / "overlapping.pth", "a") as archive:
        whole = archive.getinfo("x/data/0")
        for n in range(1, 300):
            again = copy.copy(whole)
            again.filename = again.orig_filename = f"x/data/{n}"
            archive.filelist.append(again)
        archive._didModify = True
    with zipfile.ZipFile(tmp_path / "many.pth", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        empty = archive.infolist()[0]
        for n in range(300):
            archive.filelist.append(copy.copy(empty))
            archive.filelist[-1].filename = f"x/{'a' * 60_000}{n}"
    storages = b"".join(storage(numel, b"%d" % n) for n in range(300))
    legacy(tmp_path / "storages.pth", b"](" + storages + b"e", numel)
    found = {row["name"]: row for row in read_all(tmp_path)}
    assert found.pop("0")["said"] == "1 entries"
    for name, message in (
        ("deflated", "a compressed archive"),
        ("overlapping", "an archive whose files overlap"),
        ("many", "an archive of too many files"),
        ("storages", "storage 1 is larger than the file"),
    ):
        assert message in found[name]["said"], found[name]
        assert found[name]["seconds"] < 2 and found[name]["megabytes"] < 100, found[name]


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor", "ignore:Sparse")
def test_only_dense_real_tensors_are_weights(tmp_path):
    quantised = torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.quint8)
    for name, value, message in (
        ("sparse", torch.eye(4).to_sparse(), "a sparse tensor"),
        ("quantised", quantised, "a storage of torch.QUInt8Storage"),
        ("meta", torch.empty(4, device="meta"), "a tensor without data"),
        ("complex", torch.ones(4, dtype=torch.complex64), "a storage of torch.ComplexFloatStorage"),
        ("float8", torch.ones(4).to(torch.float8_e4m3fn), "torch._utils._rebuild_tensor_v|float8"),
    ):
        torch.save({"weight": value}, tmp_path / f"{name}.pth")
        with pytest.raises(UserError, match=message) as raised:
            read_state_dict(tmp_path / f"{name}.pth")
        assert one_line(raised)
        if name in ("complex", "float8"):
            save_file({"weight": value}, tmp_path / f"{name}.safetensors")
            with pytest.raises(UserError, match="holds tensors that no network here has .weight is torch"):
                read_state_dict(tmp_path / f"{name}.safetensors")


def test_a_file_that_names_its_network_cannot_send_for_one(tmp_path, monkeypatch):
    """timm would take what follows local-dir: or hf-hub: for a folder, or a page of the network."""
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("it was made"))
    for name in ("timm:local-dir:/tmp", "timm:hf-hub:somebody/resnet18", "timm:", "torch:load"):
        known = {"backbone": name, "score_mean": "0", "score_scale": "1"}
        save_file({"weight": torch.ones(1)}, tmp_path / "x.safetensors", known)
        with pytest.raises(UserError, match="x.safetensors is of "):
            trained_source(tmp_path / "x.safetensors")


def test_the_scale_of_a_file_is_a_number_and_a_line():
    known = {"score_mean": "1", "score_scale": "2", "scale": "\x1b]0;title\x07" + "a" * 9999}
    scale = Scale.from_metadata(known)
    assert scale and scale.title.isprintable() and len(scale.title) <= 200
    for wrong in ("nan", "inf", "0", "-1", "one"):
        assert Scale.from_metadata(known | {"score_scale": wrong}) is None


# --- Records


ENTRY = {
    **{"name": "x", "file": "x.pth", "backbone": None, "source_data": "", "used_for": "", "size": None},
    **{"sha256": None, "preprocessing": {}, "constructor": {}, "licence": "", "sources": [], "note": ""},
}


@pytest.mark.parametrize(
    "content",
    ["", "5", "null", '"x"', "{}", "[5]", "[[]]", "[" * 100_000, "\xff", json.dumps([ENTRY, ENTRY])]
    + [
        json.dumps([ENTRY | {field: wrong}])
        for field in ENTRY
        for wrong in ([5] if field in ("sources", "size") else [5, []])
        if not (field == "size" and wrong == 5)
    ]
    + [
        json.dumps([ENTRY | wrong])
        for wrong in ({"file": "../x"}, {"size": -1}, {"sources": [{"url": 5}]}, {"more": 1})
    ],
)
def test_a_manifest_that_is_none_is_one_line(tmp_path, content):
    (tmp_path / "m.json").write_text(json.dumps([ENTRY]))
    assert list(read_manifest(tmp_path / "m.json")) == ["x"]
    (tmp_path / "m.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="m.json: ") as raised:
        read_manifest(tmp_path / "m.json")
    assert one_line(raised)


RECORD = {"file": "x.pth", "size": 1, "sha256": "0" * 64, "source": ""}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "[" * 100_000, "\xff", '{"x": {}}', '{"x": 5}']
    + [json.dumps({"x": RECORD | {field: []}}) for field in RECORD],
)
def test_a_damaged_record_of_downloads_is_one_line(tmp_path, content):
    (tmp_path / "lock.json").write_text(json.dumps({"x": RECORD}))
    assert lock(tmp_path) == {"x": RECORD}
    (tmp_path / "lock.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="lock.json") as raised:
        lock(tmp_path)
    assert one_line(raised)


def test_a_file_to_go_on_from_that_is_damaged_is_one_line(tmp_path):
    for content in (b"", b"garbage", pickle.dumps(5), pickle.dumps({"config": {}, "progress": {}})):
        (tmp_path / "x.resume.pth").write_bytes(content)
        with pytest.raises(
            UserError, match="x.resume.pth: cannot be read .*; remove it to start again"
        ) as raised:
            load_state(tmp_path / "x.resume.pth", {})
        assert one_line(raised)


GOLDEN = dict(np.load(ROOT / "tests/golden/metaiqa-7.npz"))
META = json.loads(str(GOLDEN["meta"]))


@pytest.mark.parametrize(
    "change",
    [
        {"source": np.array(["a"])},
        {"source": np.zeros((2, 2))},
        {"features": np.zeros(3)},
        {"features": np.zeros((8, 0))},
    ]
    + [{"meta": "{}"}, {"meta": "[" * 100_000}, {"unheard/of": np.zeros(3)}]
    + [
        {"meta": json.dumps(META | {field: wrong})}
        for field in META
        if field != "seconds"
        for wrong in (None, [], -1, {"rank": 5})
    ],
)
def test_a_reference_file_that_cannot_be_is_one_line(tmp_path, change):
    np.savez(tmp_path / "x.npz", **(GOLDEN | change))
    with pytest.raises(UserError, match="x.npz: not a reference file") as raised:
        Reference.read(tmp_path / "x.npz", BACKBONES)
    assert one_line(raised)


def test_a_reference_file_that_unpacks_to_much_is_not_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **GOLDEN, more=np.zeros((1 << 28) // 8 + 1))
    with pytest.raises(UserError, match="x.npz: not a reference file .unpacked it has 26"):
        Reference.read(tmp_path / "x.npz", BACKBONES)
