"""Each reader against a label file written by hand: the plain record that comes out, boxes as they were written."""

import json
import math

import pytest

from data_tools.readers import coco, json_stream, labels, table, voc, yolo


def objects_of(image):
    return [(thing.name, thing.box, thing.fault) for thing in image.objects]


def test_line_and_back():
    thing = labels.LabeledObject("cät", (1.5, 2.0, math.inf, 4.0), area=None, crowd=True, difficult=False, fault="")
    image = labels.LabeledImage("/p/a b.jpg", "a b.jpg", "7", (thing,), (3, 4), labels.SHARES)
    assert labels.from_line(labels.to_line(image)) == image
    empty = labels.LabeledImage("", "x", "y", fault="absent")
    assert labels.from_line(labels.to_line(empty)) == empty


def test_coco(tmp_path, write_coco):
    (tmp_path / "images").mkdir()
    path = write_coco(
        tmp_path / "a.json",
        images=[(7, "b.jpg", 64, 48), (5, "a.jpg", 30, 20)],
        annotations=[
            (5, 3, [1, 2, 3, 4], {}),
            (7, 1, [10, 20, 30, 4.5], {"iscrowd": 1, "segmentation": {"counts": [1, 2], "size": [4, 4]}}),
            (5, 1, [0, 0, 2, 1], {}),
            (99, 1, [0, 0, 2, 1], {}),
            (7, 2, [0, 0, 2, 1], {}),
        ],
        categories=[(3, "dog"), (1, "cat")],
    )
    source = coco.read_coco(path, tmp_path / "images")
    assert source.classes == [{"name": "cat", "id": 1}, {"name": "dog", "id": 3}]
    first, second = source.images
    assert (first.filename, first.source_id, first.size_hw, first.unit) == ("b.jpg", "7", (48, 64), "pixels")
    assert objects_of(first) == [("cat", (10, 20, 40, 24.5), ""), ("category 2", (0, 0, 2, 1), "unknown category")]
    assert first.objects[0].crowd and first.objects[0].area == 7.5
    assert objects_of(second) == [("dog", (1, 2, 4, 6), ""), ("cat", (0, 0, 2, 1), "")]
    assert (source.strays.count, source.strays.first) == (
        1,
        [{"file": "image id 99", "box": [0, 0, 2, 1], "reason": "image not listed"}],
    )


def test_coco_gives_an_image_without_annotations(tmp_path, write_coco):
    path = write_coco(tmp_path / "a.json", images=[(1, "a.jpg", 64, 48)])
    (image,) = coco.read_coco(path, tmp_path).images
    assert image.objects == () and image.path == str(tmp_path / "a.jpg")


VOC = """<annotation><filename>whatever.jpg</filename><size><width>64</width><height>48</height></size>
<object><name> cat </name><difficult>1</difficult><bndbox><xmin>5</xmin><ymin>7.5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>
<object><name>dog</name><bndbox><ymax>30</ymax><xmax>20</xmax><xmin>5</xmin><ymin>7</ymin></bndbox></object>
<object><name>dog</name></object></annotation>"""


def test_voc_devkit(tmp_path, paint):
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "Annotations/b.xml").write_text(VOC)
    (tmp_path / "Annotations/a.xml").write_text("<annotation></annotation>")
    paint(tmp_path / "JPEGImages/b.PNG", format="PNG")
    (tmp_path / "Annotations/a 1.xml").write_text("<annotation></annotation>")
    (tmp_path / "ImageSets/Main/test.txt").write_text("b  1\n\na -1\nc\na 1\n")
    first, second, third, fourth = voc.read_voc(tmp_path, "test").images
    assert (first.path, first.source_id) == (str(tmp_path / "JPEGImages/b.PNG"), "b")  # found by its stem
    assert (first.size_hw, first.unit) == ((48, 64), "pixels from one")
    assert objects_of(first)[:2] == [("cat", (5, 7.5, 20, 30), ""), ("dog", (5, 7, 20, 30), "")]
    assert [thing.difficult for thing in first.objects] == [True, False, False]
    assert first.objects[2].fault == "no box"
    assert (second.objects, second.size_hw, second.filename) == ((), None, "a.jpg")
    assert third.fault == "no annotation file"
    assert fourth.source_id == "a 1"  # a name with a space, and not `a` of a class's own list


def test_voc_loose_folder(tmp_path, paint):
    (tmp_path / "x.xml").write_text(VOC)
    paint(tmp_path / "whatever.jpg")
    (image,) = voc.read_voc(tmp_path, voc.choose_image_set(tmp_path, "train")).images
    assert (image.filename, image.source_id) == ("whatever.jpg", "x")  # no x.*: the name in the XML


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
def test_voc_image_set_by_default(tmp_path, sets, split, chosen):
    for name in sets:
        (tmp_path / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"ImageSets/Main/{name}.txt").touch()
    assert voc.choose_image_set(tmp_path, split) == chosen


def test_yolo(tmp_path, paint):
    paint(tmp_path / "images/train/sub/b.png", format="PNG")
    paint(tmp_path / "images/train/a.jpg")
    paint(tmp_path / "images/train/c.jpg")
    (tmp_path / "labels/train/sub").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.3 0.2 0.3 0.6\n7 .5 .5 .1 .1\n0 .5 .5\n")
    (tmp_path / "labels/train/sub/b.txt").write_text("")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    source = yolo.read_yolo(tmp_path, "train")
    assert source.classes == [{"name": "cat", "id": 0}, {"name": "dog", "id": 1}]
    a, c, b = source.images
    assert [image.source_id for image in (a, c, b)] == ["a", "c", "b"]
    assert (c.objects, b.objects, a.size_hw, a.unit) == ((), (), None, "shares")
    # Centre .5, .5 with width .25 and height .5; the polygon's corners are .1..3 and .2..6.
    assert objects_of(a)[:2] == [("dog", (0.375, 0.25, 0.625, 0.75), ""), ("cat", (0.1, 0.2, 0.3, 0.6), "")]
    assert [thing.fault[:16] for thing in a.objects[2:]] == ["unknown category", "not a box: wants"]


def test_yolo_lists_names_by_number_and_neighbouring_folders(tmp_path, paint):
    paint(tmp_path / "data/train/images/a.jpg")
    (tmp_path / "data/train/images/a.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "data/list.txt").write_text("train/images/a.jpg\n")
    (tmp_path / "data/data.yaml").write_text("names: {2: dog, 0: cat}\ntrain: ../train/images\nval: [list.txt]\n")
    for image_set in ("train", "val"):
        source = yolo.read_yolo(tmp_path / "data/data.yaml", image_set)
        assert source.classes == [{"name": "cat", "id": 0}, {"name": "dog", "id": 2}]
        assert [image.path for image in source.images] == [str(tmp_path / "data/train/images/a.jpg")]


def test_yolo_loose_folder(tmp_path, paint):
    paint(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    source = yolo.read_yolo(tmp_path, "train")
    assert [entry["name"] for entry in source.classes] == ["cat", "dog"]
    assert [objects_of(image) for image in source.images] == [[("cat", (0, 0, 1, 1), "")]]


def test_csv_rows_of_a_picture_need_not_stand_together(tmp_path):
    (tmp_path / "a.csv").write_text(
        "Filename, width,height,class,xmin,ymin,xmax,ymax\n"
        "b.jpg,64,48,cat,5,7,20,30\n"
        "a.jpg,30,20,dog,1,2,3,4\n"
        "b.jpg,64,48,dog,1,1,2,x\n"
        "e.jpg,30,20,,,,,\n"
        "a.jpg,30,20,,1,2,3,4\n"
        "a.jpg,30,20,cat,,,,\n"
    )
    source = table.read_csv(tmp_path / "a.csv", tmp_path, one_based=True)
    assert source.classes is None
    b, a, e = source.images
    assert (b.filename, b.source_id, b.size_hw, b.unit) == ("b.jpg", "b", (48, 64), "pixels from one")
    assert objects_of(b)[0] == ("cat", (5, 7, 20, 30), "")
    assert math.isnan(b.objects[1].box[3]) and b.objects[1].fault == ""
    assert [thing.fault for thing in a.objects] == ["", "no class name", "no box"]
    assert e.objects == ()


def test_json_stream_over_window_borders(tmp_path, monkeypatch):
    content = {
        "info": {"a": [1, 2, {"b": "x" * 50}]},
        "n": 12345,
        "images": [{"id": k, "t": "é]}," * k} for k in range(9)],
        "none": [],
    }
    (tmp_path / "a.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    for chunk in (1, 2, 3, 7, 64, 4096):
        monkeypatch.setattr(json_stream, "_CHUNK", chunk)
        members = list(json_stream.read_members(tmp_path / "a.json", ("images", "none")))
        assert members == [("images", None), *[("images", entry) for entry in content["images"]], ("none", None)]


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
def test_json_stream_refuses(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        list(json_stream.read_members(tmp_path / "a.json", ("images",)))
