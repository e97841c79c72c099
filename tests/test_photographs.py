"""From files as users have them to batches: formats, bad files, labels, and what randomness may depend on."""

import io
import re
from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import common.views
from common.batches import Views, batch_order, load
from common.distortions import TYPES, Severities, compress, distort, unit
from common.photographs import Photograph, read_rgb
from common.system.errors import UserError
from common.views import COLOURS, SECOND_VIEWS, Placement, View, recoloured, second_view
from common.y import unit_tensor
from data.catalogue import data_root
from data.csv_folder import DATASET
from data.dataset import read_dataset


def picture(height=60, width=80, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


GREY = np.arange(60 * 80, dtype=np.float64).reshape(60, 80) / (60 * 80)
FORMATS = {
    "grey.png": lambda path: Image.fromarray((GREY * 255).astype(np.uint8)).save(path),
    "grey16.png": lambda path: Image.fromarray((GREY * 65535).astype(np.uint16)).save(path),
    "grey16.tif": lambda path: Image.fromarray((GREY * 65535).astype(np.uint16)).save(path),
    "rgb16.png": lambda path: cv2.imwrite(str(path), picture().astype(np.uint16)[..., ::-1] * 257),
    "rgba.png": lambda path: Image.fromarray(np.dstack((picture(), (GREY * 255).astype(np.uint8)))).save(
        path
    ),
    "palette.gif": lambda path: Image.fromarray(picture() // 128 * 255).quantize(8).save(path),
    "bitmap.bmp": lambda path: Image.fromarray(picture()).save(path),
    "cmyk.jpg": lambda path: Image.fromarray(picture()).convert("CMYK").save(path, quality=95),
    "one_bit.png": lambda path: Image.fromarray(GREY > 0.5).save(path),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_becomes_eight_bit_rgb(tmp_path, name):
    FORMATS[name](tmp_path / name)
    image = read_rgb(tmp_path / name)
    assert image.shape == (60, 80, 3) and image.dtype == np.uint8
    expected = (
        np.repeat((GREY * 255)[..., None], 3, axis=2) if name.startswith("grey") else picture().astype(float)
    )
    if name == "palette.gif":
        expected = picture() // 128 * 255.0
    if name == "one_bit.png":
        expected = np.repeat((GREY > 0.5)[..., None] * 255.0, 3, axis=2)
    assert np.abs(image - expected).mean() < (6 if name == "cmyk.jpg" else 0.6)


def test_exif_orientation_is_honoured(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.fromarray(picture()).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_rgb(tmp_path / "turned.png"), np.rot90(picture(), -1))


def test_a_damaged_file_is_named(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (tmp_path / "text.png").write_text("no image")
    for name in ("cut.jpg", "text.png", "absent.png"):
        with pytest.raises(UserError, match=re.escape(name)):
            read_rgb(tmp_path / name)


def make_folder(path, n=11, side=40):
    path.mkdir(parents=True)
    for i in range(n):
        Image.fromarray(picture(side, side + 8 * i, seed=i)).save(path / f"{i}.png")
    return [Photograph(f"{i}.png", path / f"{i}.png", float(i)) for i in range(n)]


def by_key(photographs, batches):
    found = {}
    for batch in batches:
        for n, index in enumerate(batch.indices):
            found[photographs[index].key] = (
                batch.clean[n],
                torch.stack([unit_tensor(pair[:, n]) for pair in batch.pairs]),
                int(batch.quarter_turns[n]),
            )
    return found


def test_what_an_image_becomes_depends_on_seed_and_key_alone(tmp_path):
    photographs = make_folder(tmp_path / "photos")
    view = View(size=32)
    reference = by_key(
        photographs, load(Views(photographs, 7, view, TYPES), batch_order(photographs, 7, 4), workers=0)
    )
    assert set(reference) == {p.key for p in photographs}
    shuffled = photographs[::-1]
    for variant in (
        by_key(
            photographs, load(Views(photographs, 7, view, TYPES), batch_order(photographs, 7, 4), workers=2)
        ),
        by_key(
            photographs, load(Views(photographs, 7, view, TYPES), batch_order(photographs, 7, 3), workers=0)
        ),
        by_key(shuffled, load(Views(shuffled, 7, view, TYPES), batch_order(shuffled, 7, 4), workers=0)),
    ):
        for key, (clean, pairs, turns) in reference.items():
            assert (
                torch.equal(clean, variant[key][0])
                and torch.equal(pairs, variant[key][1])
                and turns == variant[key][2]
            )
    other = by_key(
        photographs, load(Views(photographs, 8, view, TYPES), batch_order(photographs, 8, 4), workers=0)
    )
    assert any(not torch.equal(reference[key][0], other[key][0]) for key in reference)
    assert [value[2] for value in reference.values()] != [value[2] for value in other.values()]
    alone = by_key(
        photographs, load(Views(photographs, 7, view, ("noise",)), batch_order(photographs, 7, 4), workers=0)
    )
    assert all(torch.equal(reference[key][1][1], alone[key][1][0]) for key in reference)


def second_views(photographs, seed, workers=0, size=32, kinds=SECOND_VIEWS):
    loaded = load(
        Views(photographs, seed, View(size), second_views=kinds), batch_order(photographs, seed, 4), workers
    )
    return {
        photographs[index].key: {kind: unit_tensor(batch.second_views[kind][n]) for kind in kinds}
        | {"clean": unit_tensor(batch.clean[n])}
        for batch in loaded
        for n, index in enumerate(batch.indices)
    }


def test_second_views_depend_on_seed_and_key_alone(tmp_path):
    photographs = make_folder(tmp_path / "photos")
    reference = second_views(photographs, 7)
    for variant, kinds in (
        (second_views(photographs[::-1], 7, workers=2), SECOND_VIEWS),
        (second_views(photographs, 7, kinds=("contrique",)), ("contrique",)),
    ):
        assert all(
            torch.equal(reference[key][kind], variant[key][kind])
            for key in reference
            for kind in (*kinds, "clean")
        )
    for views in reference.values():
        assert all(float(view.min()) >= 0 and float(view.max()) <= 1 for view in views.values())
        assert not any(torch.equal(a, b) for a, b in combinations(views.values(), 2))
    other = second_views(photographs, 8)
    assert not any(
        torch.equal(reference[key][kind], other[key][kind]) for key in reference for kind in SECOND_VIEWS
    )


def test_a_contrique_view_is_half_the_photograph_in_colours_of_its_own(monkeypatch):
    image = picture(64, 64)
    half = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    monkeypatch.setattr(common.views, "recoloured", lambda crop, colours: (crop, colours))
    drawn = [second_view("contrique", image, 32, None, 0, str(i)) for i in range(60)]
    turned = [half, half[::-1], half[:, ::-1], half[::-1, ::-1]]
    assert {[np.array_equal(crop, one) for one in turned].index(True) for crop, _ in drawn} == {0, 1, 2, 3}
    assert {colours for _, colours in drawn} == set(COLOURS)


def test_colour_spaces():
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    image[:8] = 255, 0, 0
    image[8:] = 255, 255, 255
    found = {colours: unit(recoloured(image, colours)) * 255 for colours in COLOURS}
    # In 8 bits; L 53.2, a 80.1, b 67.2, of which L is stretched from 100, a and b are shifted by 128.
    red_and_white = {
        "rgb": [[255, 0, 0], [255, 255, 255]],
        "lab": [[136, 208, 195], [255, 128, 128]],
        "hsv": [[0, 255, 255], [0, 0, 255]],
        "grey": [[76, 76, 76], [255, 255, 255]],
    }
    for colours, expected in red_and_white.items():
        np.testing.assert_allclose(found[colours][[0, 15], 5], expected, atol=0.5, err_msg=colours)
    assert all(one.dtype == np.float32 and one.shape == image.shape for one in found.values())
    flat, edge = found["ms"][:, 5, 0], found["ms"][:, 5, 1]  # red is the same everywhere, green is not
    assert flat.max() < 0.1
    np.testing.assert_allclose(edge[[0, 7, 8, 15]], [127.5, 0, 255, 127.5], atol=0.1)


def test_loading_leaves_the_global_generators_alone(tmp_path):
    photographs = make_folder(tmp_path / "photos", 4)
    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    list(load(Views(photographs, 7, View(size=32), TYPES), batch_order(photographs, 7, 4), workers=0))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_batches_are_the_same_whatever_the_order_of_the_files(tmp_path):
    photographs = [Photograph(f"{i}.png", tmp_path, 0.0) for i in range(19)]
    shuffled = photographs[7:] + photographs[:7]

    def keys(given, seed):
        return [[given[i].key for i in batch] for batch in batch_order(given, seed, 8)]

    assert keys(photographs, 0) == keys(shuffled, 0) != keys(photographs, 1)
    assert [len(batch) for batch in keys(photographs, 0)] == [8, 8, 3]
    assert keys(photographs, 0)[0] != [p.key for p in photographs[:8]]


def test_a_view_is_one_place_for_every_version():
    image = picture(80, 100)
    place = Placement.draw(View(size=32), None, 0, "a")
    assert np.array_equal(place(255 - image), 255 - place(image))
    places = {
        (p.horizontal, p.vertical) for p in (Placement.draw(View(), None, 0, str(i)) for i in range(40))
    }
    assert len(places) == 4
    assert np.array_equal(Placement.draw(View(32, "center", ()), None, 0, "a")(image), image[24:56, 34:66])
    assert Placement.draw(View(32, "whole", ()), None, 0, "a")(image).shape == (32, 32, 3)
    squeezed = Placement.draw(View(48, "center", ()), (64, 48), 0, "a")(image)  # height, width
    expected = np.asarray(Image.fromarray(image).resize((48, 64), Image.Resampling.BILINEAR))[8:56]
    assert np.array_equal(squeezed, expected)


def test_small_images_are_scaled_up_and_counted(tmp_path):
    photographs = make_folder(tmp_path / "photos", 3, side=20)
    (batch,) = load(Views(photographs, 0, View(size=32)), batch_order(photographs, 0, 8), workers=0)
    assert batch.clean.shape == (3, 3, 32, 32) and batch.enlarged == 3
    (whole,) = load(
        Views(photographs, 0, View(size=32, crop="whole")), batch_order(photographs, 0, 8), workers=0
    )
    assert whole.enlarged == 3
    placed = Placement.draw(View(32, "center", ()), None, 0, "a")(
        picture(16, 6000)
    )  # not 32 x 12,000 in between
    assert placed.shape == (32, 32, 3)


def test_distortions_of_the_whole_image_come_before_the_crop(tmp_path):
    (photograph,) = make_folder(tmp_path / "photos", 1, side=80)
    view = View(32, "center", ())
    severities = replace(Severities(), whole_image=True, compression_high=(50, 50))
    pairs = Views([photograph], 0, view, TYPES, severities)[0].copies
    image = read_rgb(photograph.path)
    assert np.array_equal(pairs[0], compress(image, 50)[24:56, 24:56])
    assert np.array_equal(
        pairs[5], distort(image[24:56, 24:56], "blur", "low", severities, 0, photograph.key)
    )


@pytest.mark.parametrize("view", [View(32, "center", ()), View(32), View(32, "whole"), View(120)])
@pytest.mark.parametrize("resize", [None, (60, 72)])
def test_noise_of_the_whole_image_is_that_of_the_crop(tmp_path, view, resize):
    """However little of it is computed."""
    severities = replace(Severities(), whole_image=True)
    for photograph in make_folder(tmp_path / "photos", 6, side=80):
        photograph = replace(photograph, resize=resize)
        image = read_rgb(photograph.path)
        noisy = distort(image, "noise", "high", severities, 0, photograph.key)
        place = Placement.draw(view, resize, 0, photograph.key)
        (high, _) = Views([photograph], 0, view, ("noise",), severities)[0].copies
        assert np.array_equal(high, place((noisy * 255).round().astype(np.uint8)))


def test_severities_stay_in_their_ranges_and_high_is_stronger():
    image = np.full((128, 128, 3), 128, dtype=np.uint8)
    for key in "abcdefgh":
        for level, (low, high) in (("high", (0.05, 0.1)), ("low", (0.005, 0.01))):
            narrow = replace(Severities(), **{f"noise_{level}": (low, low)})
            variance = (distort(image, "noise", level, narrow, 0, key) - unit(image)).var()
            assert variance == pytest.approx(low, rel=0.15)  # clipping takes a little
            drawn = (distort(image, "noise", level, Severities(), 0, key) - unit(image)).var()
            assert low * 0.85 < drawn < high * 1.05
    sharp = picture(128, 128, 3)
    qualities = {q: compress(sharp, q) for q in (*range(40, 61), *range(80, 91))}
    for level, allowed in (("high", range(40, 61)), ("low", range(80, 91))):
        drawn = {
            next(
                q
                for q, value in qualities.items()
                if np.array_equal(value, distort(sharp, "compression", level, Severities(), 0, k))
            )
            for k in map(str, range(60))
        }
        assert drawn <= set(allowed) and len(drawn) > 5 and {min(allowed), max(allowed)} & drawn


def test_blur_is_the_gaussian_of_the_paper():
    image = np.zeros((15, 15, 3), dtype=np.uint8)
    image[7, 7] = 255
    fixed = replace(Severities(), blur_low=(1.5, 1.5))
    taps = np.exp(-0.5 * (np.arange(-2, 3) / 1.5) ** 2)
    expected = np.outer(taps, taps) / taps.sum() ** 2
    found = distort(image, "blur", "low", fixed, 0, "a")[5:10, 5:10, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def csv_folder(tmp_path, text, images=("a.png", "b.png", "c.png")):
    for name in images:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture()).save(tmp_path / name)
    (tmp_path / "scores.csv").write_text(text, encoding="utf-8")
    return tmp_path


def test_csv_folder(tmp_path):
    root = csv_folder(
        tmp_path,
        "\ufeffreference, image_name ,MOS\nr,a.png,1\nr,deep/B.PNG, 2.5\nr,c.png,3\n",
        ("a.png", "deep/b.png", "x/C.png"),
    )
    (tmp_path / "deep/b.png").rename(tmp_path / "deep/B.PNG")
    photographs = read_dataset(DATASET, root).photographs
    assert [(p.key, p.mos) for p in photographs] == [("a.png", 1.0), ("deep/B.PNG", 2.5), ("c.png", 3.0)]
    assert photographs[2].path == tmp_path / "x/C.png"
    assert read_dataset(DATASET, root / "scores.csv").photographs == photographs
    assert [p.group for p in photographs] == ["r", "r", "r"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("name,MOS\na.png,1\n", "no column 'image_name'; its columns are name, MOS"),
        ("image_name,score\na.png,1\n", "no column 'MOS'"),
        ("image_name,MOS\na.png,1\nb.png,\n", "the MOS of b.png is no finite number"),
        ("image_name,MOS\na.png,1\nb.png,nan\n", "the MOS of b.png is no finite number"),
        ("image_name,MOS\na.png,1\nb.png,good\n", "the MOS of b.png is no finite number"),
        ("image_name,MOS\na.png,2\nb.png,2\n", "every MOS is 2"),
        ("image_name,MOS\na.png,2\na.png,3\n", "a.png named more than once"),
        ("image_name,MOS\na.png,2\n", "needs at least 2"),
        ("image_name,MOS\na.png,2\n,3\n", "row 3 has no image_name"),
        ("image_name,MOS\na.png,2\nz.png,3\n", "1 of 2 images are nowhere below"),
        ("image_name,MOS\na.png,1,5\nb.png,2,5\n", "cannot be read as a CSV"),
        ("", "cannot be read as a CSV"),
    ],
)
def test_bad_labels_are_explained(tmp_path, text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_dataset(DATASET, csv_folder(tmp_path, text))


def test_an_ambiguous_name_and_a_missing_label_file(tmp_path):
    root = csv_folder(tmp_path, "image_name,MOS\na.png,1\nb.png,2\n", ("x/a.png", "y/a.png", "b.png"))
    with pytest.raises(UserError, match="a.png is found more than once"):
        read_dataset(DATASET, root)
    (root / "other.csv").write_text("")
    with pytest.raises(UserError, match="2 CSV files"):
        read_dataset(DATASET, root)
    with pytest.raises(UserError, match="no CSV file"):
        read_dataset(DATASET, root / "x")
    with pytest.raises(UserError, match="no such folder"):
        data_root(root / "absent")
