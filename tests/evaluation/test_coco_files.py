import json

import numpy as np
import pytest
from detector_output import CLASSES

from ssd_tf.evaluation import coco_instances, coco_results, json_files, tables
from ssd_tf.inference import detections

IMAGE = {"id": 5, "file_name": "a.png", "height": 100, "width": 200, "source_id": "a"}


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
    assert detections.image_ids(names) == ids


def write_and_read(folder, found, images):
    """Detections of images with these rows, written as JSON; returns the rows and what is read."""
    categories = [{"id": entry["id"], "name": entry["name"]} for entry in CLASSES]
    ground_truth = {"images": images, "annotations": [], "categories": categories}
    made = coco_instances.make_truth(ground_truth)
    path = folder / "detections.json"
    coco_results.write_results(path, found, made)
    assert sorted(folder.iterdir()) == [path]
    return json.loads(path.read_text()), coco_results.read_results(path, made)


def make_found(*rows):
    """(image, category, box, score) as indices -> Found."""
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    image, category, boxes, scores = map(list, columns)
    return tables.Found(
        np.array(image, int),
        np.array(category, int),
        np.array(boxes, float).reshape(-1, 4),
        np.array(scores, float),
    )


def test_no_detections(tmp_path):
    rows, found = write_and_read(tmp_path, make_found(), [IMAGE])
    assert rows == []
    assert [column.shape for column in found] == [(0,), (0,), (0, 4), (0,)]


def test_detections_are_written_with_ids_and_names_and_read_again(tmp_path):
    # Images and categories are indices into the sorted ids: 4, 5 and 3, 7.
    written = make_found((1, 0, [40, 10, 20.5, 40], 0.75), (0, 1, [1, 2, 3, 4], 0.1))
    rows, found = write_and_read(tmp_path, written, [IMAGE, {"id": 4}])
    assert rows == [
        {
            "image_id": 5,
            "file_name": "a.png",
            "source_id": "a",
            "category_id": 3,
            "bbox": [40, 10, 20.5, 40],
            "score": 0.75,
        },
        {"image_id": 4, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.1},
    ]
    for column, expected in zip(found, written, strict=True):
        np.testing.assert_array_equal(column, expected)


def test_more_detections_than_are_written_at_once(tmp_path):
    count = 1_001
    image = np.zeros(count, int)
    found = tables.Found(image, image, np.ones((count, 4)), np.arange(count) / count)
    rows, read = write_and_read(tmp_path, found, [IMAGE])
    assert len(rows) == count
    np.testing.assert_array_equal(read.scores, found.scores)


@pytest.mark.parametrize("text", ["[]", " [ ] ", '[{"a": 1}]', '[ {"a": [1, 2]} ,\n{}, 7 ]\n'])
def test_rows_are_read_one_at_a_time_as_json_reads_them(tmp_path, text):
    path = tmp_path / "rows.json"
    path.write_text(text)
    assert list(json_files.rows_of(path, "rows")) == json.loads(text)


@pytest.mark.parametrize(
    "text", ["", "[", "[1", "[1,", "[1 2]", "[1,]", "[1] 2", "{", "[}", "[1]]"]
)
def test_rows_that_are_not_json(tmp_path, text):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(ValueError, match=r"rows.json is not JSON: "):
        list(json_files.rows_of(path, "rows"))


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
    return coco_instances.read_instances(path)["annotations"]


@pytest.mark.parametrize(
    ("row", "area", "iscrowd"),
    [
        ({}, 800, 0),
        ({"area": None, "iscrowd": None}, 800, 0),
        ({"area": 0, "iscrowd": 1}, 800, 1),
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
