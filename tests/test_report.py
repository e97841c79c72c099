"""The report of a sweep, from folders made by hand."""

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import jinja2
import pytest
from PIL import Image

from common.distortions import TYPES
from common.photographs import Photograph
from common.report.collected import Sweep, Variant, sweeps
from common.report.page import render
from common.report.tables import Head, Tally, figure_tables, paper_tables
from common.report.text import escaped
from common.runs.folders import Results, cell_folder
from common.runs.grid import Target
from common.runs.results import (
    CellResult,
    Failure,
    Gain,
    OverSeeds,
    Scores,
    Summary,
    write_failure,
    write_result,
)
from data.catalogue import DATASETS
from scripts import report
from scripts.run import report as report_run

TWO = Variant(seeds=2)
NAMES = [f"image{i}.png" for i in range(6)]
MOS = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]


def entry(place, backbone, dataset, setting, variant=TWO, weights=None):
    """One place of the paper."""
    for one in report_run.grid(variant):
        found = (one.place, one.backbone, one.target.dataset, one.setting) == (
            place,
            backbone,
            dataset,
            setting,
        )
        if found and weights in (None, one.weights):
            return one
    raise LookupError(place)


def finish(
    root,
    cell,
    srocc,
    source=(0.5, 0.5),
    interval=(0.08, 0.14),
    n=474,
    adapted=None,
    kinds=("",) * 6,
    names=NAMES,
):
    """A finished cell with these SROCC per seed; PLCC is 0.1 less.

    adapted: scores per seed of the six images that come first, (seeds, 6). The others are ranked as they
    should be, before and after.
    """
    dataset, seeds, niter = DATASETS[cell.target.dataset], cell.seeds, cell.method.niter
    data = {
        "dataset": dataset.name,
        "subset": next(iter(dataset.subsets)),
        "missing": 0,
        "score_column": "MOS",
        "direction": dataset.direction,
        "label_file": "labels.csv",
    }
    before, after = (
        {
            "srocc": OverSeeds(tuple(values)),
            "plcc": OverSeeds(tuple(value - 0.1 for value in values)),
            **{name: OverSeeds((None,) * len(seeds)) for name in ("plcc_logistic", "krocc", "rmse")},
        }
        for values in (source[: len(seeds)], srocc)
    )
    gain = Gain(after["srocc"].mean - before["srocc"].mean, interval)
    summary = Summary(n, seeds, before, after, gain, dict.fromkeys(TYPES, 0), 0, 0, 0, 0)
    more = [100.0 + i for i in range(n - 6)]
    photographs = [
        Photograph(name, Path(), mos, group="", kind=kind)
        for name, mos, kind in zip(
            [*names, *(f"more{i}.png" for i in range(n - 6))], [*MOS, *more], [*kinds, *[""] * (n - 6)]
        )
    ]
    scores = Scores.empty(seeds, n, niter)
    scores.source[:] = [*(mos * (-1) ** i for i, mos in enumerate(MOS)), *more]
    for row in range(len(seeds)):
        scores.adapted[row] = [*(MOS if adapted is None else adapted[row]), *more]
    scores.choice[:, 1::2] = TYPES.index("noise")
    scores.losses[:] = [1.0 / (step + 1) for step in range(niter)]
    weights = {"file": "network.pth", "sha256": "0" * 64}
    environment = {"commit": "abc", "device": "cpu", "torch": "2.6.0"}
    folder = root / cell_folder(cell)
    write_result(folder, CellResult(cell, summary, data, weights, environment, 60.0), scores, photographs)
    return folder


def fail(root, cell, reason):
    write_failure(root / "failed" / f"{cell.id}.json", Failure(cell, reason))


def at(shown, name, row, column):
    """A value by the text of its headings."""
    (table,) = [one for one in shown if one.name == name]
    rows = [tuple(head.text for head in heads) for heads in table.rows]
    columns = [tuple(head.text for head in heads) for heads in table.columns]
    return table.values[rows.index(row), columns.index(column)]


def shown(root, variant=TWO):
    return paper_tables(Sweep(variant, Results.read(root), report_run.PAPER))


def all_tables(root, variant=TWO):
    sweep = Sweep(variant, Results.read(root), report_run.PAPER)
    return [*paper_tables(sweep), *figure_tables(sweep)]


def made(root, out, *options):
    assert report.main([str(root), "--out", str(out), *options]) == 0
    return [(out / name).read_text(encoding="utf-8") for name in ("index.html", "report.md", "report.tex")]


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No data sets on this machine."""
    monkeypatch.delenv("IQA_DATA_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_measured_value_stands_beside_the_published_one(tmp_path):
    root = tmp_path / "sweep"
    finish(root, entry("1", "tres", "cid2013", "TTA-IQA").cell, (0.60, 0.62))
    value = at(shown(root), "Table 1", ("TReS", "TTA-IQA"), ("CID2013", "SROCC"))
    assert value.published == 0.6032 and value.difference == pytest.approx(0.0068)
    assert value.close and value.verdict == "helped" and value.images == 474
    assert at(shown(root), "Table 2", ("TReS", "rank+gc"), ("CID2013", "SROCC")) == value
    plcc = at(shown(root), "Table 1", ("TReS", "TTA-IQA"), ("CID2013", "PLCC"))
    assert plcc.measured.mean == pytest.approx(0.51) and plcc.gain is None and not plcc.alike
    assert at(shown(root), "Table 1", ("TReS", "TTA-IQA"), ("PIPAL", "SROCC")).missing == "not run"

    page, markdown, latex = made(root, tmp_path / "out")
    (cell,) = set(re.findall(r'<td class="helped first">(.*?)</td>', page))
    lines = ["0.610 ± 0.014", "csv0.6032 · +0.007 ✓", "▲ +0.110 [+0.080, +0.140]"]
    assert [re.sub("<[^>]+>", "", line) for line in cell.split("</span>")] == [*lines, ""]
    line = next(line for line in markdown.splitlines() if line.startswith("| TReS, TTA-IQA |"))
    assert (
        line.split(" | ")[5]
        == "**0.610 ± 0.014**<br>paper 0.6032, +0.007 ✓<br>gain +0.110 [+0.080, +0.140], helped"
    )
    assert line.split(" | ")[1] == "— not run<br>paper 0.6578"
    assert r"& 0.610 $\pm$ 0.014 & 0.510 $\pm$ 0.014 &" in latex and r"& +0.007 * & $-$0.161 &" in latex
    assert "paper 0.6710, \u22120.161 |" in markdown and "0.6710 · \u22120.161<" in page
    for text in (page, markdown, latex):
        assert "2 of 96 values measured; 1 of 2 lie within 0.01 of the published" in text


def test_every_published_value_has_one_place(tmp_path):
    (root := tmp_path / "sweep").mkdir()
    empty = shown(root)
    assert [len(table.values) for table in empty] == [96, 96, 20, 12, 12, 80, 16, 12]
    assert {value.missing for table in empty for value in table.values.values()} == {"not run"}
    # The two sources of Table 7 are told apart.
    finish(root, entry("7", "tres", "koniq10k", "TTA-IQA", weights="tres-live_iqa").cell, (0.5, 0.5), n=10073)
    assert Tally.of(shown(root)).measured == 1
    assert at(shown(root), "Table 7", ("TTA-IQA",), ("LIVE-IQA", "KonIQ-10k")).published == 0.522


def test_what_is_not_finished_does_not_count(tmp_path):
    root = tmp_path / "sweep"
    half = finish(root, entry("1", "tres", "cid2013", "TTA-IQA").cell, (0.6, 0.62))
    (half / "run.json").unlink()
    finish(root / ".work", entry("1", "tres", "cid2013", "Rotation").cell, (0.6, 0.62))
    assert not Results.read(root).finished
    assert report.main([str(root), "--out", str(tmp_path / "out")]) == 0


def test_a_failure_is_shown_with_its_reason(tmp_path):
    root = tmp_path / "sweep"
    finish(root, entry("1", "tres", "cid2013", "TTA-IQA").cell, (0.6, 0.62))
    fail(root, entry("1", "metaiqa", "pipal", "Rotation").cell, "50% of A_1 & <b>\n#2 ~ {x}^|\\ 漢")
    page, markdown, latex = made(root, tmp_path / "out")
    assert (
        "failed<sup>a</sup>" in page
        and "<b>a</b> failed: 50% of A_1 &amp; &lt;b&gt;" in page
        and "漢" in page
    )
    assert "— failed (a)<br>paper 0.3353" in markdown and r"a: failed: 50% of A\_1 &amp; &lt;b>" in markdown
    assert r"a: failed: 50\% of A\_1 \& \textless{}b\textgreater{} \#2 \textasciitilde{} \{x\}" in latex
    assert r"\textasciicircum{}\textbar{}\textbackslash{} ?" in latex and latex.isascii()


def test_latex_has_as_many_cells_in_each_line_as_columns(tmp_path):
    root = tmp_path / "sweep"
    finish(root, entry("1", "tres", "cid2013", "TTA-IQA").cell, (0.6, 0.62))
    for layout, body in re.findall(
        r"\\begin\{tabular\}\{(l?r+|lr+)\}(.*?)\\end\{tabular\}", made(root, tmp_path / "out")[2], re.S
    ):
        for line in body.splitlines():
            if line.endswith(r"\\") and line.count("&"):
                spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
                assert len(re.findall(r"(?<!\\)&", line)) + 1 + spans == len(layout)
    assert escaped("--seeds") == "-{}-seeds"


def test_the_same_results_give_the_same_bytes_and_are_left_alone(tmp_path):
    root = tmp_path / "sweep"
    scores = [[3.0, 1.0, 2.0, 5.0, 4.0, 6.0]] * 2
    finish(
        root,
        entry("1", "tres", "live_iqa", "TTA-IQA").cell,
        (0.6, 0.62),
        adapted=scores,
        kinds=("wn", "jpeg") * 3,
        n=779,
    )
    finish(root, entry("fig6", "tres", "cid2013", "niter=2").cell, (0.6, 0.62))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    first = made(root, tmp_path / "one")
    assert first == made(root, tmp_path / "two")
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    page = first[0]
    assert "<script" not in page and "@import" not in page and "<link" not in page
    assert not re.search(r'(src|href)="(?!data:|#|\.\./sweep/)', page) and "url(" not in re.sub(
        r"url\(#\w+\)", "", page
    )
    names = re.findall(r'\bid="([^"]+)"', page)
    links = set(re.findall(r'(?:href="#|url\(#)([\w-]+)', page))
    assert links <= set(names)
    assert page.count("<details open>") == 1 and page.count("<svg") == 4 + 1 + 1


def test_thumbnails_where_the_data_are_and_names_elsewhere(tmp_path):
    root, data = tmp_path / "sweep", tmp_path / "data/koniq10k"
    scores = [[3.0, 1.0, 2.0, 5.0, 4.0, 6.0]] * 2
    finish(root, entry("1", "tres", "koniq10k", "TTA-IQA").cell, (0.6, 0.62), adapted=scores, n=10073)
    assert "<img" not in (page := made(root, tmp_path / "one")[0]) and "<td>image5.png</td>" in page
    (data / "1024x768").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        Image.new("RGB", (64, 48), (40 * i, 0, 0)).save(data / "1024x768" / name)
    rows = "".join(f"{name},{mos}\n" for name, mos in zip(NAMES, MOS))
    (data / "koniq10k_scores_and_distributions.csv").write_text("image_name,MOS_zscore\n" + rows)
    page = made(root, tmp_path / "two", "--data-root", str(tmp_path / "data"))[0]
    assert page.count("<img") >= 2 and "<td>image5.png</td>" not in page


def test_one_variant_is_reported_and_the_others_are_named(tmp_path, capsys):
    root = tmp_path / "sweep"
    few = Variant(seeds=1, limit=6)
    finish(root, entry("1", "tres", "cid2013", "TTA-IQA").cell, (0.60, 0.62))
    finish(root, entry("1", "tres", "cid2013", "Baseline").cell, (0.5, 0.5))
    finish(root, entry("1", "tres", "cid2013", "TTA-IQA", few).cell, (0.606,), interval=None, n=6)
    finish(root, replace(entry("1", "tres", "cid2013", "TTA-IQA").cell, seeds=(7,)), (0.4321,))
    page, markdown, latex = made(root, tmp_path / "out")
    assert "2 of 181 cells finished" in markdown and "--protocol paper --seeds 1 --limit-images 6" in page
    assert all("Other results" in text and "0.432" in text for text in (page, markdown, latex))
    assert "**0.606" not in markdown

    page, markdown, _ = made(root, tmp_path / "few", "--limit-images", "6")
    cell = r"\*\*0.606\*\* \(a\)<br>paper 0.6032<br>gain \+0.106 \|"
    assert "1 of 181 cells finished" in markdown and re.search(cell, markdown), "other images: no difference"
    value = at(shown(root, few), "Table 1", ("TReS", "TTA-IQA"), ("CID2013", "SROCC"))
    assert not value.comparable and not value.alike and value.verdict == ""
    assert "0 of 181 cells finished" in made(root, tmp_path / "none", "--protocol", "released")[1]
    assert [sweep.variant for sweep in sweeps(Results.read(root), report_run.PAPER)] == [TWO, few]


def test_what_is_of_no_place_of_the_paper_is_in_every_file(tmp_path):
    """Before the paper's tables, where none of those was measured."""
    own = entry("2", "metaiqa", "cid2013", "gc").cell
    source = entry("1", "metaiqa", "cid2013", "Baseline").cell
    for cell in (own, source):
        beside = replace(cell, weights="my_net.pth", target=Target("csv"), batch_size=4)
        finish(tmp_path / "sweep", beside, (-0.32, -0.3), interval=(-0.9, -0.7), n=80)
    page, markdown, latex = made(tmp_path / "sweep", tmp_path / "out")
    for text in (page, markdown, latex):
        assert text.index("Other results") < text.index("Table 2")
    adapted = next(line for line in markdown.splitlines() if r"my\_net.pth" in line and ", gc (" in line)
    assert "| **0.500 ± 0.000** | **0.400 ± 0.000** |" in adapted and "batches of 4" in adapted
    assert "**\u22120.310 ± 0.014**<br>gain \u22120.810 [\u22120.900, \u22120.700], harmed" in adapted
    assert r"$-$0.310 $\pm$ 0.014" in latex and "my_net.pth" in page


def test_tables_and_networks_can_be_chosen(tmp_path, capsys):
    root = tmp_path / "sweep"
    for name in ("tres", "metaiqa"):
        finish(root, entry("1", name, "cid2013", "TTA-IQA").cell, (0.6, 0.62))
        fail(root, entry("1", name, "pipal", "Rotation").cell, f"{name} is too large")
    finish(root, replace(entry("1", "tres", "cid2013", "TTA-IQA").cell, seeds=(7,)), (0.4321,))
    page, markdown, latex = made(root, tmp_path / "out", "--tables", "2", "fig6")
    for text in (page, markdown, latex):
        assert "Table 2" in text and "Figure 6" in text and "Table 1" not in re.sub("Tables? 1 to", "", text)
        assert "too large" not in text and "0.432" not in text
    assert "2 of 55 cells finished, 0 failed" in markdown and "; Table 2, Figure 6." in markdown
    page, markdown, _ = made(root, tmp_path / "out", "--backbones", "metaiqa")
    assert "Table 8" in markdown and "Table 3" not in markdown, "which has no cell of MetaIQA"
    assert "TReS" not in markdown and "metaiqa is too large" in markdown and "0.432" not in markdown
    assert "--backbones metaiqa" in page and "tres is too large" not in page
    assert (
        report.main([str(root), "--out", str(tmp_path / "o"), "--tables", "3", "--backbones", "musiq"]) == 2
    )
    assert "widen" in capsys.readouterr().err and not (tmp_path / "o").exists()


@pytest.mark.parametrize("out", ["out", "some where/else#1/ü", "sweep%20 report"])
def test_every_value_is_a_link_to_the_files_of_its_cell(tmp_path, monkeypatch, out):
    root = tmp_path / "the sweep?"
    cells = {entry("1", "tres", "cid2013", name).cell for name in ("TTA-IQA", "Rotation")}
    folders = {finish(root, cell, (0.6, 0.62)) for cell in cells}
    fail(root, entry("1", "metaiqa", "pipal", "Rotation").cell, "no memory")
    monkeypatch.chdir(root)
    page = made(Path("."), Path("..") / out)[0]
    links = re.findall(r'href="([^"#]+)"', page)
    assert not any(set(link) & set(" ?%") - {"%"} for link in links)
    found = {(tmp_path / out / unquote(link)).resolve() for link in links}
    files = {folder / name for folder in folders for name in ("result.json", "scores.csv")}
    assert found == files | set((root / "failed").iterdir())
    # SROCC and PLCC in Table 1, and both losses in Tables 2 and 6 and Figure 6 as well
    measured = len(re.findall(r'class="measured"><a href="[^"]+/result.json"', page))
    assert measured == sum(
        value.measured is not None for table in all_tables(root) for value in table.values.values()
    )


def test_another_band_of_figure_4_is_found(tmp_path):
    other = TWO._replace(similar=(35.0, 55.0))
    cell = entry("fig4", "tres", "live_iqa", "rank", other).cell
    assert cell.id != entry("fig4", "tres", "live_iqa", "rank").cell.id
    finish(tmp_path / "sweep", cell, (0.3, 0.5), n=200)
    page, markdown, _ = made(tmp_path / "sweep", tmp_path / "out")
    assert "DMOS 35 to 55" in markdown and "| rank | **0.400 ± 0.141**" in markdown


def test_figure_5_is_by_type_of_distortion(tmp_path):
    of = entry("fig5", "tres", "live_iqa", "gc")
    scores = [
        [1.0, 9.0, 2.0, 8.0, 3.0, 7.0],
        [1.0, 7.0, 3.0, 8.0, 2.0, 9.0],
    ]  # wn: 1, then 0.5; jpeg: -1, then 1
    finish(tmp_path, of.cell, (0.1, 0.2), n=6, adapted=scores, kinds=("wn", "jpeg") * 3)
    shown = figure_tables(Sweep(TWO, Results.read(tmp_path), report_run.PAPER))
    assert shown[1].rows == [
        (Head("all types", "6 images"),),
        (Head("jpeg", "3 images"),),
        (Head("wn", "3 images"),),
    ]
    assert at(shown, "Figure 5", ("wn",), ("gc",)).measured.mean == pytest.approx(0.75)
    jpeg = at(shown, "Figure 5", ("jpeg",), ("gc",)).measured
    assert (jpeg.mean, jpeg.std) == pytest.approx((0.0, 2**0.5))
    assert at(shown, "Figure 5", ("all types",), ("gc",)).measured.mean == pytest.approx(0.15)
    assert at(shown, "Figure 5", ("jpeg",), ("rank",)).missing == "not run"


def test_mistakes_are_one_line(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert report.main([str(tmp_path / "nowhere"), *out]) == 2
    (root := tmp_path / "sweep").mkdir()
    assert report.main([str(root), "--out", str(root / "report")]) == 2 and not list(root.iterdir())
    moved = finish(root, entry("1", "tres", "cid2013", "TTA-IQA").cell, (0.6, 0.62))
    (moved := moved.rename(moved.with_name("gc-0123456789abcdef")))
    assert report.main([str(root), *out]) == 2
    (moved / "result.json").write_text('{"config"')
    assert report.main([str(root), *out]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4 and all(line.startswith("error: ") for line in errors)
    assert not (tmp_path / "out").exists()


def test_a_result_of_an_older_program_is_refused_in_one_line(tmp_path, capsys):
    folder = finish(tmp_path, entry("1", "tres", "cid2013", "TTA-IQA").cell, (0.6, 0.62))
    content = json.loads((folder / "result.json").read_text())
    del content["format"]
    (folder / "result.json").write_text(json.dumps(content))
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "result.json has format 1, and this program reads format 2: run the cell again" in line


def changed(*path, to=...):
    """Change or remove one value of a JSON file."""

    def change(content):
        value = json.loads(content)
        *above, last = path
        part = value
        for name in above:
            part = part[name]
        if to is ...:
            del part[last]
        else:
            part[last] = to
        return json.dumps(value).encode()

    return change


def replaced(old, new):
    """Replace some text of a file, which has it."""

    def change(content):
        assert old in content
        return content.replace(old, new)

    return change


WHOLE = {
    "a list": lambda content: b"[]",
    "null": lambda content: b"null",
    "an empty object": lambda content: b"{}",
    "deep nesting": lambda content: b"[" * 100_000,
    "half": lambda content: content[: len(content) // 2],
    "no text": lambda content: b"\x89PNG\xff\xfe" + content,
}
RESULT = {
    "config": changed("config", to=None),
    "no seeds": changed("seeds"),
    "no images": changed("n_images"),
    "images in words": changed("n_images", to="many"),
    "too few images": changed("n_images", to=-5),
    "an endless number": changed("n_images", to=10**400),
    "infinite": changed("adapted", "srocc", "values", to=[float("inf"), 0.5]),
    "another seed": changed("seeds", 0, "seed", to=5),
    "no gain": changed("srocc_gain", "mean", to="x"),
    "half an interval": changed("srocc_gain", "interval_95", to=[0.1]),
    "a value too few": changed("adapted", "plcc", "values", to=[0.5]),
    "no metric": changed("source", "plcc", to=None),
    "an object": changed("config", "method", "niter", to={"a": 1}),
    "a field too many": changed("config", "method", "more", to=1),
    "a name that is no text": changed("config", "method", "name", to=["gc"]),
    "another cell": changed("config", "batch_size", to=4),
    "unknown data set": changed("config", "data", "dataset", to="nobody's"),
    "unknown subset": changed("config", "data", "subset", to="nothing"),
    "no label file": changed("config", "data", "label_file"),
    "no checksum": changed("config", "weights_file", "sha256", to=None),
    "no device": changed("environment", "device"),
    "a deep device": changed("environment", "device", to=[[[["cpu"]]]]),
}
RUN = {
    "no time": changed("seconds", to=0),
    "negative": changed("seconds", to=-1.0),
    "text": changed("seconds", to="1"),
    "NaN": changed("seconds", to=float("nan")),
}
SCORES = {
    "half": WHOLE["half"],
    "the last byte": lambda content: content[:-1],
    "header only": lambda content: content.splitlines(keepends=True)[0],
    "no text": lambda content: bytes(range(256)) * 8,
    "a row too few": lambda content: b"".join(content.splitlines(keepends=True)[:-1]),
    "an image too few": lambda content: b"".join(
        line for line in content.splitlines(keepends=True) if not line.startswith(b"image0")
    ),
    "a column too few": replaced(b"adapted_score", b"adapted"),
    "another seed": replaced(b",0,", b",2,"),
    "a word": replaced(b"image0.png,wn,10.0,", b"image0.png,wn,ten,"),
    "no number": replaced(b"image0.png,wn,10.0,", b"image0.png,wn,nan,"),
}
FAILURE = {
    "no reason": changed("reason"),
    "no cell": changed("cell", to=[]),
    "of another": changed("cell", "seeds", to=[7]),
}


@pytest.mark.parametrize(
    "file, change",
    [
        pytest.param(file, change, id=f"{file}: {name}")
        for file, changes in (
            ("result.json", WHOLE | RESULT),
            ("run.json", WHOLE | RUN),
            ("scores.csv", SCORES),
            ("failed", WHOLE | FAILURE),
        )
        for name, change in changes.items()
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path, capsys, file, change):
    cell = entry("1", "tres", "cid2013", "TTA-IQA").cell
    root = tmp_path / "sweep"
    folder = finish(root, cell, (0.6, 0.62), kinds=("wn", "jpeg") * 3, n=12)
    fail(root, entry("1", "metaiqa", "pipal", "Rotation").cell, "out of memory")
    (path,) = (root / "failed").iterdir() if file == "failed" else [folder / file]
    path.write_bytes(change(path.read_bytes()))
    assert report.main([str(root), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert re.search("move its folder elsewhere|remove it|run the cell again", line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["result.json", "run.json", "scores.csv"])
def test_an_empty_file_is_none(tmp_path, name):
    """As a loss of power leaves it: the cell does not count, and the report says so."""
    folder = finish(tmp_path / "sweep", entry("1", "tres", "cid2013", "TTA-IQA").cell, (0.6, 0.62))
    (folder / name).write_bytes(b"")
    page, markdown, _ = made(tmp_path / "sweep", tmp_path / "out")
    assert "0 of 181 cells finished" in markdown and f"not counted: {folder}" in page


def test_whatever_a_page_shows_is_escaped(tmp_path, recwarn):
    cell = entry("1", "tres", "cid2013", "TTA-IQA").cell
    names = ["<i>&0.png", '"1".png', *NAMES[2:5], "漢$x_$.png"]
    finish(tmp_path / "sweep", cell, (0.6, 0.62), adapted=[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]] * 2, names=names)
    page = made(tmp_path / "sweep", tmp_path / "out")[0]
    assert "<td>&lt;i&gt;&amp;0.png</td>" in page and "<i>&0" not in page and "漢$x_$.png" in page
    assert not [one for one in recwarn if one.category is UserWarning], "of letters that a font lacks"
    file = tmp_path / "sweep" / cell_folder(cell) / "result.json"
    content, hostile = json.loads(file.read_text()), "<script>alert('$a_$\"')</script>"
    content["config"]["data"] |= {"score_column": hostile, "direction": hostile, "label_file": hostile}
    content["config"]["weights_file"] = {"file": hostile, "sha256": hostile}
    content["config"]["method"]["name"] = hostile
    content["environment"] = {"commit": hostile, "device": hostile, "torch": hostile}
    file.write_text(json.dumps(content))
    scores = file.with_name("scores.csv")
    scores.write_text(
        scores.read_text().replace(",,10.0", f',"{hostile.replace(chr(34), chr(34) * 2)}",10.0')
    )
    page = made(tmp_path / "sweep", tmp_path / "out")[0]
    assert "<script" not in page and page.count("&lt;script&gt;") > 10
    content["config"]["protocol"]["name"] = hostile  # which makes it one of the other results
    file.write_text(json.dumps(content))
    page, _, latex = made(tmp_path / "sweep", tmp_path / "out")
    assert "<script" not in page and "&lt;script&gt;" in page and r"\$a\_\$" in latex
    with pytest.raises(jinja2.UndefinedError):
        render("demo.html.j2")  # without what it shows
