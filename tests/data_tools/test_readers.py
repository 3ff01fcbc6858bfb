"""Each reader on a handwritten label file: the records that come out, with boxes as written."""

import json
import math

import pytest

from data_tools.readers import (
    coco_json,
    csv_table,
    files,
    labels,
    voc_xml,
    yolo_txt,
)


def objects_of(image):
    return [(obj.name, obj.box, obj.fault) for obj in image.objects]


def test_objects_survive_their_table():
    table = labels.ObjectTable()
    boxes = [(1.5, 2.0, math.inf, 4.0), (0, 0, 1, 1), (5, 6, 7, 8)]
    table.add("b", "cät", boxes[0], math.nan, True, "")
    table.add("a", 3, boxes[1], 9.5, False, "degenerate")
    table.add("b", "degenerate", boxes[2], math.nan, False, "")
    assert table.images() == ["b", "a"]
    assert table.pop("b") == (
        labels.LabeledObject("cät", boxes[0], crowd=True),
        labels.LabeledObject("degenerate", boxes[2]),
    )
    assert table.pop("a") == (labels.LabeledObject(3, boxes[1], 9.5, fault="degenerate"),)
    assert table.pop("a") == table.pop("c") == ()
    assert table.images() == []


def test_coco(tmp_path, write_coco):
    (tmp_path / "images").mkdir()
    path = write_coco(
        tmp_path / "a.json",
        images=[(7, "b.jpg", 64, 48), (5, "a.jpg", 30, 20)],
        annotations=[
            (5, 3, [1, 2, 3, 4], {}),
            (
                7,
                1,
                [10, 20, 30, 4.5],
                {"iscrowd": 1, "segmentation": {"counts": [1, 2], "size": [4, 4]}},
            ),
            (5, 1, [0, 0, 2, 1], {}),
            (99, 1, [0, 0, 2, 1], {}),
            (7, 2, [0, 0, 2, 1], {}),
        ],
        categories=[(3, "dog"), (1, "cat")],
    )
    source = coco_json.read_coco(path, tmp_path / "images")
    assert source.classes == [{"name": "cat", "id": 1}, {"name": "dog", "id": 3}]
    first, second = source.images
    assert (first.filename, first.source_id, first.size_hw, first.unit) == (
        "b.jpg",
        "7",
        (48, 64),
        "pixels",
    )
    assert objects_of(first) == [
        ("cat", (10, 20, 40, 24.5), ""),
        ("category 2", (0, 0, 2, 1), "unknown category"),
    ]
    assert first.objects[0].crowd and first.objects[0].area == 7.5
    assert objects_of(second) == [("dog", (1, 2, 4, 6), ""), ("cat", (0, 0, 2, 1), "")]
    assert (source.strays.count, source.strays.first) == (
        1,
        [{"file": "image id 99", "box": [0, 0, 2, 1], "reason": "image not listed"}],
    )


@pytest.mark.parametrize(
    ("image", "claimed", "source_id"),
    [
        (1, "1", "1"),
        (1, 1.0, "1"),
        ("1", 1, "1"),
        (2.0, "2", "2"),
        (2**64 + 1, 2**64 + 1, "18446744073709551617"),
        ("x1", "x1", "x1"),
    ],
)
def test_coco_ids_of_mixed_kinds(tmp_path, write_coco, image, claimed, source_id):
    path = write_coco(
        tmp_path / "a.json",
        [(image, "a.jpg", 64, 48)],
        [(claimed, "3", [1, 2, 3, 4], {})],
        [("3", "dog")],
    )
    source = coco_json.read_coco(path, tmp_path)
    (read,) = source.images
    assert source.classes == [{"name": "dog", "id": 3}]
    assert (read.source_id, objects_of(read), source.strays.count) == (
        source_id,
        [("dog", (1, 2, 4, 6), "")],
        0,
    )


@pytest.mark.parametrize(
    ("more", "box", "fault"),
    [
        ({"segmentation": [[8, 16, 24, 16, 24, 40], [4, 20, 6, 22, 5, 21]]}, (4, 16, 24, 40), ""),
        ({"bbox": [], "segmentation": [[8, 16, 24, 16, 24, 40]]}, (8, 16, 24, 40), ""),
        ({"segmentation": {"counts": [1, 2], "size": [4, 4]}}, None, "no box"),
        ({"segmentation": []}, None, "no box"),
        ({"bbox": [1, 2, 3], "segmentation": [[8, 16, 24, 16, 24, 40]]}, (8, 16, 24, 40), ""),
    ],
)
def test_coco_polygon_without_bbox(tmp_path, write_coco, more, box, fault):
    path = write_coco(tmp_path / "a.json", [(1, "a.jpg", 64, 48)], [(1, 1, None, more)])
    ((obj,),) = [image.objects for image in coco_json.read_coco(path, tmp_path).images]
    assert obj.fault == fault and (
        obj.box == box or (box is None and all(map(math.isnan, obj.box)))
    )


ROOT_CATEGORIES = [
    ("another's supercategory", ("cells", {}), ("RBC", {"supercategory": "cells"}), 1, ["RBC"]),
    (
        "another's name",
        ("RBC", {"supercategory": "none"}),
        ("RBC", {"supercategory": "RBC"}),
        1,
        ["RBC"],
    ),
    ("with objects", ("cells", {}), ("RBC", {"supercategory": "cells"}), 0, ["cells", "RBC"]),
    ("of no other", ("WBC", {}), ("RBC", {"supercategory": "cells"}), 1, ["WBC", "RBC"]),
]


@pytest.mark.parametrize(
    ("first", "second", "used", "names"),
    [row[1:] for row in ROOT_CATEGORIES],
    ids=[row[0] for row in ROOT_CATEGORIES],
)
def test_coco_first_category_of_roboflow(tmp_path, write_coco, first, second, used, names):
    path = write_coco(tmp_path / "a.json", [(1, "a.jpg", 64, 48)], [(1, used, [1, 2, 3, 4], {})])
    categories = [
        {"id": index, "name": name} | more for index, (name, more) in enumerate((first, second))
    ]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": categories}))
    source = coco_json.read_coco(path, tmp_path)
    assert [entry["name"] for entry in source.classes] == names
    assert len(source.notes) == 2 - len(names)


def test_file_names_with_backslashes(tmp_path, paint):
    paint(tmp_path / "cam 1/a.jpg")
    paint(tmp_path / "b.png", format="PNG")
    folders = files.ImageFolders((tmp_path,))
    assert folders.locate(tmp_path, "cam 1\\a.jpg") == str(tmp_path / "cam 1/a.jpg")
    assert folders.locate(tmp_path, "..\\upload\\b.jpg") == str(tmp_path / "b.png")
    absent = folders.locate(tmp_path, "c\\d.jpg")
    assert absent == str(tmp_path / "c\\d.jpg")  # as written
    paint(tmp_path / "cam 1\\a.jpg")
    assert folders.locate(tmp_path, "cam 1\\a.jpg") == str(tmp_path / "cam 1\\a.jpg")


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "far/deep").mkdir(parents=True)
    (tmp_path / "far/deep/x").touch()
    (tmp_path / "far/deep/loop").symlink_to(tmp_path / "far")
    (tmp_path / "near").mkdir()
    (tmp_path / "near/b").touch()
    (tmp_path / "near/a").touch()
    (tmp_path / "near/link").symlink_to(tmp_path / "far")
    found = [
        (root.removeprefix(str(tmp_path)), files)
        for root, files in files.walk_files(tmp_path / "near")
    ]
    assert found == [("/near", ["a", "b"]), ("/near/link", []), ("/near/link/deep", ["x"])]


def test_coco_image_without_annotations(tmp_path, write_coco):
    path = write_coco(tmp_path / "a.json", images=[(1, "a.jpg", 64, 48)])
    (image,) = coco_json.read_coco(path, tmp_path).images
    assert image.objects == () and image.path == str(tmp_path / "a.jpg")


VOC = """<annotation>
<filename>whatever.jpg</filename><size><width>64</width><height>48</height></size>
<object><name> cat </name><difficult>1</difficult>
<bndbox><xmin>5</xmin><ymin>7.5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>
<part><name>head</name>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>
<object><name>dog</name>
<bndbox><ymax>30</ymax><xmax>20</xmax><xmin>5</xmin><ymin>7</ymin></bndbox></object>
<object><name>dog</name></object>
</annotation>"""


def test_voc_devkit(tmp_path, paint):
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "Annotations/b.xml").write_text(VOC)
    (tmp_path / "Annotations/a.xml").write_text("<annotation></annotation>")
    paint(tmp_path / "JPEGImages/b.PNG", format="PNG")
    (tmp_path / "Annotations/a 1.xml").write_text("<annotation></annotation>")
    (tmp_path / "ImageSets/Main/test.txt").write_text("b  1\n\na -1\nc\na 1\n")
    # `a -1` is in the list of one class, but not in the class.
    first, third, fourth = voc_xml.read_voc(tmp_path, "test").images
    assert (first.path, first.source_id) == (
        str(tmp_path / "JPEGImages/b.PNG"),
        "b",
    )  # found by its stem
    assert (first.size_hw, first.unit) == ((48, 64), "pixels from one")
    assert objects_of(first)[:2] == [("cat", (5, 7.5, 20, 30), ""), ("dog", (5, 7, 20, 30), "")]
    assert [obj.difficult for obj in first.objects] == [True, False, False]
    assert first.objects[2].fault == "no box"
    assert third.fault == "no annotation file"
    assert fourth.source_id == "a 1"  # a name with a space, not `a` of the list of one class
    assert (fourth.objects, fourth.size_hw, fourth.filename) == ((), None, "a 1.jpg")


def test_voc_loose_folder(tmp_path, paint):
    (tmp_path / "x.xml").write_text(VOC)
    paint(tmp_path / "whatever.jpg")
    (image,) = voc_xml.read_voc(tmp_path, voc_xml.choose_image_set(tmp_path, "train")).images
    # There is no x.*: the name in the XML decides.
    assert (image.filename, image.source_id) == ("whatever.jpg", "x")


FILES = [
    ("sub1/a", "sub1/a.jpg", ["sub1/a.jpg", "a.jpg"], "sub1/a.jpg"),  # as CVAT writes it
    ("sub1/a", "a.jpg", ["sub1/a.jpg", "a.jpg"], "sub1/a.jpg"),
    ("sub1/a", "a.jpg", ["sub1/a.png", "a.jpg"], "sub1/a.png"),
    ("sub1/a", "", ["sub1/a.png", "a.jpg"], "sub1/a.png"),
    ("sub1/a", "sub1\\a.jpg", ["sub1/a.jpg", "a.jpg"], "sub1/a.jpg"),
    ("sub1/a", "a.jpg", ["a.jpg"], "a.jpg"),
    ("a", "sub1/a.jpg", ["sub1/a.jpg", "a.jpg"], "sub1/a.jpg"),
    ("a", "a.png", ["a.jpg", "a.png"], "a.png"),
    ("a", "b.jpg", ["a.jpg", "b.jpg"], "a.jpg"),
    ("a", "b.jpg", ["b.jpg"], "b.jpg"),
]


@pytest.mark.parametrize(("stem", "written", "files", "chosen"), FILES)
def test_voc_image_of_an_xml_file(tmp_path, stem, written, files, chosen):
    for file in files:
        (tmp_path / "JPEGImages" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "JPEGImages" / file).touch()
    (tmp_path / "Annotations/sub1").mkdir(parents=True)
    (tmp_path / f"Annotations/{stem}.xml").write_text(
        f"<annotation><filename>{written}</filename></annotation>"
    )
    (image,) = voc_xml.read_voc(tmp_path, "all").images
    assert (image.path, image.source_id) == (str(tmp_path / "JPEGImages" / chosen), stem)


def test_voc_sets_with_folders_and_capitals(tmp_path):
    (tmp_path / "Annotations/sub").mkdir(parents=True)
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for name in ("sub/a.xml", "b.XML", "c.xml"):
        (tmp_path / "Annotations" / name).write_text("<annotation/>")
    (tmp_path / "Annotations/d.xml").write_text("<annotations><image/></annotations>")
    (tmp_path / "ImageSets/Main/train.txt").write_text("\ufeffsub/a\r\nb\r\n", encoding="utf-8")
    source = voc_xml.read_voc(tmp_path, "train")
    assert [(image.source_id, image.fault) for image in source.images] == [("sub/a", ""), ("b", "")]
    assert source.notes == ["image set train: 2 of 4 XML files"]
    images = list(voc_xml.read_voc(tmp_path, "all").images)
    assert [image.source_id for image in images] == ["b", "c", "d", "sub/a"]
    assert images[2].fault == "not a VOC annotation: it begins with <annotations>"


@pytest.mark.parametrize(
    ("sets", "split", "chosen"),
    [
        ((), "train", "all"),
        (("trainval", "train", "val"), "train", "trainval"),
        (("train", "val"), "train", "train"),
        (("trainval", "val"), "val", "val"),
        (("trainval",), "test", "test"),
    ],
)
def test_voc_default_image_set(tmp_path, sets, split, chosen):
    for name in sets:
        (tmp_path / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"ImageSets/Main/{name}.txt").touch()
    assert voc_xml.choose_image_set(tmp_path, split) == chosen


@pytest.mark.parametrize(
    ("split", "chosen"), [("train", "train"), ("val", "valid"), ("test", "test")]
)
def test_voc_default_image_set_among_folders(tmp_path, split, chosen):
    for name in ("train", "valid"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "a.xml").touch()
    assert voc_xml.choose_image_set(tmp_path, split) == chosen


@pytest.mark.parametrize(
    ("shape", "line", "box"),
    [
        ([2, 3], "0 .5 .5 .25 .5 .45 .45 2 .9 .9 2", (0.375, 0.25, 0.625, 0.75)),  # 10 numbers
        ([1, 3], "0 .5 .5 .25 .5 .45 .45 2", (0.375, 0.25, 0.625, 0.75)),  # 7
        ([2, 2], "0 .5 .5 .25 .5", (0.375, 0.25, 0.625, 0.75)),
        ([2, 3], "0 .5 .5 .25 .5 .45 .45 .9 .9", "not a box"),
        ([2, 3], "0 .5 .5 .25 .5 .45 .45 2 .9 .9", "not a box"),
        (None, "0 .1 .2 .3 .2 .3 .6 .2 .8", (0.1, 0.2, 0.3, 0.8)),
        (None, "0 .1 .2 x .2 .3 .6", None),
        (None, "0 .1 .2 .3 .2 .3 nan", None),
    ],
)
def test_yolo_poses_and_polygons(tmp_path, paint, shape, line, box):
    paint(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text(line)
    (tmp_path / "data.yaml").write_text(
        json.dumps({"train": ".", "names": ["cat"]} | ({"kpt_shape": shape} if shape else {}))
    )
    ((obj,),) = [image.objects for image in yolo_txt.read_yolo(tmp_path, "train").images]
    if isinstance(box, str):
        assert obj.fault.startswith(box)
    elif box is None:
        assert all(map(math.isnan, obj.box)) and obj.fault.startswith("not a number: ")
    else:
        assert obj.box == pytest.approx(box) and not obj.fault


def test_yolo_blank_lines_and_byte_order_marks(tmp_path, paint):
    paint(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text(
        "\ufeff2 .5 .5 1 1\r\n1 .5 .5 1 1\r\n0 .5 .5 1 1\r\n", encoding="utf-8"
    )
    (tmp_path / "classes.txt").write_text("\ufeffcat\r\n\r\ndog\r\n\r\n\r\n", encoding="utf-8")
    source = yolo_txt.read_yolo(tmp_path, "train")
    assert source.classes == [{"name": "cat", "id": 0}, {"name": "dog", "id": 2}]
    ((first, second, third),) = [image.objects for image in source.images]
    assert (first.name, first.fault, third.name, third.fault) == ("dog", "", "cat", "")
    assert second.fault.startswith("class without a name: ")


def test_yolo_chooses_the_yaml_with_names(tmp_path, paint):
    paint(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("0 .5 .5 1 1\n")
    (tmp_path / "args.yaml").write_text("lr0: 1\nnamesake: x\n")
    (tmp_path / "birds.yaml").write_text("train: .\nnames: [bird]\n")
    assert yolo_txt.read_yolo(tmp_path, "train").classes == [{"name": "bird", "id": 0}]
    (tmp_path / "data.yaml").write_text("train: .\nnames: [cat]\n")
    assert yolo_txt.read_yolo(tmp_path, "train").classes == [{"name": "cat", "id": 0}]


def test_yolo_labels_without_an_image(tmp_path, paint):
    for name in ("a.jpg", "b.jfif", "sub/c.JPG"):
        paint(tmp_path / "images" / name, format="JPEG")
    for name in ("a.txt", "b.txt", "sub/c.txt", "d.txt", "sub/e.txt"):
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / name).write_text("0 .5 .5 1 1\n")
    (tmp_path / "labels/classes.txt").write_text("cat\n")
    (tmp_path / "labels/notes.txt").write_text("the rest tomorrow\n")
    source = yolo_txt.read_yolo(tmp_path, "train")
    assert [image.filename for image in source.images] == ["a.jpg", "b.jfif", "c.JPG"]
    assert {what: (tally.count, tally.first) for what, tally in source.unused.items()} == {
        "label files without an image": (
            2,
            [str(tmp_path / "labels/d.txt"), str(tmp_path / "labels/sub/e.txt")],
        )
    }


def test_yolo_labels_elsewhere_are_rejected(tmp_path, paint):
    paint(tmp_path / "images/a.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.txt").write_text("0 .5 .5 1 1\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(
        FileNotFoundError,
        match=r"no image has a label file; that of a\.jpg was .*/labels/a\.txt and",
    ):
        list(yolo_txt.read_yolo(tmp_path, "train").images)


def test_yolo(tmp_path, paint):
    paint(tmp_path / "images/train/sub/b.png", format="PNG")
    paint(tmp_path / "images/train/a.jpg")
    paint(tmp_path / "images/train/c.jpg")
    (tmp_path / "labels/train/sub").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text(
        "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.3 0.2 0.3 0.6\n7 .5 .5 .1 .1\n0 .5 .5\n"
    )
    (tmp_path / "labels/train/sub/b.txt").write_text("")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    source = yolo_txt.read_yolo(tmp_path, "train")
    assert source.classes == [{"name": "cat", "id": 0}, {"name": "dog", "id": 1}]
    a, c, b = source.images
    assert [image.source_id for image in (a, c, b)] == ["a", "c", "b"]
    assert (c.objects, b.objects, a.size_hw, a.unit) == ((), (), None, "normalised")
    # Centre .5, .5, width .25, height .5; the polygon spans x from .1 to .3, y from .2 to .6.
    assert objects_of(a)[:2] == [
        ("dog", (0.375, 0.25, 0.625, 0.75), ""),
        ("cat", (0.1, 0.2, 0.3, 0.6), ""),
    ]
    assert [obj.fault.partition(":")[0] for obj in a.objects[2:]] == [
        "unknown category",
        "not a box",
    ]


def test_yolo_names_by_index_and_neighbouring_folders(tmp_path, paint):
    paint(tmp_path / "data/train/images/a.jpg")
    (tmp_path / "data/train/images/a.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "data/list.txt").write_text("train/images/a.jpg\n")
    (tmp_path / "data/data.yaml").write_text(
        "names: {2: dog, 0: cat}\ntrain: ../train/images\nval: [list.txt]\n"
    )
    for image_set in ("train", "val"):
        source = yolo_txt.read_yolo(tmp_path / "data/data.yaml", image_set)
        assert source.classes == [{"name": "cat", "id": 0}, {"name": "dog", "id": 2}]
        assert [image.path for image in source.images] == [
            str(tmp_path / "data/train/images/a.jpg")
        ]


def test_yolo_loose_folder(tmp_path, paint):
    paint(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    source = yolo_txt.read_yolo(tmp_path, "train")
    assert [entry["name"] for entry in source.classes] == ["cat", "dog"]
    assert [objects_of(image) for image in source.images] == [[("cat", (0, 0, 1, 1), "")]]


def test_csv_rows_of_an_image_need_not_be_adjacent(tmp_path):
    (tmp_path / "a.csv").write_text(
        "Filename, width,height,class,xmin,ymin,xmax,ymax\n"
        "b.jpg,64,48,cat,5,7,20,30\n"
        "a.jpg,30,20,dog,1,2,3,4\n"
        "b.jpg,64,48,dog,1,1,2,x\n"
        "e.jpg,30,20,,,,,\n"
        "a.jpg,30,20,,1,2,3,4\n"
        "a.jpg,30,20,cat,,,,\n"
    )
    source = csv_table.read_csv(tmp_path / "a.csv", tmp_path, one_based=True)
    assert source.classes is None
    b, a, e = source.images
    assert (b.filename, b.source_id, b.size_hw, b.unit) == (
        "b.jpg",
        "b",
        (48, 64),
        "pixels from one",
    )
    assert objects_of(b)[0] == ("cat", (5, 7, 20, 30), "")
    assert math.isnan(b.objects[1].box[3]) and b.objects[1].fault == ""
    assert [obj.fault for obj in a.objects] == ["", "no class name", "no box"]
    assert e.objects == ()


def test_csv_rows_of_one_file_are_one_image(tmp_path, paint):
    paint(tmp_path / "1.jpg")
    paint(tmp_path / "x/1.jpg")
    rows = [
        "./1.jpg,64,48,cat,1,2,3,4",
        "x\\1.jpg,64,48,cat,5,6,7,8",
        "1.jpg,64,48,dog,2,3,4,5",
        "x/1.jpg,64,48,dog,6,7,8,9",
    ]
    rows += ["gone.jpg,64,48,cat,1,2,3,4", "./gone.jpg,64,48,cat,5,6,7,8"]
    (tmp_path / "a.csv").write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\n" + "\n".join(rows)
    )
    first, second, gone = csv_table.read_csv(tmp_path / "a.csv", tmp_path, one_based=False).images
    assert (first.path, objects_of(first)) == (
        str(tmp_path / "1.jpg"),
        [("cat", (1, 2, 3, 4), ""), ("dog", (2, 3, 4, 5), "")],
    )
    assert (second.path, len(second.objects)) == (str(tmp_path / "x/1.jpg"), 2)
    assert (gone.path, len(gone.objects)) == (str(tmp_path / "gone.jpg"), 2)


def test_csv_with_semicolons_has_decimal_commas(tmp_path):
    text = "filename;width;height;class;xmin;ymin;xmax;ymax\na.jpg;64;48;a, b;1,5;2;30,25;4\n"
    (tmp_path / "a.csv").write_text("\ufeff" + text, encoding="utf-8")
    (image,) = csv_table.read_csv(tmp_path / "a.csv", tmp_path, one_based=False).images
    assert objects_of(image) == [("a, b", (1.5, 2, 30.25, 4), "")]


def test_csv_with_a_quotation_mark_left_open(tmp_path):
    rows = [
        "1.jpg,9,9,cat,1,2,3,4",
        '"2.jpg",9,9,"a ""b""\n",1,2,3,4',
        '3.jpg,9,9,"dog,1,2,3,4',
        "4.jpg,9,9,cat,1,2,3,4",
    ]
    (tmp_path / "a.csv").write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\n" + "\n".join(rows)
    )
    with pytest.raises(
        ValueError, match=r"a\.csv, the row from line 5: .*quotation mark left open"
    ):
        csv_table.read_csv(tmp_path / "a.csv", tmp_path, one_based=False)


def test_read_members_across_window_borders(tmp_path, monkeypatch):
    content = {
        "info": {"a": [1, 2, {"b": "x" * 50}]},
        "n": 12345,
        "images": [{"id": i, "t": "é]}," * i} for i in range(9)],
        "none": [],
    }
    (tmp_path / "a.json").write_text(
        json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8"
    )
    for chunk in (1, 2, 3, 7, 64, 4096):
        monkeypatch.setattr(coco_json, "CHUNK", chunk)
        members = list(coco_json.read_members(tmp_path / "a.json", ("images", "none")))
        assert members == [
            ("images", None),
            *[("images", entry) for entry in content["images"]],
            ("none", None),
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not hold a JSON object"),
        ("[1, 2]", "does not hold a JSON object"),
        ('{"images": [{"id": 1}, {"id"', "cut short"),
        ('{"images": [1, 2]', "cut short"),
        ('{"images": {"id": 1}}', "holds no list under 'images'"),
        ('{"images": []} x', "more text after the end"),
        ("{images: []}", "is not JSON"),
    ],
)
def test_read_members_rejects(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        list(coco_json.read_members(tmp_path / "a.json", ("images",)))


def test_read_members_rejects_an_endless_element(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_json, "CHUNK", 10)
    monkeypatch.setattr(coco_json, "MAX_ELEMENT", 100)
    (tmp_path / "a.json").write_text(json.dumps({"images": [{"t": "x" * 60}, {"t": "x" * 60}]}))
    assert len(list(coco_json.read_members(tmp_path / "a.json", ("images",)))) == 3
    (tmp_path / "a.json").write_text(json.dumps({"images": [{"t": "x" * 500}]}))
    with pytest.raises(ValueError, match="has an element of over 100 characters"):
        list(coco_json.read_members(tmp_path / "a.json", ("images",)))


def test_csv_rejects_an_endless_line(tmp_path):
    (tmp_path / "a.csv").write_text("filename,class,xmin,ymin,xmax,ymax\n" + "," * (1 << 20))
    with pytest.raises(ValueError, match="has a line of over 1,048,576 characters"):
        csv_table.read_csv(tmp_path / "a.csv", tmp_path, one_based=False)
