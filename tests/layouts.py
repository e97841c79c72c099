"""Every data set in the layouts that users have, built as tiny copies in the published formats."""

import shutil
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import scipy.io
from PIL import Image


def images(root, *names, size=(40, 32), **options):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (len(name) * 7 % 256, 90, 30)).save(root / name, **options)


def text(path, content, newline="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.replace("\n", newline).encode())


def sheets(path, **content):
    """An .xlsx file: sheet name to rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in content.items():
        sheet = book.create_sheet(name.replace("__", " "))
        for row in rows:
            sheet.append(row)
    book.save(path)


def cell(names, shape):
    found = np.empty(shape, dtype=object)
    found.flat = names
    return found


def koniq10k(root):
    images(root, *(f"1024x768/{n}.jpg" for n in (10000, 10001, 10002)), size=(1024, 768))
    text(
        root / "koniq10k_scores_and_distributions.csv",
        '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"\n'
        '"10000.jpg",0,1,2,3,4,10,3.91,0.5,60.5\n"10001.jpg",1,2,3,2,1,9,3.1,0.6,71.25\n"10002.jpg",5,3,1,0,0,9,1.4,0.7,3.91\n',
    )


def koniq10k_deeper(root):
    koniq10k(root)
    (root / "koniq10k_1024x768").mkdir()
    shutil.move(root / "1024x768", root / "koniq10k_1024x768")
    scores = root / "koniq10k_scores_and_distributions.csv"
    folder = root / "koniq10k_scores_and_distributions"
    folder.mkdir()
    shutil.move(scores, folder)


def koniq10k_with_small_edition(root):
    koniq10k(root)
    images(root, *(f"512x384/{n}.jpg" for n in (10000, 10001, 10002)), size=(512, 384))


SETS = (
    "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n"
    "10000.jpg,0,.1,.2,.3,.4,10,60.5,.5,training\n10001.jpg,.1,.2,.4,.2,.1,9,71.25,.6,test\n10002.jpg,.5,.3,.2,0,0,9,3.91,.7,test\n"
)


def koniq10k_sets(root):
    koniq10k(root)
    (root / "koniq10k_scores_and_distributions.csv").unlink()
    text(root / "koniq10k_distributions_sets.csv", SETS)


PIPAL = {
    f"{ref}_{kind}.bmp": 1500.5 + 10 * n + m
    for n, ref in enumerate(("A0001", "A0060", "A0121", "A0185"))
    for m, kind in enumerate(("00_00", "06_26"))
}


def pipal(root, folder="Distortion_{}", labels="Train_Label", ending="\n"):
    for n, name in enumerate(PIPAL):
        images(root, f"{folder.format(n // 2 + 1)}/{name}")
        images(root, f"Train_Ref/{name[:5]}.bmp")
    for ref in {name[:5] for name in PIPAL}:
        lines = [f"{name},{score}" for name, score in PIPAL.items() if name.startswith(ref)]
        text(root / labels / f"{ref}.txt", "\n".join(lines) + ending)


def pipal_list(root):
    for name in PIPAL:
        images(root, f"Train_Distort/{name}")
    text(root / "PIPAL.txt", "".join(f"{name}, {score}\n" for name, score in PIPAL.items()) + "\n")


def pipal_csv(root):
    pipal(root)
    shutil.rmtree(root / "Train_Label")
    rows = [(f"Train_{n // 2 + 1}/{name}", score) for n, (name, score) in enumerate(PIPAL.items())]
    pd.DataFrame(rows, columns=["filename", "mos"]).to_csv(root / "mos_data.csv")


BIQ = {
    "Train": {"ss03 (3753).jpg": 0.8471, "ss01 (1726).jpg": 0.2874, "ss02 (1014).jpg": 0.5},
    "Test": {"ss03 (7805).jpg": 0.7321, "ss02 (7).jpg": 0.1, "ss02 (8).jpg": 0.2},
}


def biq2021(root, folder="Images"):
    """As its repository has it: empty columns in one list, one image whose ending is in capitals."""
    for part, scores in BIQ.items():
        more = ",," if part == "Train" else ""
        lines = [f"Image Name,MOS{more}", *(f"{name},{mos}{more}" for name, mos in scores.items())]
        text(root / f"{part} (Images and MOS).csv", "\n".join(lines) + "\n")
        for name in scores:
            images(root, f"{folder}/{name.replace('(1014).jpg', '(1014).JPG')}")


AVT = {
    "Dancers.avi_1frame_crf_07_height_0144": (1.0952380952380953, "Dancers.avi_1frame"),
    "Dancers.avi_1frame_crf_21_height_0720": (3.5, "Dancers.avi_1frame"),
    "Netflix_BarScene_4096x2160_60fps_10bit_420.y4m_1frame_crf_02_height_0960": (
        4.857142857142857,
        "Netflix_BarScene_4096x2160_60fps_10bit_420.y4m_1frame",
    ),
}


def avt_h265(root, labels="test_1", images_in="test_1/images"):
    """As its repository has it: names without extension, square images as high as their names say."""
    for name in AVT:
        images(root, f"{images_in}/{name}.png", size=(int(name[-4:]),) * 2)
    rows = "".join(f"{name},{mos},0.5,0.6\n" for name, (mos, _) in AVT.items())
    text(root / labels / "mos_ci.csv", "image_name,mos,ci,std\n" + rows)


CID = {
    "IS_I_C01_D01": ("IS1/co1", 55.5, 40.25, "C01"),
    "IS_I_C02_D14": ("IS1/co2", 20.0, -9.5, "C02"),
    "IS_II_C01_D01": ("IS2/co1", 71.0, 80.0, "C01"),
    "IS_V_C08_D12": ("IS5/co8", 33.0, 35.0, "C08"),
    "IS_VI_C07_D14": ("IS6/co7", 44.0, 30.0, "C07"),
}


def cid2013(root, flat=False, header="Image set specific  MOS"):
    images(root, *(f"{'all' if flat else row[0]}/{name}.jpg" for name, row in CID.items()))
    rows = [("Source_ID", "Device", header, "Realigned MOS", "Sharpness")]
    rows += [(name, 3, *row[1:3], 1.5) for name, row in CID.items()]
    notes = [("CID2013",), ("Source_ID", "what it is")]
    sheets(
        root / "CID2013 data - version 12112014.xlsx", About=notes, CID2013__MOS=[*rows, (None, "mean", 44.7)]
    )


def cid2013_ods(root):
    cid2013(root)
    (root / "CID2013 data - version 12112014.xlsx").unlink()
    rows = [(name, *row[1:3]) for name, row in CID.items()]
    pd.DataFrame(rows, columns=["Source_ID", "Image set specific  MOS", "Realigned MOS"]).to_excel(
        root / "cid.ods", index=False, engine="odf"
    )


LIVE_BLOCKS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
LIVE = {
    "jp2k/img2.bmp": (1.5, "bikes"),
    "jpeg/img1.bmp": (20.0, "plane"),
    "wn/img1.bmp": (-2.64, "bikes"),
    "gblur/img1.bmp": (60.0, "plane"),
    "fastfading/img1.bmp": (70.0, "bikes"),
    "fastfading/img174.bmp": (111.7, "plane"),
}


def live_iqa(root, blur="gblur", length=982, rows=LIVE):
    """The arrays at full length; all that is not in `rows` is a copy of a reference."""
    places = [f"{folder}/img{k}.bmp" for folder, count in LIVE_BLOCKS.items() for k in range(1, count + 1)]
    images(
        root,
        *(name.replace("gblur", blur) for name in rows),
        "refimgs/bikes.bmp",
        "refimgs/plane.bmp",
        "jpeg/img2.bmp",
    )
    dmos = np.array([[rows.get(place, (0, ""))[0] for place in places]])
    orgs = np.array([[place not in rows for place in places]], dtype=np.uint8)
    references = [rows.get(place, (0, "plane"))[1] + ".bmp" for place in places]
    content = {"dmos_new": dmos[:, :length], "dmos_std": dmos[:, :length], "orgs": orgs[:, :length]}
    scipy.io.savemat(root / "dmos_realigned.mat", content)
    scipy.io.savemat(root / "dmos.mat", {"dmos": np.abs(dmos) / 2, "orgs": orgs})
    scipy.io.savemat(root / "refnames_all.mat", {"refnames_all": cell(references, (1, 982))})


SPAQ_HEADER = ("Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
SPAQ = {"00001.jpg": 80, "00002.jpg": 2, "11125.jpg": 45.67}


def spaq(root, images_in="TestImage", labels="Annotations/MOS and Image attribute scores.xlsx"):
    exif = Image.Exif()
    exif[0x0112] = 6
    images(root, f"{images_in}/00001.jpg", f"{images_in}/11125.jpg")
    images(root, f"{images_in}/00002.jpg", exif=exif)
    rows = [(name, mos, 1, 2, 3, 4, 5) for name, mos in SPAQ.items()]
    if labels.endswith(".csv"):
        (root / labels).parent.mkdir()
        pd.DataFrame(rows, columns=SPAQ_HEADER).to_csv(root / labels, index=False)
    else:
        sheets(root / labels, Sheet1=[SPAQ_HEADER, *rows])
    sheets(
        root / "Annotations/Scene category labels.xlsx", Sheet1=[("Image name", "Animal"), ("00001.jpg", 1)]
    )


def livec(root):
    names = [f"t{k}.bmp" for k in range(1, 8)] + ["3.bmp", "4.bmp", "1164.JPG"]
    images(
        root,
        *(f"Images/trainingImages/{name}" for name in names[:7]),
        *(f"Images/{name}" for name in names[7:]),
    )
    (root / "Data").mkdir()
    scores = np.array([[9.0] * 7 + [63.96, 25.3, 92.43]])
    scipy.io.savemat(root / "Data/AllImages_release.mat", {"AllImages_release": cell(names, (10, 1))})
    scipy.io.savemat(root / "Data/AllMOS_release.mat", {"AllMOS_release": scores})
    scipy.io.savemat(root / "Data/AllStdDev_release.mat", {"AllStdDev_release": scores})


DSLR = {
    "000_a.png": (30.5, "refs/000.png"),
    "000_b.png": (70, "refs/000.png"),
    "001_a.png": (20, "refs/001.png"),
}


def dslr(root, header="image,score,reference", place="Images/{}"):
    images(root, *(place.format(name) for name in DSLR), "refs/000.png", "refs/001.png")
    text(
        root / "MOS_FR.csv",
        header + "\n" + "".join(f"{name},{row[0]},{row[1]}\n" for name, row in DSLR.items()),
    )


def dslr_self_made(root, prefix=""):
    images(root, *(f"Images/{name}" for name in DSLR))
    pd.DataFrame([(prefix + name, row[0]) for name, row in DSLR.items()]).to_csv(root / "MOS.csv")


FLIVE = {
    "voc_emotic_ava/AVA__149.jpg": 74.5,
    "voc_emotic_ava/EMOTIC__x.jpg": 0.0,
    "blur_dataset/out_of_focus0059.JPG": 31.25,
    "EE371R/rq85.jpg": 66,
}


def live_fb(root, place="database/{}"):
    images(root, *(place.format(name if place.startswith("database") else Path(name).name) for name in FLIVE))
    images(root, "database/patches/AVA__149_patch_1.jpg")
    text(root / "labels_image.csv", "name,mos\n" + "".join(f"{name},{mos}\n" for name, mos in FLIVE.items()))
    text(
        root / "labels640.csv",
        "name_image,mos_image,width_image,height_image\nvoc_emotic_ava/AVA__149.jpg,74.5,700,500\n",
    )


TID = {"I01_01_1.bmp": 5.51429, "i01_01_2.bmp": 4.5, "I24_11_1.BMP": 0.24242, "i25_24_5.bmp": 7.21429}


def tid2013(root):
    on_disk = [name if name != "i01_01_2.bmp" else "I01_01_2.BMP" for name in TID]
    images(root, *(f"distorted_images/{name}" for name in on_disk), size=(512, 384))
    images(root, *(f"reference_images/{name}" for name in ("I01.BMP", "I24.BMP", "i25.bmp")))
    text(root / "distorted_images/Thumbs.db", "no image")
    text(root / "mos_with_names.txt", "".join(f"{score} {name}\n" for name, score in TID.items()), "\r\n")


KADID = {
    "I01_01_01.png": (4.57, "I01.png"),
    "I01_25_05.png": (1.2, "I01.png"),
    "I81_25_05.png": (3.27, "I81.png"),
}


def kadid10k(root, distorted="images", references="images"):
    images(root, *(f"{distorted}/{name}" for name in KADID), f"{references}/I01.png", f"{references}/I81.png")
    rows = "".join(f"{name},{ref},{score},0.496\n" for name, (score, ref) in KADID.items())
    text(root / "dmos.csv", "dist_img,ref_img,dmos,var\n" + rows)


CSIQ = {
    "awgn/1600.AWGN.1.png": (0.06, 1600, "noise", 1),
    "contrast/1600.contrast.4.png": (0.5, 1600, "contrast", 4),
    "jpeg/woman.JPEG.5.png": (0.9, "woman", "jpeg", 5),
    "jpeg2000/woman.jpeg2000.1.png": (0.0, "woman", "jpeg 2000", 1),
}


def csiq(root, flat=False):
    images(root, *(f"dst_imgs/{name}" for name in CSIQ), "src_imgs/1600.png", "src_imgs/woman.png")
    rows = [[None] * 3] * 3 + [
        [None, None, None, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    ]
    rows += [
        [None, None, None, image, 1, kind, level, 0.1, score] for score, image, kind, level in CSIQ.values()
    ]
    sheets(root / "csiq.DMOS.xlsx", all_by_distortion=[["image"], [1600]], all_by_image=rows)


def csiq_text(root, images_in="dst_imgs_all"):
    images(root, *(f"{images_in}/{Path(name).name}" for name in CSIQ))
    text(root / "csiq_label.txt", "".join(f"{Path(name).name} {row[0]}\n" for name, row in CSIQ.items()))


def csiq_both(root):
    csiq(root)
    csiq_text(root)
