"""Every data set in the layouts that users have (tests/layouts.py): records, traps, and faults."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io

from common.photographs import read_rgb
from common.system.errors import UserError
from common.views import Placement, View
from data.catalogue import DATASETS, folder_of
from data.dataset import read_available, read_dataset
from scripts import check_data, reproduce_cell
from tests.layouts import (
    AVT,
    BIQ,
    CID,
    CSIQ,
    DSLR,
    FLIVE,
    KADID,
    LIVE,
    PIPAL,
    SPAQ,
    TID,
    avt_h265,
    biq2021,
    cell,
    cid2013,
    cid2013_ods,
    csiq,
    csiq_both,
    csiq_text,
    dslr,
    dslr_self_made,
    images,
    kadid10k,
    koniq10k,
    koniq10k_deeper,
    koniq10k_sets,
    koniq10k_with_small_edition,
    live_fb,
    live_iqa,
    livec,
    pipal,
    pipal_csv,
    pipal_list,
    sheets,
    spaq,
    text,
    tid2013,
)

README = Path(__file__).parent.parent / "data" / "README.md"


LAYOUTS = {
    "koniq10k": [koniq10k, koniq10k_deeper, koniq10k_with_small_edition, koniq10k_sets],
    "pipal": [
        pipal,
        pipal_list,
        pipal_csv,
        lambda root: pipal(root, folder="Dist_Imgs", ending="\n\n"),
        lambda root: pipal(
            root / "training", folder="Distortion_{0}/Distortion_{0}", labels="MOS_Scores_train"
        ),
        lambda root: pipal(root, folder="Train_Distort_{}", ending=""),
    ],
    "cid2013": [
        cid2013,
        cid2013_ods,
        lambda root: cid2013(root, flat=True),
        lambda root: cid2013(root / "CID2013", header="Image set specific MOS"),
    ],
    "live_iqa": [
        live_iqa,
        lambda root: live_iqa(root / "databaserelease2"),
        lambda root: live_iqa(root, blur="blur"),
    ],
    "spaq": [
        spaq,
        lambda root: spaq(root, labels="Annotations/MOS and Image attribute scores.csv"),
        lambda root: spaq(
            root, images_in="SPAQ zip/TestImage", labels="annotations/MOS_and_Image_attribute_scores.xlsx"
        ),
    ],
    "livec": [livec, lambda root: livec(root / "ChallengeDB_release" / "ChallengeDB_release")],
    "dslr": [dslr, lambda root: dslr(root, header="0,1,2"), lambda root: dslr(root, place="{}")],
    "live_fb": [live_fb, lambda root: live_fb(root, "{}"), lambda root: live_fb(root, "FLIVE/{}")],
    "tid2013": [tid2013, lambda root: tid2013(root / "tid2013")],
    "kadid10k": [kadid10k, lambda root: kadid10k(root / "kadid10k", "distorted_images", "reference_images")],
    "csiq": [csiq, csiq_text, csiq_both, lambda root: csiq_text(root, "dst_imgs/dst_imgs")],
    "biq2021": [biq2021, lambda root: biq2021(root / "BIQ2021", "Images/Images")],
    "avt_h265": [avt_h265, lambda root: avt_h265(root, labels="", images_in="images")],
}

RECORDS = {  # key, score with larger = better, group
    "koniq10k": [
        ("10000.jpg", 60.5, "10000.jpg"),
        ("10001.jpg", 71.25, "10001.jpg"),
        ("10002.jpg", 3.91, "10002.jpg"),
    ],
    "pipal": [(name, score, name[:5]) for name, score in PIPAL.items()],
    "cid2013": [(name, row[1], row[3]) for name, row in CID.items()],
    "live_iqa": [(name, -score, group) for name, (score, group) in LIVE.items()],
    "spaq": [(name, mos, name) for name, mos in SPAQ.items()],
    "livec": [("3.bmp", 63.96, "3.bmp"), ("4.bmp", 25.3, "4.bmp"), ("1164.JPG", 92.43, "1164.JPG")],
    "dslr": [(name, mos, reference) for name, (mos, reference) in DSLR.items()],
    "live_fb": [(name, mos, name) for name, mos in FLIVE.items()],
    "tid2013": [(name.lower(), score, name[:3].lower()) for name, score in TID.items()],
    "kadid10k": [(name, score, ref[:3].lower()) for name, (score, ref) in KADID.items()],
    "csiq": [(Path(name).name, -row[0], str(row[1])) for name, row in CSIQ.items()],
    "biq2021": [(name, mos, name) for part in BIQ.values() for name, mos in part.items()],
    "avt_h265": [(name, mos, scene) for name, (mos, scene) in AVT.items()],
}


def records(reading):
    return [(p.key, p.mos, p.group) for p in reading.photographs]


@pytest.mark.parametrize(
    "name, build", [(name, build) for name, builds in LAYOUTS.items() for build in builds]
)
def test_every_layout_gives_the_same_records(tmp_path, name, build):
    """Below a data root with other data sets, by any spelling of the folder, and as the root itself."""
    dataset = DATASETS[name]
    build(tmp_path / "raw" / dataset.folders[-1].upper())
    for other in DATASETS.values():
        if other.name not in (name, "csv"):
            (tmp_path / "raw" / other.folders[0]).mkdir(exist_ok=True)
    listing = sorted(tmp_path.rglob("*"))
    folder = folder_of(dataset, tmp_path / "raw")
    reading = read_dataset(dataset, folder)
    assert records(reading) == RECORDS[name] and reading.missing == []
    assert all(p.path.name.lower().startswith(Path(p.key).name.lower()) for p in reading.photographs)
    assert records(read_dataset(dataset, folder_of(dataset, folder))) == RECORDS[name]
    assert sorted(tmp_path.rglob("*")) == listing


def test_subsets_and_counts_are_those_published():
    for dataset in DATASETS.values():
        assert dataset.released in (None, *dataset.subsets) and "all" in dataset.subsets
    counts = {name: next(iter(dataset.subsets.values())) for name, dataset in DATASETS.items()}
    assert counts == {
        **{
            "koniq10k": 10073,
            "pipal": 23200,
            "cid2013": 474,
            "live_iqa": 779,
            "spaq": 11125,
            "livec": 1162,
            "dslr": 1035,
        },
        **{"live_fb": 39810, "tid2013": 3000, "kadid10k": 10125, "csiq": 866},
        **{"biq2021": 12000, "avt_h265": 371, "csv": None},
    }
    assert [name for name, dataset in DATASETS.items() if not dataset.larger_is_better] == [
        "live_iqa",
        "csiq",
    ]
    for name, parts in (("cid2013", 6), ("live_iqa", 5), ("pipal", 4), ("koniq10k", 3), ("live_fb", 2)):
        sizes = list(DATASETS[name].subsets.values())
        assert len(sizes) == parts + 1 and sizes[0] == sum(sizes[1:])


@pytest.mark.parametrize(
    "name, build, subset, keys",
    [
        ("koniq10k", koniq10k_sets, "test", ["10001.jpg", "10002.jpg"]),
        ("pipal", pipal, "distortion_3", ["A0121_00_00.bmp", "A0121_06_26.bmp"]),
        ("cid2013", cid2013, "IS1", ["IS_I_C01_D01", "IS_I_C02_D14"]),
        ("live_iqa", live_iqa, "fastfading", ["fastfading/img1.bmp", "fastfading/img174.bmp"]),
        ("livec", livec, "all", [*(f"t{k}.bmp" for k in range(1, 8)), "3.bmp", "4.bmp", "1164.JPG"]),
        ("live_fb", live_fb, "train+val", list(FLIVE)[1:]),
        ("kadid10k", kadid10k, "released", list(KADID)[:2]),
        ("biq2021", biq2021, "test", list(BIQ["Test"])),
        ("biq2021", biq2021, "ss02", ["ss02 (1014).jpg", "ss02 (7).jpg", "ss02 (8).jpg"]),
        ("biq2021", biq2021, "ss02-test", ["ss02 (7).jpg", "ss02 (8).jpg"]),
    ],
)
def test_subsets_are_asked_for_by_name(tmp_path, name, build, subset, keys):
    build(tmp_path)
    reading = read_dataset(DATASETS[name], tmp_path, subset)
    assert [p.key for p in reading.photographs] == keys and reading.record()["subset"] == subset
    released = DATASETS[name].released
    note = f"the authors' code uses the subset {released}"
    assert reading.notes() == ([] if released in (None, subset) else [note])


def test_score_columns(tmp_path):
    koniq10k(tmp_path / "koniq")
    cid2013(tmp_path / "cid")
    live_iqa(tmp_path / "live")
    for name, folder, column, scores, scale in (
        ("koniq10k", "koniq", "MOS", [3.91, 3.1, 1.4], "MOS of KonIQ-10k, 1 to 5"),
        (
            "cid2013",
            "cid",
            "realigned  mos",
            [row[2] for row in CID.values()],
            "Realigned MOS of CID2013, -9.6 to 87.9",
        ),
        (
            "live_iqa",
            "live",
            "dmos",
            [-abs(row[0]) / 2 for row in LIVE.values()],
            "dmos of LIVE-IQA, negated, -100 to 0",
        ),
    ):
        reading = read_dataset(DATASETS[name], tmp_path / folder, column=column)
        assert [p.mos for p in reading.photographs] == scores
        assert reading.record()["score_column"].lower() == " ".join(column.lower().split())
        assert reading.scale == scale
    with pytest.raises(UserError, match="KonIQ-10k has no score column 'SD': choose from MOS_zscore, MOS"):
        read_dataset(DATASETS["koniq10k"], tmp_path / "koniq", column="SD")
    text(tmp_path / "koniq/koniq10k_scores_and_distributions.csv", "image_name,score\n10000.jpg,1\n")
    with pytest.raises(UserError, match="no column 'MOS_zscore'; its columns are image_name, score"):
        read_dataset(DATASETS["koniq10k"], tmp_path / "koniq")
    koniq10k_sets(tmp_path / "sets")
    assert (
        read_dataset(DATASETS["koniq10k"], tmp_path / "sets")
        .record()["label_file"]
        .endswith("koniq10k_distributions_sets.csv")
    )
    with pytest.raises(UserError, match="not on the 1 to 5 scale"):
        read_dataset(DATASETS["koniq10k"], tmp_path / "sets", column="MOS")


@pytest.mark.parametrize("prefix", ["", "Images/", "Images\\"])
def test_dslr_without_references(tmp_path, prefix):
    dslr_self_made(tmp_path, prefix)
    assert records(read_dataset(DATASETS["dslr"], tmp_path)) == [
        (name, row[0], name) for name, row in DSLR.items()
    ]


def test_missing_images_are_named_or_recorded(tmp_path):
    spaq(tmp_path)
    (tmp_path / "TestImage/00002.jpg").rename(tmp_path / "TestImage/00002.part")
    with pytest.raises(UserError, match="1 of 3 images are nowhere below .*: 00002.jpg; .*--allow-missing"):
        read_dataset(DATASETS["spaq"], tmp_path)
    reading = read_dataset(DATASETS["spaq"], tmp_path, allow_missing=True)
    assert [p.key for p in reading.photographs] == ["00001.jpg", "11125.jpg"] and reading.record()[
        "missing"
    ] == 1
    assert reading.notes() == ["1 of 3 images are missing: 00002.jpg"]


def test_of_several_copies_the_published_one_is_read(tmp_path):
    for name, build, place in (
        ("koniq10k", koniq10k_with_small_edition, "1024x768/{}"),
        ("live_iqa", live_iqa, "{}"),
        ("csiq", csiq_both, "dst_imgs/*/{}"),
    ):
        build(tmp_path / name)
        for photograph in read_dataset(DATASETS[name], tmp_path / name).photographs:
            assert photograph.path.relative_to(tmp_path / name).match(place.format(photograph.key))


def test_an_image_of_another_folder_is_no_substitute(tmp_path):
    live_iqa(tmp_path)
    (tmp_path / "jp2k/img2.bmp").unlink()  # jpeg/img2.bmp is there
    assert read_available(DATASETS["live_iqa"], tmp_path).missing == ["jp2k/img2.bmp"]
    dslr(tmp_path / "dslr")
    (tmp_path / "dslr/Images/000_a.png").unlink()
    images(tmp_path / "dslr", "refs/000_a.png")
    assert read_available(DATASETS["dslr"], tmp_path / "dslr").missing == ["000_a.png"]
    text(tmp_path / "csv/s.csv", "image_name,MOS\nx/a.png,1\ny/a.png,2\nb.png,3\n")
    images(tmp_path / "csv", "x/a.png", "b.png")
    assert read_available(DATASETS["csv"], tmp_path / "csv").missing == ["y/a.png"]
    text(tmp_path / "csv/s.csv", "image_name,MOS\nx/a.png,1\nB.png,2\nb.png,3\n")
    with pytest.raises(UserError, match="B.png and b.png are one file"):
        read_available(DATASETS["csv"], tmp_path / "csv")


def test_names_that_differ_in_case_alone(tmp_path):
    tid2013(tmp_path)
    images(tmp_path, "distorted_images/i01_01_1.bmp")
    if len(os.listdir(tmp_path / "distorted_images")) == 5:
        pytest.skip("this file system has no upper and lower case")
    paths = {p.key: p.path.name for p in read_dataset(DATASETS["tid2013"], tmp_path).photographs}
    assert paths["i01_01_1.bmp"] == "I01_01_1.bmp"


def test_two_copies_of_an_image_are_refused(tmp_path):
    pipal(tmp_path)
    shutil.copytree(tmp_path / "Distortion_1", tmp_path / "Distortion_1/Distortion_1")
    with pytest.raises(UserError, match="A0001_00_00.bmp is found more than once .*keep one"):
        read_dataset(DATASETS["pipal"], tmp_path)


def test_a_linked_folder_is_followed_and_a_circle_ends(tmp_path):
    koniq10k(tmp_path / "disk")
    (tmp_path / "raw/koniq").mkdir(parents=True)
    for path in (tmp_path / "disk").iterdir():
        (tmp_path / "raw/koniq" / path.name).symlink_to(path)
    (tmp_path / "raw/koniq/up").symlink_to(tmp_path / "raw")
    (tmp_path / "disk/1024x768/10001.jpg").unlink()
    (tmp_path / "disk/1024x768/10001.jpg").symlink_to(tmp_path / "unplugged")
    reading = read_available(DATASETS["koniq10k"], folder_of(DATASETS["koniq10k"], tmp_path / "raw"))
    assert [p.key for p in reading.photographs] == ["10000.jpg", "10002.jpg"] and reading.missing == [
        "10001.jpg"
    ]


def test_images_are_turned_upright(tmp_path):
    spaq(tmp_path)
    shapes = {p.key: read_rgb(p.path).shape for p in read_dataset(DATASETS["spaq"], tmp_path).photographs}
    assert shapes == {"00001.jpg": (32, 40, 3), "00002.jpg": (40, 32, 3), "11125.jpg": (32, 40, 3)}


def test_views_of_avt_h265_are_of_one_scale_whatever_the_height_of_the_file(tmp_path):
    """A ramp over the whole image is as steep in the view of a small file as in that of a large one."""
    avt_h265(tmp_path)
    steps = []
    for photograph in read_dataset(DATASETS["avt_h265"], tmp_path).photographs:
        height, width, _ = read_rgb(photograph.path).shape
        assert height == width == int(photograph.key[-4:])
        ramp = np.repeat(np.linspace(0, 255, width).round().astype(np.uint8)[None, :, None], height, axis=0)
        place = Placement.draw(View(crop="center", flips=()), photograph.resize, 0, photograph.key)
        view = place(np.repeat(ramp, 3, axis=2)).astype(float)
        assert view.shape == (224, 224, 3) and not place.enlarges(ramp)
        steps.append(view[0, -1, 0] - view[0, 0, 0])
    assert np.allclose(steps, 255 * 224 / 720, atol=2)


def damage(path):
    path.write_bytes(b"no such format")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "name, build, spoil, message",
    [
        ("live_iqa", lambda root: live_iqa(root, length=779), None, "dmos_new has 779 entries, not 982"),
        (
            "live_iqa",
            live_iqa,
            lambda root: (root / "dmos_realigned.mat").unlink(),
            "no label file dmos_realigned.mat",
        ),
        (
            "live_iqa",
            live_iqa,
            lambda root: shutil.copy(root / "dmos.mat", root / "dmos_realigned.mat"),
            "no variable 'dmos_new'",
        ),
        (
            "livec",
            livec,
            lambda root: damage(root / "Data/AllMOS_release.mat"),
            "cannot be read as a MATLAB file",
        ),
        (
            "livec",
            livec,
            lambda root: cut(root / "Data/AllMOS_release.mat"),
            "cannot be read as a MATLAB file",
        ),
        (
            "livec",
            livec,
            lambda root: (root / "Data/AllImages_release.mat").unlink(),
            "no label file AllImages_release.mat",
        ),
        (
            "cid2013",
            cid2013,
            lambda root: damage(next(root.glob("*.xlsx"))),
            "cannot be read as a spreadsheet",
        ),
        ("cid2013", cid2013_ods, lambda root: damage(root / "cid.ods"), "cannot be read as a spreadsheet"),
        (
            "cid2013",
            cid2013,
            lambda root: sheets(next(root.glob("*.xlsx")), A=[("x",)]),
            "no sheet has the columns Source_ID",
        ),
        (
            "spaq",
            spaq,
            lambda root: shutil.rmtree(root / "Annotations"),
            "no label file MOS and Image attribute scores.xlsx",
        ),
        (
            "csiq",
            csiq_text,
            lambda root: text(root / "csiq_label.txt", "1600 AWGN 1 0.06\n"),
            "line 1 has 4 fields, not 2",
        ),
        (
            "csiq",
            csiq_text,
            lambda root: text(root / "csiq_label.txt", "1600.png 0.06\n"),
            "'1600.png' is no name of a CSIQ",
        ),
        (
            "tid2013",
            tid2013,
            lambda root: text(root / "mos_with_names.txt", "I01_01_1.bmp 5\n"),
            "'5' is no name of a TID2013",
        ),
        (
            "tid2013",
            tid2013,
            lambda root: text(root / "mos_with_names.txt", "x I01_01_1.bmp\n"),
            "i01_01_1.bmp is no finite number",
        ),
        (
            "kadid10k",
            kadid10k,
            lambda root: text(root / "dmos.csv", "dist_img,dmos\nI01_01_01.png,3\n"),
            "no column 'ref_img'",
        ),
        ("kadid10k", kadid10k, lambda root: text(root / "b/dmos.csv", "other"), "label files that differ"),
        ("dslr", dslr, lambda root: text(root / "MOS_FR.csv", "a,b\nc,1\n"), "2 columns, not three"),
        (
            "kadid10k",
            kadid10k,
            lambda root: text(root / "dmos.csv", "dist_img,ref_img,dmos\n"),
            "no label of the subset 'all'",
        ),
        (
            "koniq10k",
            koniq10k,
            lambda root: shutil.rmtree(root / "1024x768"),
            "3 of 3 images are nowhere below",
        ),
        (
            "avt_h265",
            avt_h265,
            lambda root: text(root / "test_1/mos_ci.csv", "image_name,mos\nDancers_height_0144,3\n"),
            "'Dancers_height_0144' is no name of an AVT H.265 image",
        ),
    ],
)
def test_faults_are_explained(tmp_path, name, build, spoil, message):
    build(tmp_path)
    if spoil:
        spoil(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        read_dataset(DATASETS[name], tmp_path)


def test_the_folder_of_a_data_set(tmp_path):
    koniq10k(tmp_path / "KonIQ-10k")
    with pytest.raises(
        UserError, match="no folder of CSIQ, such as csiq, and no csiq.DMOS.xlsx; get it from https"
    ):
        folder_of(DATASETS["csiq"], tmp_path)
    text(tmp_path / "koniq_10k/notes.txt", "")
    with pytest.raises(UserError, match="KonIQ-10k, koniq_10k may all be KonIQ-10k"):
        folder_of(DATASETS["koniq10k"], tmp_path)
    text(tmp_path / "mine/my copy/dmos.csv", "dist_img,ref_img,dmos,var\n")
    assert folder_of(DATASETS["kadid10k"], tmp_path / "mine") == tmp_path / "mine"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A data root with all data sets."""
    root = tmp_path_factory.mktemp("raw")
    for name, builds in LAYOUTS.items():
        builds[0](root / DATASETS[name].folders[0])
    return root


def test_check_data_reports_all_data_sets(raw, capsys):
    listing = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    assert check_data.main(["--data-root", str(raw), "--decode"]) == 1
    header, *lines = capsys.readouterr().out.splitlines()
    for name, line in zip(RECORDS, lines):
        dataset, n = DATASETS[name], len(RECORDS[name])
        cells = re.split(r"\s{2,}", line)
        expected = next(iter(dataset.subsets.values()))
        assert (
            cells[0] == dataset.title
            and cells[4:7] == [str(n), str(n), str(expected)]
            and cells[-2:] == ["0", "0"]
        )
        assert f"labels {n} of {expected} expected images" in next(
            row for row in lines if row.startswith(f"{name}: ")
        )
    assert len(lines) == 2 * len(RECORDS)  # a row and one problem, the count, for each
    assert re.search("dmos_new, higher is worse, negated +-2.64 to 111.7 ", lines[3])
    assert re.search("dmos, higher is better +1.2 to 4.57 ", lines[9])
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == listing


def test_check_data_finds_what_falls_short(tmp_path, capsys, monkeypatch):
    koniq10k(tmp_path / "koniq")
    images(tmp_path, "koniq/1024x768/10000.jpg", size=(512, 384))
    (tmp_path / "koniq/1024x768/10001.jpg").unlink()
    cut(tmp_path / "koniq/1024x768/10002.jpg")
    file = tmp_path / "koniq/koniq10k_scores_and_distributions.csv"
    file.write_text(file.read_text().replace("60.5", "160.5"))
    monkeypatch.setenv("IQA_DATA_ROOT", str(tmp_path))
    assert check_data.main(["koniq10k", "csiq", "--decode"]) == 1
    printed = capsys.readouterr().out
    for part in (
        "labels 3 of 10073 expected images",
        "1 of 3 images are missing (10001.jpg)",
        "scores from 3.91 to 160.5 are not on the scale of 0 to 100",
        "10000.jpg has 512x384 pixels, not 1024x768",
        "1 image cannot be decoded (10002.jpg)",
        "csiq: not there: ",
    ):
        assert part in printed
    assert check_data.main(["koniq"]) == 2
    assert "no data set koniq: choose from koniq10k, pipal" in capsys.readouterr().err


def test_check_data_passes_a_whole_data_set(tmp_path, capsys):
    images(tmp_path, "a.png", "b.png")
    text(tmp_path / "scores.csv", "image_name,MOS\na.png,1\nb.png,2\n")
    assert check_data.main(["csv", "--data-root", str(tmp_path), "--decode"]) == 0
    livec(tmp_path / "livec")
    names = [f"t{k}.bmp" for k in range(1, 8)] + [f"{k}.bmp" for k in range(3, 1165)]
    scores = np.linspace(3.42, 92.43, 1169)[None]
    scipy.io.savemat(
        tmp_path / "livec/Data/AllImages_release.mat", {"AllImages_release": cell(names, (1169, 1))}
    )
    scipy.io.savemat(tmp_path / "livec/Data/AllMOS_release.mat", {"AllMOS_release": scores})
    for name in names[7:]:
        (tmp_path / "livec/Images" / name).touch()
    assert check_data.main(["livec", "--data-root", str(tmp_path)]) == 0
    assert re.search(r"1162 +1162 +1162", capsys.readouterr().out)


@pytest.mark.parametrize("name", DATASETS)
def test_the_readme_has_every_data_set(name):
    rows = [
        line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}`")
    ]
    assert len(rows) == 1
    dataset = DATASETS[name]
    for subset, count in dataset.subsets.items():
        assert count is None or f"`{subset}` {count:,}" in rows[0]


def cell_of(name, root, weights, *options):
    return [
        *(
            "--backbone",
            "metaiqa",
            "--weights",
            str(weights),
            "--method",
            "source",
            "--seeds",
            "1",
            "--device",
            "cpu",
        ),
        *("--dataset", name, "--data-root", str(root), "--workers", "0", *options),
    ]


@pytest.mark.parametrize("name", RECORDS)
def test_a_cell_of_every_data_set_records_its_data(raw, weights, tmp_path, name):
    assert reproduce_cell.main(cell_of(name, raw, weights, "--json", str(tmp_path / "cell.json"))) == 0
    result = json.loads((tmp_path / "cell.json").read_text())
    data = result["config"]["data"]
    assert result["n_images"] == len(RECORDS[name]) and data["dataset"] == name and data["missing"] == 0
    assert data["subset"] == next(iter(DATASETS[name].subsets))
    assert Path(data["label_file"]).is_relative_to(raw)
    worse = name in ("live_iqa", "csiq")
    assert data["direction"] == ("higher is worse, negated" if worse else "higher is better")
    resizes = {"koniq10k": [512, 384], "cid2013": [512, 384], "spaq": [512, 384], "avt_h265": [720, 720]}
    assert data["resize"] == resizes.get(name)


def test_a_cell_with_options(weights, tmp_path, capsys):
    cid2013(tmp_path / "cid")
    (tmp_path / "cid/IS1/co2/IS_I_C02_D14.jpg").unlink()
    options = [
        "--score-column",
        "Realigned MOS",
        "--json",
        str(tmp_path / "cell.json"),
        "--scores",
        str(tmp_path / "scores.csv"),
    ]
    assert reproduce_cell.main(cell_of("cid2013", tmp_path / "cid", weights, *options)) == 2
    assert "1 of 5 images are nowhere below" in capsys.readouterr().err
    assert (
        reproduce_cell.main(cell_of("cid2013", tmp_path / "cid", weights, *options, "--allow-missing")) == 0
    )
    assert "note: 1 of 5 images are missing: IS_I_C02_D14" in capsys.readouterr().out
    data = json.loads((tmp_path / "cell.json").read_text())["config"]["data"]
    assert data["missing"] == 1 and data["score_column"] == "Realigned MOS" and data["subset"] == "all"
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert dict(zip(scores["image"], scores["mos"])) == {
        name: row[2] for name, row in CID.items() if name != "IS_I_C02_D14"
    }
    for wrong, message in (
        (["--subset", "IS7"], "CID2013 has no subset 'IS7': choose from all, IS1"),
        (["--json", str(tmp_path / "cid/cell.json")], "where nothing is written"),
    ):
        assert reproduce_cell.main(cell_of("cid2013", tmp_path / "cid", weights, *wrong)) == 2
        assert message in capsys.readouterr().err
