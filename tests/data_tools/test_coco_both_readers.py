"""`ssd convert coco` and `ssd evaluate` read the same things from the same COCO file."""

import copy
import json

import pytest
from coco_reading import read_with_converter, read_with_evaluation

from data_tools.readers import coco_json
from ssd_tf.evaluation import coco_instances

POLYGON = [[8, 16, 24, 16, 24, 40], [4, 20, 6, 22, 5, 21]]  # from 4, 16 to 24, 40
LARGE = 2**70
BASE = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": 2, "file_name": "b.jpg", "width": 64, "height": 48},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 30, 40], "area": 900},
        {"id": 2, "image_id": 2, "category_id": 5, "bbox": [3, 4, 10, 20], "iscrowd": 1},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
}


def both_read(path, caplog):
    """What both readers read, which must be the same."""
    read = read_with_converter(path)
    assert read_with_evaluation(path, caplog) == read
    return read


def with_first(**changes):
    content = copy.deepcopy(BASE)
    content["annotations"][0].update(changes)
    return content


SECOND = ("2", "dog", [3, 4, 13, 24], 200, True)
FIRST = ("1", "cat", [1, 2, 31, 42], 900, False)
FROM_POLYGON = ("1", "cat", [4, 16, 24, 40], 900, False)
KEPT = [
    ({}, FIRST),
    *(({"image_id": value}, FIRST) for value in (1.0, "1", "1.0", "001", "1 ")),
    *(({"category_id": value}, FIRST) for value in (3.0, "3", "03")),
    *(({"iscrowd": value}, FIRST) for value in (0, 0.0, False, None, "0", "false", "", [], "x")),
    *(
        ({"iscrowd": value}, (*FIRST[:4], True))
        for value in (1, 1.0, True, "1", "1.0", "true", "True", 2)
    ),
    *(({"area": value}, FIRST) for value in ("900", 900.0)),
    *(
        ({"area": value}, (*FIRST[:3], 1200, False))
        for value in (0, -1, None, "big", True, [900], float("nan"), float("inf"), 10**400)
    ),
    *(({"bbox": box}, FIRST) for box in (["1", "2", "30", "40"], [1.0, 2, "30.0", 40])),
    *(
        ({"bbox": box, "segmentation": POLYGON}, FROM_POLYGON)
        for box in ([0, 0, 0, 0], [1, 2], [], None, [1, 2, 3, "x"], {"x": 1}, [1, 2, -3, 4], "x")
    ),
    ({"bbox": None, "segmentation": [str(x) for x in POLYGON[0]]}, ("1", "cat", [8, 16, 24, 40])),
    ({"bbox": [1, 2, 30, 40], "segmentation": [[0, 0, 9, 9, 0, 9]]}, FIRST),
    ({"bbox": [1, 2, 30, 40], "segmentation": {"counts": [1], "size": [1, 1]}}, FIRST),
]


@pytest.mark.parametrize(("changes", "expected"), KEPT)
def test_what_both_keep(tmp_path, caplog, changes, expected):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(with_first(**changes)))
    kept, num_left_out, names = both_read(path, caplog)
    assert (num_left_out, names) == (0, ["cat", "dog"])
    assert kept[0][: len(expected)] == expected
    assert kept[1] == SECOND


LEFT_OUT = [
    *({"image_id": value} for value in (3, "a", None, True, [1], {}, "", " ", LARGE, 1.5, "-1")),
    *({"category_id": value} for value in (4, "cat", None, True, [3], "", 3.5, -LARGE)),
    *({"bbox": box} for box in ([1, 2, 3], [], None, "1,2,3,4", {"x": 1}, 7, [[1, 2, 3, 4]])),
    *({"bbox": [1, 2, 30, value]} for value in (0, -1, None, "wide", True, float("nan"), 10**400)),
    {"bbox": [1, 2, 1e200, 1e200]},
    {"bbox": [0, 0, 0, 0], "segmentation": [[1, 1, 1, 1, 1, 1]]},
    {"bbox": [1, 2], "segmentation": {"counts": "abc", "size": [48, 64]}},
    {"bbox": None, "segmentation": [[1, 2, "x", 4, 5, 6]]},
]


@pytest.mark.parametrize("changes", LEFT_OUT)
def test_what_both_leave_out_and_count(tmp_path, caplog, changes):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(with_first(**changes)))
    kept, num_left_out, _ = both_read(path, caplog)
    assert (kept, num_left_out) == ([SECOND], 1)


@pytest.mark.parametrize(
    ("first", "names"),
    [
        ({"id": 0, "name": "background"}, ["cat", "dog"]),
        ({"id": "0", "name": "__background__"}, ["cat", "dog"]),
        ({"id": 0, "name": "pets", "supercategory": "none"}, ["pets", "cat", "dog"]),
        ({"id": 0.0, "name": "animals"}, ["cat", "dog"]),
        ({"id": 4, "name": "background"}, ["cat", "background", "dog"]),
    ],
)
def test_categories(tmp_path, caplog, first, names):
    content = copy.deepcopy(BASE)
    content["categories"][0]["supercategory"] = "animals"
    content["categories"].insert(0, first)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert both_read(path, caplog)[2] == names


def test_a_background_with_objects_is_a_class(tmp_path, caplog):
    content = with_first(category_id=0)
    content["categories"].insert(0, {"id": 0, "name": "background"})
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert both_read(path, caplog)[2] == ["background", "cat", "dog"]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"coco_url": "http://images.org/train2017/0001.jpg"}, "0001.jpg"),
        ({"url": "https://host/a%20b.png?sig=x/y#z"}, "a b.png"),
        ({"path": "/data/set 1/c#1.jpg"}, "c#1.jpg"),
        ({"path": "C:\\data\\d.jpg", "flickr_url": "http://flickr/z.jpg"}, "d.jpg"),
        ({"file_name": "", "coco_url": "http://a/b.jpg"}, "b.jpg"),
        ({"file_name": "x/y.jpg", "coco_url": "http://a/b.jpg"}, "x/y.jpg"),
        ({"file_name": None, "coco_url": 7, "url": "http://a/", "path": "p.jpg"}, "p.jpg"),
    ],
)
def test_file_names(tmp_path, row, name):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**BASE, "images": [{"id": 1, **row}, BASE["images"][1]]}))
    first, _ = coco_json.read_coco(path, tmp_path).images
    assert first.filename == name
    assert coco_instances.read_instances(path)["images"][0]["file_name"] == name


def test_images_without_an_id_are_left_out(tmp_path, caplog):
    content = copy.deepcopy(BASE)
    del content["images"][0]["id"]
    del content["annotations"][0]["image_id"]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    first, _ = coco_json.read_coco(path, tmp_path).images
    assert (first.fault, first.objects) == ("no image id", ())
    assert both_read(path, caplog)[:2] == ([SECOND], 1)
    assert len(coco_instances.read_instances(path)["images"]) == 1
    assert "1 of 2 images left out: no id" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings(tmp_path, caplog, encoding):
    content = copy.deepcopy(BASE)
    content["categories"][0]["name"] = "猫"
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    path = tmp_path / "a.json"
    path.write_text(mark + json.dumps(content, ensure_ascii=False), encoding=encoding)
    kept, num_left_out, names = both_read(path, caplog)
    assert (len(kept), num_left_out, names) == (2, 0, ["猫", "dog"])


@pytest.mark.parametrize("key", ["width", "unused"])
def test_more_digits_than_python_parses(tmp_path, key):
    path = tmp_path / "a.json"
    path.write_text(f'{{"images": [{{"id": 1, "{key}": {"1" * 5000}}}], "annotations": []}}')
    for read in (coco_instances.read_instances, lambda path: coco_json.read_coco(path, tmp_path)):
        with pytest.raises(ValueError, match=r"a\.json"):
            read(path)
