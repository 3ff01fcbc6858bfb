"""Label files as tools and people write them: what is understood, what is dropped and said."""

import json
import pathlib
import unicodedata

import pytest

from data_tools.readers import csv_table, voc_xml, yolo_txt
from ssd_tf import user_files

# Centre .3125, .5, width .375, height .5.
BOX = (0.125, 0.25, 0.5, 0.75)


@pytest.fixture
def convert(run, tmp_path, read_split, read_dataset):
    """A function: command, flags -> (records by file name, entry of report.json)."""

    def convert(command, **flags):
        out = tmp_path / "out"
        code, error = run(command, output=out, workers=1, **flags)
        assert (code, error) == (0, "")
        records = {record["filename"]: record for record in read_split(out)}
        return records, read_dataset(out)[1]["splits"]["train"]

    return convert


@pytest.fixture
def plant(tmp_path, paint):
    """A function: {path: text or bytes, or None for an image} -> the folder that holds them."""

    def plant(content, folder="data"):
        for name, data in content.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if data is None:
                paint(path, format="PNG" if path.suffix.lower() == ".png" else "JPEG")
            else:
                path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return tmp_path / folder

    return plant


LINES = [
    ("confidence", "0 .3125 .5 .375 .5 .91"),
    ("confidence 1", "0 .3125 .5 .375 .5 1"),
    ("track", "0 .3125 .5 .375 .5 17"),
    ("confidence and track", "0 .3125 .5 .375 .5 .91 17"),
    ("class by name", "cat .3125 .5 .375 .5"),
    ("class by name with a blank", "tall dog .3125 .5 .375 .5"),
    ("class by name with a confidence", "tall dog .3125 .5 .375 .5 .4"),
    ("commas", "0,.3125,.5,.375,.5"),
    ("commas and blanks", "0, .3125, .5, .375, .5"),
    ("semicolons and decimal commas", "0;0,3125;0,5;0,375;0,5"),
    ("decimal commas", "0 0,3125 0,5 0,375 0,5"),
    ("three decimals after a comma", "0 0,3125 0,500 0,375 0,500"),
    ("tabs", "0\t.3125\t.5\t.375\t.5"),
    ("quotation marks", '"0" ".3125" ".5" ".375" ".5"'),
    ("quoted line", "'0 .3125 .5 .375 .5'"),
    ("quoted name", '"tall dog" .3125 .5 .375 .5'),
    ("class as a fraction", "0.0 .3125 .5 .375 .5"),
    ("rotated box", "0 .125 .25 .5 .25 .5 .75 .125 .75"),
    ("rotated box and confidence", "0 .125 .25 .5 .25 .5 .75 .125 .75 .8"),
    ("polygon, confidence and track", "0 .125 .25 .5 .25 .125 .75 .8 12"),
]


@pytest.mark.parametrize(("what", "line"), LINES, ids=[row[0] for row in LINES])
def test_yolo_line_is_understood(plant, what, line):
    folder = plant({"a.jpg": None, "a.txt": line, "classes.txt": "cat\ntall dog\n"})
    (image,) = yolo_txt.read_yolo(folder, "train").images
    (obj,) = image.objects
    assert (obj.fault, obj.name) == ("", "tall dog" if "dog" in line else "cat"), what
    assert obj.box == pytest.approx(BOX)


UNUSABLE = [
    ("percent", "0 31.25 50 37.5 50", "not fractions of the image"),
    ("pixels", "0 50 60 60 60", "not fractions of the image"),
    ("unknown name", "dog .3 .5 .3 .5", "unknown category"),
    ("negative class", "-1 .3 .5 .3 .5", "unknown category"),
    ("half a class", "0.5 .3 .5 .3 .5", "unknown category"),
    ("nan", "0 nan .5 .3 .5", "not a number"),
    ("three numbers", "0 .5 .5 .2", "not a box"),
    ("sixth number neither", "0 .3 .5 .3 .5 1.5", "not a box"),
    ("a triangle, or a box with track 1", "0 .3 .5 .3 .5 .9 1", "not a box"),
    ("a note", "todo", "not a box"),
    ("only separators", ", ; ,", "not a box"),
    ("swapped corners", "0 .3 .5 -.3 .5", "negative"),
]


@pytest.mark.parametrize(("what", "line", "reason"), UNUSABLE, ids=[row[0] for row in UNUSABLE])
def test_yolo_image_with_only_such_a_line_is_dropped(plant, convert, what, line, reason):
    good = {f"{name}.jpg": None for name in "ab"} | {"a.txt": "0 .3 .5 .3 .5\n"}
    folder = plant(good | {"b.txt": f"{line}\n", "classes.txt": "cat\n"})
    records, report = convert("yolo_to_tfrecord", yolo=folder)
    assert list(records) == ["a.jpg"], what
    assert report["dropped_images"] == {"labels cannot be used": 1}
    assert report["dropped_boxes"] == {reason: 1}
    assert (report["empty"], report["boxes_of_dropped_images"]) == (0, 0)
    first = report["dropped"][0]
    assert first["file"] == "b.jpg" and first["reason"].startswith(
        f"labels cannot be used: {reason}"
    )


@pytest.mark.parametrize("line", ["", "\n \n", "0 .5 .5 0 .5", "0 1.5 .5 .2 .2"])
def test_yolo_image_that_stays_without_objects(plant, convert, line):
    good = {f"{name}.jpg": None for name in "ab"} | {"a.txt": "0 .3 .5 .3 .5\n"}
    folder = plant(good | {"b.txt": line, "classes.txt": "cat\n"})
    records, report = convert("yolo_to_tfrecord", yolo=folder)
    assert sorted(records) == ["a.jpg", "b.jpg"]
    assert report["empty"] == 1 and report["dropped_images"] == {}


def test_yolo_image_with_one_good_line_stays(plant, convert):
    folder = plant(
        {"a.jpg": None, "a.txt": "0 .5 .5 .2 .2\n7 .5 .5 .2 .2\n", "classes.txt": "cat\n"}
    )
    records, report = convert("yolo_to_tfrecord", yolo=folder)
    assert len(records["a.jpg"]["boxes"]) == 1
    assert report["dropped_boxes"] == {"unknown category": 1}


def test_image_without_label_file_is_a_negative_unless_a_label_file_is_left_over(plant, convert):
    content = {"images/a.jpg": None, "images/b.jpg": None, "labels/a.txt": "0 .5 .5 .2 .2\n"}
    folder = plant(content | {"classes.txt": "cat\n"})
    _, report = convert("yolo_to_tfrecord", yolo=folder)
    assert (report["images"], report["empty"], report["dropped_images"]) == (2, 1, {})
    plant({"labels/c.txt": ""})  # empty: it is nobody's objects
    assert convert("yolo_to_tfrecord", yolo=folder)[1]["empty"] == 1
    plant({"labels/c.txt": "0 .5 .5 .2 .2\n"})
    records, report = convert("yolo_to_tfrecord", yolo=folder)
    assert list(records) == ["a.jpg"]
    assert report["dropped_images"] == {"labels cannot be used": 1}
    assert report["findings"]["label files without an image"]["count"] == 1


NFC = unicodedata.normalize("NFC", "décran 1")
NFD = unicodedata.normalize("NFD", "décran 1")


@pytest.mark.parametrize(
    ("image", "label"),
    [
        (f"{NFC}.png", f"{NFD}.txt"),
        (f"{NFD}.png", f"{NFC}.txt"),
        (f"{NFC}.png", "d%C3%A9cran%201.txt"),
        (f"{NFD}.png", "d%C3%A9cran%201.txt"),
        ("e+f.png", "e%2Bf.txt"),
        ("IMG_1.PNG", "img_1.TXT"),
        ("b.Png", "b.png.txt"),
        ("50%.png", "50%.txt"),
    ],
)
def test_yolo_names_that_differ_in_spelling_only(plant, convert, image, label):
    content = {f"images/{image}": None, "images/a.png": None, "labels/a.txt": "0 .5 .5 .2 .2"}
    folder = plant(content | {f"labels/{label}": "0 .5 .5 .2 .2\n", "classes.txt": "cat\n"})
    records, report = convert("yolo_to_tfrecord", yolo=folder)
    assert (report["images"], report["boxes"], report["findings"]) == (2, 2, {})
    assert set(records) == {image, "a.png"}


def test_yolo_label_file_of_another_image_is_not_taken(plant, convert):
    """On a disk that tells A from a, `a.txt` is of a.jpg although A.jpg has none."""
    folder = plant({"a.jpg": None, "A.jpg": None, "a.txt": "0 .5 .5 .2 .2", "classes.txt": "cat"})
    records, report = convert("yolo_to_tfrecord", yolo=folder)
    assert len(records["a.jpg"]["boxes"]) == 1 and len(records["A.jpg"]["boxes"]) == 0
    assert report["findings"] == {}


@pytest.mark.parametrize(
    "suffix", ["jpg", "JPG", "Jpg", "TIFF", "GIF", "ppm", "pgm", "Bmp", "jfif"]
)
@pytest.mark.parametrize("command", ["yolo", "voc", "csv", "coco"])
def test_suffixes_of_images(plant, paint, tmp_path, run, write_coco, read_dataset, command, suffix):
    formats = {"jpg": "JPEG", "jfif": "JPEG", "tiff": "TIFF", "pgm": "PPM", "ppm": "PPM"}
    file_format = formats.get(suffix.lower(), suffix.upper())
    paint(tmp_path / f"data/a.{suffix}", format=file_format)
    if command == "yolo":
        flags = {"yolo": plant({"a.txt": "0 .5 .5 .2 .2", "classes.txt": "cat"})}
    elif command == "voc":
        flags = {"voc": plant({"a.xml": xml("cat", (5, 5, 20, 20))})}
    elif command == "csv":
        flags = {"csv": plant({"l.csv": f"{HEADER}a.png,cat,5,5,20,20\n"}) / "l.csv"}
        flags["images"] = tmp_path / "data"
    else:
        listed = write_coco(tmp_path / "c.json", [(1, "a", 64, 48)], [(1, 1, [5, 5, 9, 9], {})])
        flags = {"annotations": listed, "images": tmp_path / "data"}
    out = tmp_path / "out"
    assert run(f"{command}_to_tfrecord", output=out, strict=True, **flags) == (0, "")
    assert read_dataset(out)[1]["splits"]["train"]["boxes"] == 1


HEADER = "filename,class,xmin,ymin,xmax,ymax\n"


def xml(name, sides, more="", head=""):
    tags = zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True)
    box = "".join(f"<{tag}>{side}</{tag}>" for tag, side in tags)
    return (
        f"{head}<annotation><object><name>{name}</name><bndbox>{box}</bndbox>{more}</object>"
        "</annotation>"
    )


def write_boxes(plant, write_coco, tmp_path, command, box, num_images=3, size_wh=(64, 48)):
    """Labels of a format with one box [xmin, ymin, xmax, ymax] on every image -> flags."""
    names = [f"{index}.jpg" for index in range(num_images)]
    plant(dict.fromkeys(names))
    xmin, ymin, xmax, ymax = box
    folder = tmp_path / "data"
    if command == "yolo":
        centre = (xmin + xmax) / 2, (ymin + ymax) / 2, xmax - xmin, ymax - ymin
        line = "0 " + " ".join(map(str, centre))
        plant({f"{index}.txt": line for index in range(num_images)} | {"classes.txt": "cat"})
        return {"yolo": folder}
    if command == "voc":
        plant({f"{index}.xml": xml("cat", box) for index in range(num_images)})
        return {"voc": folder}
    if command == "csv":
        sides = ",".join(map(str, box))
        rows = "".join(f"{name},cat,{sides},{size_wh[0]},{size_wh[1]}\n" for name in names)
        plant({"l.csv": f"{HEADER.strip()},width,height\n{rows}"})
        return {"csv": folder / "l.csv", "images": folder}
    images = [(index, name, *size_wh) for index, name in enumerate(names, 1)]
    boxes = [(index, 1, [xmin, ymin, xmax - xmin, ymax - ymin], {}) for index, *_ in images]
    return {"annotations": write_coco(tmp_path / "c.json", images, boxes), "images": folder}


NORMALISED = (0.25, 0.25, 0.75, 0.5)
PERCENT = (25, 25, 75, 50)
PIXELS = (16, 12, 48, 24)  # of an image of 64 x 48
FORMATS = ("coco", "voc", "csv", "yolo")


@pytest.mark.parametrize(
    ("command", "box", "unit"),
    [(command, NORMALISED, "normalised") for command in FORMATS[:3]]
    + [("yolo", PERCENT, "percent"), ("yolo", (116, 12, 248, 124), "pixels")],
)
def test_boxes_in_another_unit_are_rejected(plant, write_coco, tmp_path, run, command, box, unit):
    flags = write_boxes(plant, write_coco, tmp_path, command, box)
    code, error = run(f"{command}_to_tfrecord", output=tmp_path / "out", **flags)
    assert code == 1 and error.count("\n") == 1
    assert f"--boxes {unit}" in error and "3 of 3" in error
    assert not (tmp_path / "out/dataset.json").exists()


@pytest.mark.parametrize("command", FORMATS)
@pytest.mark.parametrize(
    ("unit", "box"), [("normalised", NORMALISED), ("percent", PERCENT), ("pixels", PIXELS)]
)
def test_boxes_in_the_unit_that_the_flag_says(
    plant, write_coco, tmp_path, convert, command, unit, box
):
    """The same box in every unit and format; VOC's pixels count from 1."""
    if (command, unit) == ("voc", "pixels"):
        box = (17, 13, 48, 24)
    flags = write_boxes(plant, write_coco, tmp_path, command, box)
    records, report = convert(f"{command}_to_tfrecord", boxes=unit, **flags)
    assert [record["boxes"].tolist() for record in records.values()] == [
        [[0.25, 0.25, 0.5, 0.75]]
    ] * 3
    assert f"boxes are read as {unit} (--boxes)" in report["source"]["notes"]
    if command == "coco" and unit == "pixels":
        assert records["0.jpg"]["areas"] == [7.5]  # the annotation's
    else:
        assert records["0.jpg"]["areas"] == [32 * 12]


def test_a_unit_that_the_flag_says_is_not_doubted(plant, write_coco, tmp_path, convert):
    """Boxes of less than a pixel, which without the flag are taken for fractions."""
    flags = write_boxes(plant, write_coco, tmp_path, "coco", (0, 0, 1, 0.75))
    records, _ = convert("coco_to_tfrecord", boxes="pixels", **flags)
    boxes = [record["boxes"].tolist() for record in records.values()]
    assert boxes == [[[0, 0, 0.015625, 0.015625]]] * 3


def test_a_few_boxes_in_another_unit_are_dropped(plant, convert):
    rows = [f"{index}.jpg,cat,5,5,20,20\n" for index in range(9)]
    content = dict.fromkeys(f"{index}.jpg" for index in range(10))
    folder = plant(content | {"l.csv": HEADER + "".join(rows) + "9.jpg,cat,.1,.1,.5,.5\n"})
    records, report = convert("csv_to_tfrecord", csv=folder / "l.csv", images=folder)
    assert "9.jpg" not in records and report["dropped_boxes"] == {"not pixels": 1}


@pytest.mark.parametrize(
    ("box", "size_wh", "num_images", "is_rejected"),
    [
        (PERCENT, (640, 480), 20, True),
        (PERCENT, (640, 480), 19, False),
        (PERCENT, (640, 199), 20, False),
        ((25, 25, 101, 50), (640, 480), 20, False),
    ],
)
def test_percent_in_a_format_of_pixels(
    plant, write_coco, tmp_path, run, box, size_wh, num_images, is_rejected
):
    flags = write_boxes(plant, write_coco, tmp_path, "coco", box, num_images, size_wh)
    code, error = run("coco_to_tfrecord", output=tmp_path / "out", workers=1, **flags)
    assert code == is_rejected and ("--boxes percent" in error) == is_rejected


def test_nearly_no_label_is_understood(plant, run, tmp_path, nothing_looks_finished):
    content = {f"{index}.jpg": None for index in range(10)}
    content |= {f"{index}.txt": "cat;dog\n" for index in range(9)} | {"9.txt": "0 .5 .5 .2 .2"}
    folder = plant(content | {"classes.txt": "cat\n"})
    code, error = run("yolo_to_tfrecord", yolo=folder, output=tmp_path / "out")
    assert code == 1 and error.count("\n") == 1
    assert "9 of 10 images" in error and "0.jpg: not a box" in error and "'cat;dog'" in error
    nothing_looks_finished(tmp_path / "out")


def test_annotations_that_are_absent_are_said_before_their_classes(plant, run, tmp_path):
    folder = plant({"ImageSets/Main/train.txt": "a\nb\n", "Annotations/x.txt": "", "b.jpg": None})
    code, error = run("voc_to_tfrecord", voc=folder, output=tmp_path / "out")
    assert code == 1 and "no annotation file 2" in error and "a.xml" in error


ENCODED = [
    ("汽车", "gb2312", "gb2312"),
    ("鎔车", "gb2312", "gbk"),  # the newer standard under the older one's name
    ("自動車", "shift_jis", "shift_jis"),
    ("véhicule", "windows-1252", "cp1252"),
    ("véhicule", "latin-1", "latin-1"),
    ("véhicule", "utf8", "utf-8"),
    ("véhicule", "utf-16", "utf-8"),  # .NET writes it so
    ("汽车", "UTF-16", "utf-16"),
    ("汽车", "", "utf-16"),
    ("汽车", "", "utf-8-sig"),
    ("汽车", "utf-8", "utf-8-sig"),
]


@pytest.mark.parametrize(("name", "declared", "encoding"), ENCODED)
@pytest.mark.parametrize("before", ["", "\n "])
def test_voc_encodings(plant, name, declared, encoding, before):
    head = f'{before}<?xml version="1.0" encoding="{declared}"?>\n' if declared else before
    plant({"a.jpg": None, "a.xml": xml(name, (5, 5, 20, 20), head=head).encode(encoding)})
    folder = plant({})
    (image,) = voc_xml.read_voc(folder, "all").images
    assert (image.fault, [obj.name for obj in image.objects]) == ("", [name])


@pytest.mark.parametrize(
    "data",
    [
        xml("汽车", (5, 5, 20, 20)).encode("gbk"),  # it does not say so
        xml("é", (5, 5, 20, 20)).encode("latin-1"),
        xml("é", (5, 5, 20, 20), head='<?xml version="1.0" encoding="utf8"?>').encode("latin-1"),
        xml("é", (5, 5, 20, 20), head='<?xml version="1.0" encoding="rot13"?>').encode(),
        xml("é", (5, 5, 20, 20), head='<?xml version="1.0" encoding="x-none"?>').encode(),
        xml("cat", (5, 5, 20, 20)).encode()[:-20],
        xml("R&D", (5, 5, 20, 20)).encode(),
        b"",
    ],
)
def test_voc_files_that_cannot_be_read(plant, data):
    (image,) = voc_xml.read_voc(plant({"a.jpg": None, "a.xml": data}), "all").images
    assert image.fault.startswith("annotation cannot be read: ") and image.objects == ()


@pytest.mark.parametrize(
    "text",
    [
        xml("cat", (5, 5, 20, 20)).replace("<annotation>", '<annotation xmlns="http://x">'),
        xml("cat", (5, 5, 20, 20))
        .replace("<annotation>", '<v:annotation xmlns:v="http://x">')
        .replace("</annotation>", "</v:annotation>"),
        xml("cat", (5, 5, 20, 20)).replace("object>", "Object>"),
        xml("cat", (5, 5, 20, 20))
        .replace("<object>", "<objects><object>")
        .replace("</object>", "</object></objects>"),
        xml("cat", ("5,0", " 5 ", "20.0", "2e1")),
    ],
)
def test_voc_objects_are_found(plant, text):
    (image,) = voc_xml.read_voc(plant({"a.jpg": None, "a.xml": text}), "all").images
    assert [(obj.name, obj.box, obj.fault) for obj in image.objects] == [
        ("cat", (5, 5, 20, 20), "")
    ]


@pytest.mark.parametrize(
    ("text", "is_set"), [("1", True), ("true", True), ("Yes", True), ("1.0", True), ("0", False)]
)
def test_voc_difficult(plant, text, is_set):
    more = f"<difficult>{text}</difficult>"
    (image,) = voc_xml.read_voc(plant({"a.xml": xml("cat", (5, 5, 20, 20), more)}), "all").images
    assert image.objects[0].difficult is is_set


@pytest.mark.parametrize("name", ["", " ", "<b/>", "\u3000"])
def test_voc_object_without_a_name(plant, convert, name):
    folder = plant(
        {
            "a.jpg": None,
            "a.xml": xml(name, (5, 5, 20, 20)),
            "b.jpg": None,
            "b.xml": xml("cat", (5, 5, 20, 20)),
        }
    )
    records, report = convert("voc_to_tfrecord", voc=folder)
    assert list(records) == ["b.jpg"] and report["dropped_boxes"] == {"no class name": 1}


def plant_devkit(plant, lists, stems="abc"):
    content = {f"ImageSets/Main/{name}.txt": text for name, text in lists.items()}
    content |= {f"Annotations/{stem}.xml": xml("cat", (5, 5, 20, 20)) for stem in stems}
    return plant(content | {f"JPEGImages/{stem}.jpg": None for stem in stems})


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ("a.jpg", ["a"]),
        ("a.JPEG", ["a"]),
        ("a.xml", ["a"]),
        ("JPEGImages/a.jpg", ["a"]),
        ("C:\\data\\a.jpg", ["a"]),
        ("A", ["a"]),
        ("a 1", ["a"]),
        ("a.jpg  0", ["a"]),
        ("a\t1", ["a"]),
        ("a -1", []),
        ("a.jpg -1", []),
    ],
)
def test_voc_lines_of_lists(plant, line, ids):
    folder = plant_devkit(plant, {"x": f"{line}\nb\n"})
    images = list(voc_xml.read_voc(folder, "x").images)
    assert [image.source_id for image in images] == [*ids, "b"]
    assert [image.fault for image in images] == [""] * len(images)


VOTT = {
    "cat_train": "a.jpg 1\nb.jpg -1\n",
    "dog_train": "a.jpg -1\nb.jpg -1\n",  # b.jpg is of the set, and of neither class
    "cat_val": "c.jpg 1\n",
    "dog_val": "c.jpg -1\n",
}


@pytest.mark.parametrize(
    ("lists", "split", "chosen", "ids", "left_out"),
    [
        (VOTT, "train", "train", ["a", "b"], "val"),
        (VOTT, "val", "val", ["c"], "train"),
        ({"default": "b\n"}, "train", "default", ["b"], ""),
        ({"train": "a\n", "test": "b\n"}, "train", "train", ["a"], "test"),
        ({"trainval": "a\nb\n", "train": "a\n", "val": "b\n"}, "train", "trainval", ["a", "b"], ""),
        ({"pets_train": "b 1\n"}, "train", "train", ["b"], ""),
    ],
)
def test_voc_sets(plant, lists, split, chosen, ids, left_out):
    folder = plant_devkit(plant, lists)
    assert voc_xml.choose_image_set(folder, split) == chosen
    source = voc_xml.read_voc(folder, chosen)
    assert [image.source_id for image in source.images] == ids
    note = f"image set {chosen}: {len(ids)} of 3 XML files"
    assert source.notes == [note + f"; not converted: {left_out}" * bool(left_out)]


@pytest.mark.parametrize("only", ["test", "val"])
def test_voc_only_list_of_another_split_is_not_taken(plant, run, tmp_path, only):
    folder = plant_devkit(plant, {only: "a\n"})
    code, error = run("voc_to_tfrecord", voc=folder, output=tmp_path / "out")
    assert code == 1 and f"it has {only}" in error


def test_voc_images_beside_their_xml_below_a_folder_of_images(plant, convert):
    """`cards/images/train` and `cards/images/test`, each with images beside their XML."""
    content = {}
    for stem in ("train/a", "train/b", "test/c"):
        content[f"images/{stem}.JPG"] = None
        content[f"images/{stem}.xml"] = xml("cat", (5, 5, 20, 20))
    folder = plant(content)
    records, report = convert("voc_to_tfrecord", voc=folder)
    assert sorted(records) == ["a.JPG", "b.JPG"] and report["findings"] == {}
    assert report["source"]["notes"] == [
        "image set train: 2 of 3 XML files; not converted: images/test 1"
    ]


def read_table(plant, text, one_based=False):
    folder = plant({"a.jpg": None, "l.csv": text})
    source = csv_table.read_csv(folder / "l.csv", folder, one_based)
    return source, list(source.images)


TABLES = [
    ("VoTT", '"image","xmin","ymin","xmax","ymax","label"\n"a.jpg",5,6,20.5,30,"cat"\n'),
    ("semicolons", "filename;class;xmin;ymin;xmax;ymax\na.jpg;cat;5;6;20,5;30\n"),
    ("tabs", "filename\tclass\txmin\tymin\txmax\tymax\na.jpg\tcat\t5\t6\t20.5\t30\n"),
    ("bars", "filename|class|xmin|ymin|xmax|ymax\na.jpg|cat|5|6|20.5|30\n"),
    ("Excel's first line", "sep=;\nfilename;class;xmin;ymin;xmax;ymax\na.jpg;cat;5;6;20,5;30\n"),
    ("capitals and blanks", "FileName, Class ,XMin,YMin,XMax,YMax\na.jpg, cat ,5,6,20.5,30\n"),
    ("quoted decimal comma", HEADER + 'a.jpg,cat,5,6,"20,5",30\n'),
    ("other names", "image_id,label,x1,y1,x2,y2\na,cat,5,6,20.5,30\n"),
    ("byte order mark", "\ufeff" + HEADER + "a.jpg,cat,5,6,20.5,30\n"),
    ("UTF-16", (HEADER + "a.jpg,cat,5,6,20.5,30\n").encode("utf-16")),
    ("carriage returns", HEADER.strip() + "\ra.jpg,cat,5,6,20.5,30\r"),
]


@pytest.mark.parametrize(("what", "text"), TABLES, ids=[row[0] for row in TABLES])
def test_csv_forms(plant, what, text):
    _, (image,) = read_table(plant, text)
    assert pathlib.Path(image.path).name == "a.jpg", what
    assert [(obj.name, obj.box, obj.fault) for obj in image.objects] == [
        ("cat", (5, 6, 20.5, 30), "")
    ]


def test_csv_of_open_images(plant, convert):
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf\n"
    rows = "a,xclick,/m/01,1,0.25,0.5,0.125,0.75,0,0\na,xclick,/m/01,1,0,1,0,1,0,1\n"
    folder = plant({"a.jpg": None, "l.csv": header + rows})
    records, report = convert("csv_to_tfrecord", csv=folder / "l.csv", images=folder)
    assert records["a"]["boxes"].tolist() == [[0.125, 0.25, 0.75, 0.5], [0, 0, 1, 1]]
    assert records["a"]["crowd"] == [0, 1]
    assert len(report["source"]["notes"]) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("b.jpg", "fewer values than columns"),  # the file ends there
        ("b.jpg,cat,5,6", "fewer values than columns"),
        ("b,c.jpg,cat,5,6,20,30", "more values than columns"),
        ("b.jpg,cat,,,,", "no box"),
        ("b.jpg,,5,6,20,30", "no class name"),
        ("b.jpg,cat,5,6,2 0,30", "not a number"),
        ('b.jpg,cat,5,6,"1,024",30', "not a number"),
    ],
)
def test_csv_rows_that_are_no_negatives(plant, convert, row, reason):
    text = HEADER + "a.jpg,cat,5,6,20,30\n" + row + "\n"
    folder = plant({"a.jpg": None, "b.jpg": None, "l.csv": text})
    records, report = convert("csv_to_tfrecord", csv=folder / "l.csv", images=folder)
    assert list(records) == ["a.jpg"]
    dropped = report["dropped_boxes"].get(reason, 0) + report["boxes_of_dropped_images"]
    assert dropped == 1 and report["empty"] == 0


def test_name_beside_what_is_no_number_is_not_a_class(plant, convert):
    text = HEADER + "a.jpg,cat,5,6,20,30\nb.jpg,64,48,cat,5,6\n"  # columns are missing there
    folder = plant({"a.jpg": None, "b.jpg": None, "l.csv": text})
    _, report = convert("csv_to_tfrecord", csv=folder / "l.csv", images=folder)
    assert list(report["classes"]) == ["cat"]
    assert report["dropped_boxes"] == {"not a number": 1} and report["unlisted_classes"] == {}
    classes = json.loads((folder.parent / "out/dataset.json").read_text())["classes"]
    assert [entry["name"] for entry in classes] == ["cat"]


def test_csv_row_that_only_names_an_image_is_a_negative(plant, convert):
    text = HEADER + "a.jpg,cat,5,6,20,30\nb.jpg,,,,,\n"
    folder = plant({"a.jpg": None, "b.jpg": None, "l.csv": text})
    records, report = convert("csv_to_tfrecord", csv=folder / "l.csv", images=folder)
    assert sorted(records) == ["a.jpg", "b.jpg"] and report["empty"] == 1


WORDS = ["on", "off", "~", "null", "007", "1_000", "12:30", "0x1F", "1e3", "yes", "2020-01-01"]


@pytest.mark.parametrize(
    "names",
    [
        f"names: [{', '.join(WORDS)}]",
        "names:\n" + "".join(f"- {word}\n" for word in WORDS),
        "names:\n" + "".join(f"  {index}: {word}\n" for index, word in enumerate(WORDS)),
    ],
)
def test_names_in_yaml_are_text(plant, names):
    folder = plant({"a.jpg": None, "data.yaml": f"train: .\nval: ~\ntest:\n{names}"})
    source = yolo_txt.read_yolo(folder, "train")
    assert source.classes == [{"name": word, "id": i} for i, word in enumerate(WORDS)]
    assert source.notes == []


@pytest.mark.parametrize(
    "names",
    [
        "{0: cat, 0: dog}",
        "{0: cat, 00: dog}",
        "[[cat, dog]]",
        "[{name: cat}]",
        "{cat: 0}",
        "cat",
        "[]",
        "",
    ],
)
def test_names_in_yaml_that_are_rejected(plant, names):
    folder = plant({"a.jpg": None, "data.yaml": f"train: .\nnames: {names}\n"})
    with pytest.raises(ValueError, match=r"data\.yaml"):
        yolo_txt.read_yolo(folder, "train")


@pytest.mark.parametrize(("count", "num_notes"), [(2, 0), (3, 1), (1, 1)])
def test_number_of_classes_in_yaml(plant, count, num_notes):
    folder = plant({"a.jpg": None, "data.yaml": f"train: .\nnc: {count}\nnames: [cat, dog]\n"})
    source = yolo_txt.read_yolo(folder, "train")
    assert len(source.classes) == 2 and len(source.notes) == num_notes


def test_path_of_another_computer_in_yaml(plant):
    text = "train: /content/x-1/images/train\nnames: [cat]\n"
    folder = plant({"images/train/a.jpg": None, "data.yaml": text})
    with pytest.raises(FileNotFoundError, match="'images/train'"):
        list(yolo_txt.read_yolo(folder, "train").images)


def write_named(plant, write_coco, tmp_path, command, names):
    """Labels of a format with an object of each name, on an image of its own -> flags."""
    folder = plant(dict.fromkeys(f"{index}.jpg" for index in range(len(names))))
    if command == "yolo":
        lines = {f"{index}.txt": f"{index} .5 .5 .2 .2" for index in range(len(names))}
        plant(lines | {"data.yaml": json.dumps({"train": ".", "names": names})})
        return {"yolo": folder}
    if command == "voc":
        plant({f"{i}.xml": xml(name, (5, 5, 20, 20)) for i, name in enumerate(names)})
        return {"voc": folder}
    if command == "csv":
        rows = (f'{index}.jpg,"{name}",5,5,20,20\n' for index, name in enumerate(names))
        plant({"l.csv": HEADER + "".join(rows)})
        return {"csv": folder / "l.csv", "images": folder}
    images = [(index, f"{index}.jpg", 64, 48) for index in range(len(names))]
    boxes = [(index, index, [5, 5, 20, 20], {}) for index in range(len(names))]
    path = write_coco(tmp_path / "c.json", images, boxes, list(enumerate(names)))
    return {"annotations": path, "images": folder}


@pytest.mark.parametrize("command", FORMATS)
def test_same_names_in_all_formats(
    plant, write_coco, tmp_path, run, read_dataset, read_split, command
):
    names = [" a cat", "b\u00a0dog ", "nai\u0308ve", "d, mixed", "e/shelf", "???", "background"]
    stored = ["a cat", "b dog", "na\u00efve", "d, mixed", "e/shelf", "???", "background"]
    flags = write_named(plant, write_coco, tmp_path, command, names)
    assert run(f"{command}_to_tfrecord", output=tmp_path / "out", **flags) == (0, "")
    dataset, _ = read_dataset(tmp_path / "out")
    found = [entry["name"] for entry in dataset["classes"]]
    assert found == (sorted(stored) if command in ("voc", "csv") else stored)
    texts = [text for record in read_split(tmp_path / "out") for text in record["texts"]]
    assert sorted(texts) == sorted(stored)


@pytest.mark.parametrize("command", FORMATS)
@pytest.mark.parametrize("name", ["x\ny", "x\ty", "x\u2028y", "x\u200by"])
def test_names_that_no_class_can_have(plant, write_coco, tmp_path, run, command, name):
    flags = write_named(plant, write_coco, tmp_path, command, ["cat", name])
    code, error = run(f"{command}_to_tfrecord", output=tmp_path / "out", **flags)
    assert code == 1 and error.count("\n") == 1 and "is not printable" in error
    code, _ = run(f"{command}_to_tfrecord", output=tmp_path / "out", classes="cat", **flags)
    assert code == 0  # left out, it does no harm


@pytest.mark.parametrize("command", ["coco", "yolo"])
@pytest.mark.parametrize(
    "pair", [("cat", "cat "), ("na\u00efve", "nai\u0308ve"), ("a b", "a\u00a0b")]
)
def test_listed_names_that_become_equal(plant, write_coco, tmp_path, run, command, pair):
    flags = write_named(plant, write_coco, tmp_path, command, pair)
    code, error = run(f"{command}_to_tfrecord", output=tmp_path / "out", **flags)
    assert code == 1 and repr(pair[0]) in error


@pytest.mark.parametrize("command", ["voc", "csv"])
def test_names_of_objects_that_become_equal_are_merged(
    plant, write_coco, tmp_path, convert, command
):
    names = ["na\u00efve", "nai\u0308ve", "nai\u0308ve", "Na\u00efve"]
    flags = write_named(plant, write_coco, tmp_path, command, names)
    _, report = convert(f"{command}_to_tfrecord", **flags)
    assert {name: row["objects"] for name, row in report["classes"].items()} == {
        "na\u00efve": 3,
        "Na\u00efve": 1,
    }
    merged, similar = report["source"]["notes"][-2:]
    assert merged == "class 'na\u00efve' is also written 'nai\u0308ve': 2 objects"
    assert similar == "classes that differ in case only: Na\u00efve, na\u00efve; they stay apart"


def test_names_of_which_none_is_written_as_stored(plant, write_coco, tmp_path, convert):
    flags = write_named(plant, write_coco, tmp_path, "csv", ["a\u00a0b", "a\u3000b", "a\u3000b"])
    _, report = convert("csv_to_tfrecord", **flags)
    assert report["source"]["notes"] == [
        "class 'a b' is also written 'a\\xa0b': 1 objects",
        "class 'a b' is also written 'a\\u3000b': 2 objects",
    ]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("cat,dog", ["cat", "dog"]),
        ("dog, cat", ["dog", "cat"]),
        ('cat,"salad, mixed"', ["cat", "salad, mixed"]),
        ('"salad, mixed", cat', ["salad, mixed", "cat"]),
        ("Cabinet/shelf", ["Cabinet/shelf"]),
        (" cat ,,dog", ["cat", "dog"]),
        ("nai\u0308ve", ["na\u00efve"]),
    ],
)
def test_names_of_the_flag(plant, write_coco, tmp_path, run, read_dataset, given, names):
    listed = ["cat", "dog ", "salad, mixed", "Cabinet/shelf", "na\u00efve"]
    flags = write_named(plant, write_coco, tmp_path, "coco", listed)
    assert run("coco_to_tfrecord", output=tmp_path / "out", classes=given, **flags) == (0, "")
    assert [entry["name"] for entry in read_dataset(tmp_path / "out")[0]["classes"]] == names


def test_names_of_a_file(plant, write_coco, tmp_path, run, read_dataset):
    flags = write_named(plant, write_coco, tmp_path, "voc", ["cat", "salad, mixed"])
    (tmp_path / "names.txt").write_text("\ufeffsalad, mixed\r\n\r\ncat\r\n", encoding="utf-8")
    given = flags | {"classes": tmp_path / "names.txt"}
    assert run("voc_to_tfrecord", output=tmp_path / "out", **given) == (0, "")
    classes = read_dataset(tmp_path / "out")[0]["classes"]
    assert [entry["name"] for entry in classes] == ["salad, mixed", "cat"]


@pytest.mark.parametrize("given", ["cat,cat", "cat,cat ", ",", "x\u200by", '"a'])
def test_names_of_the_flag_that_are_rejected(plant, write_coco, tmp_path, run, given):
    flags = write_named(plant, write_coco, tmp_path, "coco", ["cat"])
    code, error = run("coco_to_tfrecord", output=tmp_path / "out", classes=given, **flags)
    assert code == 2 and error.count("\n") == 1


def test_name_that_differs_from_that_of_the_data_set_in_case(plant, write_coco, tmp_path, run):
    flags = write_named(plant, write_coco, tmp_path, "voc", ["Cat"])
    assert run("voc_to_tfrecord", output=tmp_path / "out", **flags)[0] == 0
    plant({"0.xml": xml("cat", (5, 5, 20, 20))})
    code, error = run("voc_to_tfrecord", output=tmp_path / "out", split="val", **flags)
    assert code == 1 and "did you mean 'Cat'?" in error


@pytest.mark.parametrize(
    "name",
    [
        "images/a%20b.jpg",
        "/data/local-files/?d=set1/a%20b.jpg",
        "/data/local-files/?d=a b.jpg",
        "https://host.example/x/a%20b.jpg?sig=abc&d=1",
        "..\\..\\upload\\4\\a b.jpg",
        "A B.JPEG",
        "a b",
    ],
)
def test_names_of_images(plant, write_coco, tmp_path, convert, name):
    folder = plant({"images/a b.jpg": None}) / "images"
    path = write_coco(tmp_path / "c.json", [(1, name, 64, 48)], [(1, 1, [5, 5, 20, 20], {})])
    records, _ = convert("coco_to_tfrecord", annotations=path, images=folder)
    assert list(records) == [name]  # as the labels have it


def test_encoded_names_do_not_lead_out_of_the_folder(plant, write_coco, tmp_path, run):
    folder = plant({"secret.jpg": None, "images/a.jpg": None}) / "images"
    names = ["a.jpg", "..%2Fsecret.jpg", "x?d=../secret.jpg", "%2e%2e/secret.jpg"]
    images = [(index, name, 64, 48) for index, name in enumerate(names, 1)]
    path = write_coco(tmp_path / "c.json", images, [(1, 1, [5, 5, 20, 20], {})])
    out = tmp_path / "out"
    assert run("coco_to_tfrecord", annotations=path, images=folder, output=out)[0] == 0
    entry = json.loads((out / "report.json").read_text())["splits"]["train"]
    assert (entry["images"], sum(entry["dropped_images"].values())) == (1, 3)


def test_training_images_are_permuted(plant, write_coco, tmp_path, run, read_split):
    flags = write_named(plant, write_coco, tmp_path, "coco", ["cat"])
    images = [(index, "0.jpg", 64, 48) for index in range(60)]
    boxes = [(index, 1, [5, 5, 20, 20], {}) for index in range(60)]
    write_coco(tmp_path / "c.json", images, boxes)
    orders = []
    for seed, workers in ((0, 1), (0, 2), (1, 1)):
        out = tmp_path / f"{seed}{workers}"
        given = flags | {"split_seed": seed, "workers": workers, "output": out}
        assert run("coco_to_tfrecord", **given)[0] == 0
        orders.append([record["source_id"] for record in read_split(out)])
    written = [str(index) for index in range(60)]
    assert orders[0] == orders[1] != orders[2] != written != orders[0]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(written)


def test_sorted_classes_are_mixed_in_every_shard(paint, write_coco, tmp_path, run):
    """80 images of 4 classes one after the other, in 8 shards: a shard in order has one class."""
    import tensorflow as tf

    for index in range(80):
        paint(tmp_path / f"data/{index}.jpg", box=(8, 16, 24 + index % 40, 17 + index % 30))
    images = [(index, f"{index}.jpg", 64, 48) for index in range(80)]
    boxes = [(index, index // 20, [5, 5, 20, 20], {}) for index in range(80)]
    path = write_coco(tmp_path / "c.json", images, boxes, list(enumerate("abcd")))
    flags = {"annotations": path, "images": tmp_path / "data", "output": tmp_path / "out"}
    assert run("coco_to_tfrecord", val_fraction=0.2, workers=1, **flags)[0] == 0
    for shard in sorted((tmp_path / "out").glob("train-*.tfrecord")):
        texts = set()
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            texts.update(feature["image/object/class/text"].bytes_list.value)
        assert len(texts) >= 2


@pytest.mark.parametrize("split", ["val", "test"])
def test_images_of_validation_and_test_keep_their_order(
    plant, write_coco, tmp_path, run, read_split, split
):
    plant({"0.jpg": None})
    images = [(index, "0.jpg", 64, 48) for index in range(20)]
    path = write_coco(tmp_path / "c.json", images, [(0, 1, [5, 5, 20, 20], {})])
    flags = {"annotations": path, "images": tmp_path / "data", "output": tmp_path / "out"}
    assert run("coco_to_tfrecord", split=split, workers=1, **flags)[0] == 0
    ids = [record["source_id"] for record in read_split(tmp_path / "out", split)]
    assert ids == [str(index) for index in range(20)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("imges", "images"), ("imges/train", "images/train"), ("images/trian", "images/train")],
)
def test_path_that_is_meant(tmp_path, written, meant):
    (tmp_path / "images/train").mkdir(parents=True)
    assert user_files.suggest_path(tmp_path / written) == f"; did you mean {tmp_path / meant}?"


@pytest.mark.parametrize("written", ["photos", "imges/val", "images/train/x/y", "a\0b"])
def test_no_path_is_meant(tmp_path, written):
    (tmp_path / "images/train").mkdir(parents=True)
    assert user_files.suggest_path(tmp_path / written) == ""


@pytest.mark.parametrize(
    ("command", "flag"),
    [("voc", "voc"), ("yolo", "yolo"), ("csv", "images"), ("coco", "images")],
)
def test_wrong_path_of_a_converter(plant, write_coco, tmp_path, run, command, flag):
    flags = write_named(plant, write_coco, tmp_path, command, ["cat"]) | {flag: tmp_path / "dada"}
    code, error = run(f"{command}_to_tfrecord", output=tmp_path / "out", **flags)
    assert code == 1 and error.count("\n") == 1 and f"did you mean {tmp_path / 'data'}?" in error


OTHER_JSON = [
    ('{"name": "x", "tags": [], "assets": {"k": {"asset": {}, "regions": []}}}', "VoTT"),
    ('{"image_url": "AmlDatastore://a.jpg", "label": []}\n' * 2, "Azure ML"),
    ('[{"data": {}, "annotations": [{"value": {"rectanglelabels": ["cat"]}}]}]', "Label Studio"),
    ('{"version": "5", "shapes": [], "imagePath": "a.jpg"}', "LabelMe"),
    ('{"a.jpg12": {"regions": [{"region_attributes": {}}]}}', "VIA"),
    ('{"objects": [{"classTitle": "cat", "points": {}}]}', "Supervisely"),
    ('{"images": [], "shapes": []}', ""),
    ('{"assets" ', ""),
    ("<assets>", ""),
]


@pytest.mark.parametrize(("text", "tool"), OTHER_JSON)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_json_of_other_tools_is_named(plant, run, text, tool, encoding):
    folder = plant({"a.jpg": None, "x.json": text.encode(encoding)})
    flags = {"annotations": folder / "x.json", "images": folder, "output": folder / "out"}
    code, message = run("coco_to_tfrecord", **flags)
    assert (code, message.count("\n")) == (1, 1)
    assert (f"it seems to be {tool}'s" in message) if tool else ("seems" not in message)
