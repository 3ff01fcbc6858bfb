import json

import numpy as np
import pytest
from detector_output import CLASSES, detections

from ssd_tf.evaluation import coco_format

IMAGE = {"id": 5, "file_name": "a.png", "height": 100, "width": 200, "source_id": "a"}


def truth(file_name, source_id, box, **flags):
    """The ImageTruth of an image of 100 x 200 with one green object."""
    return coco_format.ImageTruth(
        file_name=file_name,
        source_id=source_id,
        image_hw=(100, 200),
        boxes=np.array([box], np.float32),
        labels=np.array([2]),
        crowd=np.array([flags.get("crowd", False)]),
        difficult=np.array([flags.get("difficult", False)]),
        area=np.array([600.0]),
    )


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ((), []),
        (("17", "5"), [17, 5]),
        (("000017", "5"), [17, 5]),
        (("17", "b"), [1, 2]),
        (("2", "a"), [1, 2]),
        (("", ""), [1, 2]),
        (("5", "5"), [1, 2]),
        (("5", "05"), [1, 2]),
        (("\u00b2", "5"), [1, 2]),
        (("-3", "5"), [1, 2]),
        (("9223372036854775807", "5"), [2**63 - 1, 5]),
        (("9223372036854775808", "5"), [1, 2]),  # more than NumPy's integers hold
    ],
)
def test_image_ids(names, ids):
    assert coco_format.image_ids(names) == ids


def test_no_boxes():
    assert coco_format.to_xywh_pixels(np.zeros((0, 4)), (100, 200)).shape == (0, 4)
    assert coco_format.make_results(IMAGE, detections(), CLASSES) == []


def test_results_of_an_image_that_is_not_square():
    rows = coco_format.make_results(IMAGE, detections(([0.1, 0.2, 0.5, 0.3], 0.75, 2)), CLASSES)
    # Left 0.2 of 200, top 0.1 of 100, 0.1 of 200 wide, 0.4 of 100 high; label 2 has category id 3.
    assert rows == [
        {
            "image_id": 5,
            "file_name": "a.png",
            "source_id": "a",
            "category_id": 3,
            "bbox": pytest.approx([40, 10, 20, 40]),
            "score": 0.75,
        }
    ]
    assert json.loads(json.dumps(rows)) == rows


def test_instances():
    content = coco_format.make_instances(
        [
            truth("b.jpg", "b", [0.1, 0.2, 0.5, 0.3]),
            truth("2.jpg", "2", [0, 0, 1, 1], crowd=True, difficult=True),
        ],
        CLASSES,
    )
    assert content["images"] == [
        {"id": 1, "file_name": "b.jpg", "height": 100, "width": 200, "source_id": "b"},
        {"id": 2, "file_name": "2.jpg", "height": 100, "width": 200, "source_id": "2"},
    ]
    assert content["annotations"] == [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 3,
            "bbox": pytest.approx([40, 10, 20, 40], abs=1e-4),
            "area": 600,
            "iscrowd": 0,
            "difficult": 0,
        },
        {
            "id": 2,
            "image_id": 2,
            "category_id": 3,
            "bbox": [0, 0, 200, 100],
            "area": 600,
            "iscrowd": 1,
            "difficult": 1,
        },
    ]
    assert content["categories"] == [{"id": 7, "name": "red"}, {"id": 3, "name": "green"}]
    assert json.loads(json.dumps(content)) == content


def test_names_that_are_not_unicode():
    example = {
        "image": np.zeros((4, 6, 3), np.uint8),
        "boxes": np.zeros((0, 4), np.float32),
        "labels": np.zeros(0, np.int32),
        "crowd": np.zeros(0, bool),
        "difficult": np.zeros(0, bool),
        "area": np.zeros(0, np.float32),
        "file_name": b"\xff.jpg",
        "source_id": b"\xff",
    }
    made = coco_format.make_image_truth(example)
    assert made.image_hw == (4, 6)
    assert made.file_name.encode("utf-8", "surrogateescape") == b"\xff.jpg"
    content = coco_format.make_instances([made], CLASSES)
    assert json.loads(json.dumps(content)) == content


def read_annotations(folder, *changes):
    """Annotations with the box 10, 10, 40, 20 and these further keys, written and read."""
    rows = [{"image_id": 4, "category_id": 9, "bbox": [10, 10, 40, 20], **row} for row in changes]
    content = {
        "images": [{"id": 4}],
        "annotations": rows,
        "categories": [{"id": 9, "name": "cat"}],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return coco_format.read_instances(path)["annotations"]


@pytest.mark.parametrize(
    ("row", "area", "iscrowd"),
    [
        ({}, 800, 0),
        ({"area": None, "iscrowd": None}, 800, 0),
        ({"area": 0, "iscrowd": 1}, 0, 1),
        ({"area": 600.5, "iscrowd": True}, 600.5, 1),
    ],
)
def test_area_and_iscrowd_of_instances_from_disk(tmp_path, row, area, iscrowd):
    (annotation,) = read_annotations(tmp_path, row)
    assert (annotation["area"], annotation["iscrowd"]) == (area, iscrowd)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((5, 3), [5, 3]),
        ((0, 1), [1, 2]),
        ((7, 7), [1, 2]),
        ((-1, 5), [1, 2]),
        (("5", "3"), [1, 2]),
        ((5, None), [1, 2]),
        ((True, 5), [1, 2]),
        ((5, 2.5), [1, 2]),
        ((5, 10**400), [1, 2]),
        (([5], {}), [1, 2]),
    ],
)
def test_annotation_ids_of_instances_from_disk(tmp_path, ids, expected):
    rows = read_annotations(tmp_path, *({"id": annotation_id} for annotation_id in ids))
    assert [row["id"] for row in rows] == expected


def test_other_keys_of_instances_from_disk_are_kept(tmp_path):
    (annotation,) = read_annotations(tmp_path, {"difficult": 1, "segmentation": [[1, 2, 3]]})
    assert (annotation["difficult"], annotation["segmentation"]) == (1, [[1, 2, 3]])
