import copy
import json

import pytest
from coco_rows import coco_metrics

from ssd_tf.commands import evaluate
from ssd_tf.evaluation.metrics import NAMES

# Two classes with a gap in their ids, on an image that is not square; boxes are x, y, width,
# height.
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 11, "name": "dog"}]
LEFT, RIGHT = [10.0, 5.0, 40.0, 20.0], [110.0, 20.0, 60.0, 60.0]


def truth(*annotations):
    rows = [
        {
            "id": annotation_id,
            "image_id": 1,
            "category_id": 3,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            **more,
        }
        for annotation_id, (box, more) in enumerate(annotations, start=1)
    ]
    return {
        "images": [{"id": 1, "height": 100, "width": 200}],
        "annotations": rows,
        "categories": CATEGORIES,
    }


def found(*rows, category=3):
    return [
        {"image_id": 1, "category_id": category, "bbox": box, "score": score} for box, score in rows
    ]


def test_no_objects_and_no_detections():
    stats, per_class = coco_metrics(truth(), [])
    assert stats == dict.fromkeys(NAMES, -1.0)
    assert per_class == {}


def test_no_detections():
    stats, per_class = coco_metrics(truth((LEFT, {}), (RIGHT, {})), [])
    assert (stats["AP"], stats["AP50"], stats["AR100"]) == (0, 0, 0)
    assert per_class == {"cat": {"AP": 0, "AP50": 0}}


def test_pycocotools_own_example(shared_data, tmp_path):
    metrics = shared_data / "metrics"
    files = [
        metrics / "instances_val2014_fakebbox100_results.json",
        metrics / "instances_val2014_100.json",
    ]
    argv = [
        "evaluate.py",
        f"--detections={files[0]}",
        f"--annotations={files[1]}",
        f"--output={tmp_path}",
    ]
    assert evaluate.main(argv) == 0
    expected = json.loads((metrics / "fakebbox100_pycocotools_stats.json").read_text())
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert list(content["coco"]) == list(NAMES)
    assert list(content["coco"].values()) == pytest.approx(expected, abs=1e-6)
    # Written as they were read, and the detections with the names of their images.
    assert json.loads((tmp_path / "ground_truth.json").read_text()) == json.loads(
        files[1].read_text()
    )
    written = json.loads((tmp_path / "detections.json").read_text())
    keys = ("image_id", "category_id", "bbox", "score")
    assert [{key: row[key] for key in keys} for row in written] == [
        {key: row[key] for key in keys} for row in json.loads(files[0].read_text())
    ]
    assert all(row["file_name"].startswith("COCO_val2014_") for row in written)


def test_half_of_the_objects():
    # Precision is 1 up to a recall of one half: 51 of the 101 recalls 0, 0.01, ..., 0.5.
    stats, per_class = coco_metrics(truth((LEFT, {}), (RIGHT, {})), found((LEFT, 0.9)))
    assert stats["AP"] == pytest.approx(51 / 101)
    assert stats["AR1"] == stats["AR100"] == 0.5
    # By area: 40 x 20 = 800 is small (below 32^2), 60 x 60 is medium.
    assert (stats["APs"], stats["APm"], stats["APl"]) == (pytest.approx(1), 0, -1)
    assert per_class == {"cat": {"AP": pytest.approx(51 / 101), "AP50": pytest.approx(51 / 101)}}


def test_iou_thresholds():
    # 30 of 40 columns: IoU 0.75, which passes 0.5, 0.55, ..., 0.75: six of ten thresholds.
    stats, _ = coco_metrics(truth((LEFT, {})), found(([10.0, 5.0, 30.0, 20.0], 0.9)))
    assert (stats["AP50"], stats["AP75"]) == pytest.approx((1, 1))
    assert stats["AP"] == pytest.approx(0.6)


def test_the_mean_is_over_classes_that_have_objects():
    content = truth((LEFT, {}), (RIGHT, {"category_id": 11}))
    stats, per_class = coco_metrics(content, found((LEFT, 0.9)))
    assert stats["AP"] == pytest.approx(0.5)
    assert per_class == {"cat": pytest.approx({"AP": 1, "AP50": 1}), "dog": {"AP": 0, "AP50": 0}}
    stats, per_class = coco_metrics(
        truth((LEFT, {})), found((LEFT, 0.9)) + found((RIGHT, 0.8), category=11)
    )
    assert stats["AP"] == pytest.approx(1)
    assert list(per_class) == ["cat"]


@pytest.mark.parametrize("flag", ["difficult", "iscrowd"])
def test_difficult_objects_and_crowds_count_neither_as_found_nor_as_missed(flag):
    content = truth((LEFT, {}), (RIGHT, {flag: 1}))
    assert coco_metrics(content, found((LEFT, 0.8)))[0]["AP"] == pytest.approx(1)
    assert coco_metrics(content, found((RIGHT, 0.9), (LEFT, 0.8)))[0]["AP"] == pytest.approx(1)
    # Without that object the same detection is a mistake: precision 1 / 2.
    stats, _ = coco_metrics(truth((LEFT, {})), found((RIGHT, 0.9), (LEFT, 0.8)))
    assert stats["AP"] == pytest.approx(0.5)


def test_the_arguments_are_not_changed():
    content, rows = truth((LEFT, {"difficult": 1}), (RIGHT, {})), found((RIGHT, 0.9))
    before = copy.deepcopy((content, rows))
    coco_metrics(content, rows)
    assert (content, rows) == before


def test_an_area_of_0_is_small():
    stats, _ = coco_metrics(truth((RIGHT, {"area": 0})), found((RIGHT, 0.9)))
    assert (stats["APs"], stats["APm"]) == (pytest.approx(1), -1)


def test_detections_may_carry_other_keys():
    # pycocotools takes rows with a caption for captions, which have no area.
    rows = [{**row, "caption": "a cat"} for row in found((LEFT, 0.9))]
    assert coco_metrics(truth((LEFT, {})), rows)[0]["AP"] == pytest.approx(1)
