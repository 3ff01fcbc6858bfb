"""Broken inputs, one row per kind: repaired, dropped with a reason, or rejected with a message."""

import json
import pathlib
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

GOOD = {"images": [(1, "a.jpg", 64, 48)], "annotations": [(1, 1, [8, 16, 16, 24], {})]}


@pytest.fixture
def data(tmp_path, paint, write_coco):
    """tmp_path with one sound image, a.jpg, and COCO labels that each test may replace."""
    paint(tmp_path / "images/a.jpg")
    write_coco(tmp_path / "annotations.json", **GOOD)
    return tmp_path


# Images: how b.<suffix> is written -> what becomes of it.


def cut(path, image):
    image.save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-30])


def bomb(path, _):
    """A PNG of a few hundred bytes that claims 60,000 x 60,000 pixels."""
    chunks = (
        b"IHDR" + struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(bytes(1000)),
        b"IEND",
    )
    written = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))


def save(change=lambda image: image, **options):
    return lambda path, image: change(image).save(path, **options)


def deepen(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


IMAGES = [
    ("grayscale JPEG", "b.jpg", save(lambda image: image.convert("L")), ("repaired", "grayscale")),
    ("CMYK JPEG", "b.jpg", save(lambda image: image.convert("CMYK")), ("repaired", "cmyk")),
    (
        "16-bit PNG",
        "b.png",
        save(deepen),
        ("repaired", "16-bit"),
    ),
    ("palette PNG", "b.png", save(lambda image: image.convert("P")), ("repaired", "palette")),
    ("PNG", "b.png", save(), ("repaired", "png")),
    ("PNG with alpha", "b.png", save(lambda image: image.convert("RGBA")), ("repaired", "png")),
    ("WebP", "b.webp", save(), ("repaired", "webp")),
    ("BMP", "b.bmp", save(), ("repaired", "bmp")),
    ("AVIF", "b.avif", save(), ("repaired", "avif")),
    ("JFIF", "b.jfif", save(format="JPEG"), ("sound", None)),
    (
        "HEIC",
        "b.heic",
        lambda path, _: path.write_bytes(b"\0\0\0\x18ftypheic"),
        ("dropped_images", "unread format"),
    ),
    (
        "JPEG 2000",
        "b.jp2",
        lambda path, _: path.write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n"),
        ("dropped_images", "unread format"),
    ),
    ("TGA", "b.tga", save(), ("dropped_images", "not an image")),
    ("rotated by EXIF", "b.jpg", save(exif=orientation(3)), ("repaired", "EXIF-rotated")),
    ("PNG called JPEG", "b.jpg", save(format="PNG"), ("repaired", "wrongly named")),
    ("another suffix than listed", "b.jpeg", save(format="JPEG"), ("sound", None)),
    ("progressive JPEG", "b.jpg", save(progressive=True), ("sound", None)),
    ("decompression bomb", "b.png", bomb, ("dropped_images", "too large")),
    ("truncated", "b.jpg", cut, ("dropped_images", "truncated")),
    ("empty file", "b.jpg", lambda path, _: path.touch(), ("dropped_images", "empty")),
    ("absent", "b.jpg", lambda *_: None, ("dropped_images", "absent")),
    (
        "a web page",
        "b.jpg",
        lambda path, _: path.write_text("<html>404"),
        ("dropped_images", "not an image"),
    ),
    (
        "a folder of that name",
        "b.jpg",
        lambda path, _: path.mkdir(),
        ("dropped_images", "unreadable"),
    ),
    ("only its stem fits", "b.v2.jpg", save(format="JPEG"), ("dropped_images", "absent")),
    (
        "a dangling link",
        "b.jpg",
        lambda path, _: path.symlink_to("nowhere.jpg"),
        ("dropped_images", "absent"),
    ),
]


@pytest.mark.parametrize(
    ("what", "name", "write", "outcome"), IMAGES, ids=[row[0] for row in IMAGES]
)
def test_image(
    data, paint, write_coco, convert_coco, read_dataset, read_split, what, name, write, outcome
):
    write(data / "images" / name, paint(None))
    images = [(1, "a.jpg", 64, 48), (2, "b.jpg", 64, 48)]
    write_coco(
        data / "annotations.json",
        images,
        [(1, 1, [8, 16, 16, 24], {}), (2, 3, [8, 16, 16, 24], {})],
    )
    assert convert_coco() == (0, "")
    dataset, report = read_dataset(data / "out")
    entry, kind, reason = report["splits"]["train"], *outcome
    found = {key: entry[key] for key in ("repaired", "dropped_images", "dropped_boxes")}
    assert found == {"repaired": {}, "dropped_images": {}, "dropped_boxes": {}} | (
        {kind: {reason: 1}} if reason else {}
    ), what
    dropped = dataset["splits"]["train"]["dropped"]
    assert [(row["file"], row["reason"].split(":")[0]) for row in dropped] == (
        [("b.jpg", reason)] if kind == "dropped_images" else []
    )
    assert (
        len(read_split(data / "out")) == entry["images"] == (1 if kind == "dropped_images" else 2)
    )


# Boxes: a COCO box and category -> the reason it is dropped for, or its corners.
BOXES = [
    ("no width", 1, [8, 16, 0, 24], "degenerate"),
    ("no height", 1, [8, 16, 16, 0], "degenerate"),
    ("negative width", 1, [24, 16, -16, 24], "negative"),
    ("NaN", 1, [8, float("nan"), 16, 24], "not a number"),
    ("infinite", 1, [8, 16, float("inf"), 24], "not a number"),
    ("text", 1, [8, 16, "wide", 24], "not a number"),
    ("three numbers", 1, [8, 16, 16], "not a box"),
    ("an object", 1, {"x": 8, "y": 16, "width": 16, "height": 24}, "not a box"),
    ("null", 1, None, "no box"),
    ("right of the image", 1, [64, 16, 8, 8], "outside"),
    ("above the image", 1, [8, -30, 16, 24], "outside"),
    ("a category that is not listed", 2, [8, 16, 16, 24], "unknown category"),
    ("over the edge", 1, [56, 36, 16, 24], (0.75, 0.875, 1, 1)),
    ("over two edges", 1, [-8, -12, 16, 24], (0, 0, 0.25, 0.125)),
]


@pytest.mark.parametrize(
    ("what", "category", "box", "outcome"), BOXES, ids=[row[0] for row in BOXES]
)
def test_box(
    data, write_coco, convert_coco, read_dataset, read_split, what, category, box, outcome
):
    write_coco(
        data / "annotations.json", GOOD["images"], [*GOOD["annotations"], (1, category, box, {})]
    )
    assert convert_coco() == (0, "")
    dataset, report = read_dataset(data / "out")
    (record,) = read_split(data / "out")
    if isinstance(outcome, str):
        assert report["splits"]["train"]["dropped_boxes"] == {outcome: 1}, what
        assert [(row["file"], row["reason"]) for row in dataset["splits"]["train"]["dropped"]] == [
            ("a.jpg", outcome)
        ]
        assert len(record["boxes"]) == 1
    else:
        assert report["splits"]["train"]["clipped"] == 1
        assert record["boxes"][1] == pytest.approx(outcome)
    assert (data / "out/dataset.json").read_text().count("NaN") == 0  # strict JSON


# VOC and YOLO: a label file -> what becomes of its one image or object.
BOX = "<bndbox><xmin>9</xmin><ymin>17</ymin><xmax>24</xmax><ymax>40</ymax></bndbox>"


def annotation(box, more=""):
    """VOC XML with a cat."""
    return f"<annotation>{more}<object><name>cat</name>{box}</object></annotation>"


XML = [
    (
        "no size, pose or difficult tags",
        annotation(BOX),
        ("boxes", 1),
    ),
    ("no objects", "<annotation></annotation>", ("empty", 1)),
    (
        "object without a name",
        f"<annotation><object>{BOX}</object></annotation>",
        ("dropped_boxes", {"no class name": 1}),
    ),
    (
        "object without a box",
        "<annotation><object><name>cat</name></object></annotation>",
        ("dropped_boxes", {"no box": 1}),
    ),
    (
        "box without ymax",
        annotation(BOX.replace("<ymax>40</ymax>", "")),
        ("dropped_boxes", {"not a number": 1}),
    ),
    (
        "zero area as written",
        annotation(BOX.replace(">24<", ">9<")),
        ("dropped_boxes", {"degenerate": 1}),
    ),
    (
        "size of another image",
        annotation(BOX, "<size><width>99</width><height>48</height></size>"),
        (
            "size_mismatches",
            {
                "images": 1,
                "files": [{"file": "b.jpg", "labels_hw": [48, 99], "image_hw": [48, 64]}],
            },
        ),
    ),
    ("not XML", "<annotation><object>", ("dropped_images", {"annotation cannot be read": 1})),
    ("empty file", "", ("dropped_images", {"annotation cannot be read": 1})),
]


@pytest.mark.parametrize(("what", "text", "outcome"), XML, ids=[row[0] for row in XML])
def test_xml(tmp_path, paint, run, read_dataset, what, text, outcome):
    (tmp_path / "voc").mkdir()
    paint(tmp_path / "voc/a.jpg")
    paint(tmp_path / "voc/b.jpg")
    (tmp_path / "voc/a.xml").write_text(
        f"<annotation><object><name>dog</name>{BOX}</object></annotation>"
    )
    (tmp_path / "voc/b.xml").write_text(text)
    assert run("voc_to_tfrecord", voc=tmp_path / "voc", output=tmp_path / "out", workers=1) == (
        0,
        "",
    )
    entry = read_dataset(tmp_path / "out")[1]["splits"]["train"]
    key, value = outcome
    assert entry[key] == (value + 1 if key == "boxes" else value), what


LINES = [
    ("four words", "0 .5 .5 .2", {"not a box": 1}),
    ("a word for a number", "0 .5 .5 .2 wide", {"not a number": 1}),
    ("class out of range", "5 .5 .5 .2 .2", {"unknown category": 1}),
    ("class by name that is not listed", "dog .5 .5 .2 .2", {"unknown category": 1}),
    ("class that is not a number", "nan .5 .5 .2 .2", {"unknown category": 1}),
    ("outside", "0 1.5 .5 .2 .2", {"outside": 1}),
    ("pixels instead of fractions", "0 30 20 16 10", {"not fractions of the image": 1}),
    ("percent instead of fractions", "0 31.25 50 37.5 50", {"not fractions of the image": 1}),
]


@pytest.mark.parametrize(("what", "line", "reasons"), LINES, ids=[row[0] for row in LINES])
def test_yolo_line(tmp_path, paint, run, read_dataset, what, line, reasons):
    paint(tmp_path / "yolo/a.jpg")
    (tmp_path / "yolo/a.txt").write_text(f"0 .5 .5 .2 .2\n{line}\n")
    (tmp_path / "yolo/classes.txt").write_text("cat\n")
    assert run("yolo_to_tfrecord", yolo=tmp_path / "yolo", output=tmp_path / "out", workers=1) == (
        0,
        "",
    )
    entry = read_dataset(tmp_path / "out")[1]["splits"]["train"]
    found = {reason.split(":")[0]: count for reason, count in entry["dropped_boxes"].items()}
    assert found == reasons, what


# Refused: how the data is spoilt, flags -> exit code and message.
def write(name, text):
    return lambda data: (data / name).write_text(text)


def coco(**changes):
    def spoil(data):
        path = data / "annotations.json"
        content = json.loads(path.read_text()) | changes
        path.write_text(
            json.dumps({key: value for key, value in content.items() if value is not None})
        )

    return spoil


REFUSED = [
    (
        "no annotation file",
        lambda data: (data / "annotations.json").unlink(),
        {},
        1,
        "--annotations: no file at .*annotations.json",
    ),
    (
        "a folder as annotations",
        lambda _: None,
        {"annotations": "images"},
        1,
        "--annotations: .* is a folder; give the file",
    ),
    (
        "no image folder",
        lambda _: None,
        {"images": "pictures"},
        1,
        "--images: no folder at .*pictures",
    ),
    (
        "a file as image folder",
        lambda _: None,
        {"images": "annotations.json"},
        1,
        "--images: .* is a file; give the folder",
    ),
    (
        "not JSON",
        write("annotations.json", "<xml>"),
        {},
        1,
        "does not hold a JSON object with images, annotations, categories",
    ),
    (
        "cut short",
        write("annotations.json", '{"images": [{"id": 1, "fi'),
        {},
        1,
        "annotations.json is not JSON, or is cut short",
    ),
    (
        "COCO results",
        write("annotations.json", '[{"image_id": 1, "score": 1}]'),
        {},
        1,
        "does not hold a JSON object",
    ),
    (
        "binary",
        lambda data: (data / "annotations.json").write_bytes(b"\xff\xfe\x00"),
        {},
        1,
        "is not JSON in UTF-8",
    ),
    (
        "no annotations key",
        coco(annotations=None),
        {},
        1,
        "is not COCO instances JSON: it has no 'annotations'",
    ),
    (
        "captions without categories",
        coco(categories=None),
        {},
        1,
        "is not COCO instances JSON: it has no 'categories'",
    ),
    ("no categories", coco(categories=[]), {}, 1, "lists no categories"),
    (
        "category without a name",
        coco(categories=[{"id": 1}]),
        {},
        1,
        "expected a category with a `name` and an `id`",
    ),
    (
        "two categories of one name",
        coco(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]),
        {},
        1,
        "two categories have the name 'a' .ids 1 and 2.: rename one in `categories` of that file",
    ),
    (
        "a category id of 70 bits",
        coco(categories=[{"id": 2**70, "name": "a"}]),
        {},
        1,
        "`id` of at most 64 bits, got",
    ),
    (
        "two images of one id",
        coco(images=[{"id": 1, "file_name": "a.jpg"}] * 2),
        {},
        1,
        "two images have the id 1",
    ),
    ("no images", coco(images=[], annotations=[]), {}, 1, "the labels list no images"),
    (
        "no image can be used",
        coco(images=[{"id": 1, "file_name": "z.jpg"}]),
        {},
        1,
        "none of the images of 'train' can be used .absent 1.*z.jpg",
    ),
    (
        "unknown class asked for",
        lambda _: None,
        {"classes": "cat,dgo"},
        2,
        "no class 'dgo'; did you mean 'dog'",
    ),
    (
        "class named twice",
        lambda _: None,
        {"classes": "cat,cat"},
        2,
        "the class name 'cat' is there more than once",
    ),
    (
        "no file of classes",
        lambda _: None,
        {"classes": "names.txt"},
        2,
        "--classes: no file at .*names.txt",
    ),
    (
        "output is a file",
        write("out", ""),
        {},
        1,
        "cannot write to .*out: it, or a folder above it, is a file",
    ),
    (
        "too few images to split",
        lambda _: None,
        {"val_fraction": 0.2},
        1,
        "--val_fraction 0.2 of 1 image leaves none for 'val'",
    ),
    (
        "split called val",
        lambda _: None,
        {"val_fraction": 0.2, "split": "val"},
        2,
        "writes a split 'val' beside --split: give --split another name",
    ),
    ("a path as split", lambda _: None, {"split": "../x"}, 2, "--split: expected a name"),
    ("negative workers", lambda _: None, {"workers": -1}, 2, "workers"),
    ("unknown flag", lambda _: None, {"wrokers": 1}, 2, "Unknown command line flag 'wrokers'"),
]


@pytest.mark.parametrize(
    ("what", "spoil", "flags", "code", "message"), REFUSED, ids=[row[0] for row in REFUSED]
)
def test_rejected_in_one_line(
    data, convert_coco, nothing_looks_finished, what, spoil, flags, code, message
):
    spoil(data)
    paths = {
        name: data / value for name, value in flags.items() if name in ("images", "annotations")
    }
    found, error = convert_coco(**flags | paths)
    assert found == code, what
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert re.search(message, error), error
    if pathlib.Path(data / "out").is_dir():
        nothing_looks_finished(data / "out")


STRICT = [
    ("an absent image", {"images": [(1, "z.jpg", 64, 48)]}, "--strict: z.jpg: absent"),
    (
        "a box without area",
        {"annotations": [(1, 1, [8, 16, 0, 24], {})]},
        "a.jpg: a box of 'cat' is dropped .degenerate.",
    ),
    (
        "another size",
        {"images": [(1, "a.jpg", 64, 99)]},
        "--strict: a.jpg: the labels say .99, 64., the image is .48, 64.",
    ),
]


@pytest.mark.parametrize(("what", "changes", "message"), STRICT, ids=[row[0] for row in STRICT])
def test_strict_stops_at_the_first_problem(
    data, write_coco, convert_coco, nothing_looks_finished, what, changes, message
):
    write_coco(data / "annotations.json", **GOOD | changes)
    code, error = convert_coco(strict=True)
    assert code == 1 and re.search(message, error), what
    nothing_looks_finished(data / "out")


def test_strict_accepts_what_is_only_repaired(data, paint, convert_coco):
    paint(None).convert("L").save(data / "images/a.jpg")
    assert convert_coco(strict=True) == (0, "")


NAMES = [
    ("\0.jpg", "unreadable"),
    ("x" * 300 + ".jpg", "unreadable"),
    ("", "no file name"),
    (None, "no file name"),
]


@pytest.mark.parametrize(("name", "reason"), NAMES)
def test_names_that_no_file_can_have(data, write_coco, convert_coco, read_dataset, name, reason):
    write_coco(
        data / "annotations.json", [(1, "a.jpg", 64, 48), (2, name, 64, 48)], GOOD["annotations"]
    )
    assert convert_coco() == (0, "")
    assert read_dataset(data / "out")[1]["splits"]["train"]["dropped_images"] == {reason: 1}


def test_file_name_that_is_not_unicode(tmp_path, paint, run, read_split):
    paint(tmp_path / "yolo/b\udcff.jpg")
    paint(tmp_path / "yolo/c.v2.jpg")
    (tmp_path / "yolo/c.v2.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "yolo/classes.txt").write_text("cat\n")
    assert run("yolo_to_tfrecord", yolo=tmp_path / "yolo", output=tmp_path / "out", workers=1) == (
        0,
        "",
    )
    assert [record["filename"] for record in read_split(tmp_path / "out")] == [
        "b\\udcff.jpg",
        "c.v2.jpg",
    ]


def test_duplicates_with_odd_names(tmp_path, paint, run, read_dataset):
    names = ["b\udcff.jpg", 'tab\t"\\n.jpg', "ä.jpg"]
    for name in names:
        paint(tmp_path / "yolo" / name)
    (tmp_path / "yolo/ä.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "yolo/classes.txt").write_text("cat\n")
    assert run("yolo_to_tfrecord", yolo=tmp_path / "yolo", output=tmp_path / "out", workers=1) == (
        0,
        "",
    )
    within = read_dataset(tmp_path / "out")[1]["splits"]["train"]["duplicates"]["within"]
    assert (within["groups"], within["images"]) == (1, 3)
    assert sorted(within["files"][0]) == sorted(names)
    assert "\tä.jpg\n" in (tmp_path / "out/train-images.tsv").read_text(errors="replace")


def test_split_whose_name_begins_with_that_of_another(data, convert_coco):
    assert convert_coco(split="train-more") == (0, "")
    assert convert_coco(split="train")[0] == 0
    assert len(list((data / "out").glob("*.tfrecord"))) == 2


YAML = {"d.yaml": "train: images\nnames: [a]\n"}
OTHER_READERS = [
    (
        "no YOLO folder",
        "yolo",
        {"yolo": "nowhere"},
        {},
        "--yolo: nothing at .*nowhere; give data.yaml",
    ),
    (
        "YOLO without a list of classes",
        "yolo",
        {"yolo": "images"},
        {},
        "holds neither a data.yaml nor a classes.txt",
    ),
    (
        "data.yaml that is no YAML",
        "yolo",
        {"yolo": "d.yaml"},
        {"d.yaml": "names: ["},
        "d.yaml is not YAML",
    ),
    (
        "data.yaml that is a list",
        "yolo",
        {"yolo": "d.yaml"},
        {"d.yaml": "- a\n"},
        "d.yaml is not a data.yaml: expected keys",
    ),
    (
        "data.yaml without names",
        "yolo",
        {"yolo": "d.yaml"},
        {"d.yaml": "train: images\nnc: 2\n"},
        "expected `names` to be a list",
    ),
    (
        "no such set",
        "yolo",
        {"yolo": "d.yaml", "split": "test"},
        {"d.yaml": "train: images\nnames: [a]\n"},
        "has no 'test'; it has train",
    ),
    (
        "images elsewhere",
        "yolo",
        {"yolo": "d.yaml"},
        {"d.yaml": "train: pictures\nnames: [a]\n"},
        "names 'pictures', and there is nothing",
    ),
    (
        "two names alike",
        "yolo",
        {"yolo": "d.yaml"},
        {"d.yaml": "train: images\nnames: [a, a]\n"},
        "the class name 'a' is there more than once",
    ),
    (
        "a number as folder",
        "yolo",
        {"yolo": "d.yaml"},
        {"d.yaml": "train: 5\nnames: [a]\n"},
        "d.yaml names '5', and there is nothing at",
    ),
    (
        "class names in Latin-1",
        "yolo",
        {"yolo": "."},
        {"classes.txt": b"c\xe4t\n"},
        "classes.txt: expected text in UTF-8, got byte 0xe4",
    ),
    (
        "obj.data without names",
        "yolo",
        {"yolo": "obj.data"},
        {"obj.data": "train = train.txt\n"},
        "obj.data: expected a line `names = FILE`",
    ),
    (
        "CSV in Latin-1",
        "csv",
        {"csv": "a.csv"},
        {"a.csv": b"filename,class,\xe4\n"},
        "is not CSV text in UTF-8",
    ),
    ("no CSV file", "csv", {"csv": "nowhere.csv"}, {}, "--csv: no file at .*nowhere.csv"),
    (
        "CSV without a column",
        "csv",
        {"csv": "a.csv"},
        {"a.csv": "filename,class,xmin\n"},
        "lacks the column 'ymin'",
    ),
    ("empty CSV", "csv", {"csv": "a.csv"}, {"a.csv": ""}, "lacks the column 'filename'"),
    (
        "CSV without rows",
        "csv",
        {"csv": "a.csv"},
        {"a.csv": "filename,class,xmin,ymin,xmax,ymax\n"},
        "the labels list no images",
    ),
    ("no VOC folder", "voc", {"voc": "nowhere"}, {}, "--voc: no folder at .*nowhere"),
    ("no XML files", "voc", {"voc": "images"}, {}, "--voc: no XML files in .*images"),
    (
        "no such image set",
        "voc",
        {"voc": "images", "image_set": "test"},
        {},
        "--image_set: no test.txt in .*; it has none",
    ),
    (
        "only images without objects",
        "voc",
        {"voc": "."},
        {"a.xml": "<annotation/>"},
        "the labels name no class",
    ),
]


@pytest.mark.parametrize(
    ("reader", "paths", "files", "message"),
    [row[1:] for row in OTHER_READERS],
    ids=[row[0] for row in OTHER_READERS],
)
def test_other_readers_reject_in_one_line(data, run, reader, paths, files, message):
    for name, text in files.items():
        (data / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    if reader == "csv":
        paths = {"images": "images"} | paths
    flags = {
        name: value if name in ("split", "image_set") else data / value
        for name, value in paths.items()
    }
    code, error = run(f"{reader}_to_tfrecord", **flags, output=data / "out", workers=1)
    assert code == 1 and error.count("\n") == 1 and re.search(message, error), error
    assert not list(data.glob("out/*"))
