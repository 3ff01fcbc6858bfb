import json

import numpy as np
import pytest

from ssd_tf.inference.detections import Detections
from ssd_tf.inference.thresholds import Thresholds, read_thresholds

IMAGE = np.zeros((40, 80, 3), np.uint8)


def make(scores, labels, thresholds=None):
    boxes = np.tile(np.array([0.1, 0.2, 0.5, 0.6], np.float32), (len(scores), 1))
    classes = ["cat", "dog"]
    scores = np.array(scores, np.float32)
    return Detections(boxes, scores, np.array(labels, int), classes, IMAGE, thresholds)


def test_no_file(tmp_path):
    assert read_thresholds(tmp_path / "thresholds.json") is None


def test_written_and_read_again(tmp_path):
    thresholds = Thresholds(0.68, {"cat": 0.7}, "best F1", "val", "my_data")
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(thresholds.to_json()))
    assert read_thresholds(path) == thresholds
    assert thresholds.of(["dog", "cat"]) == [0.68, 0.7]


def test_a_file_written_by_hand(tmp_path):
    path = tmp_path / "thresholds.json"
    path.write_text('{"all": 1, "note": "mine"}')
    assert read_thresholds(path) == Thresholds(1, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"all": "0.5"}',
        '{"all": 1.5}',
        '{"all": NaN}',
        '{"all": null}',
        '{"all": [0.5]}',
        '{"all": 0.5, "classes": {"cat": -1}}',
        '{"all": 0.5, "classes": ["cat"]}',
    ],
)
def test_other_content(tmp_path, text):
    path = tmp_path / "thresholds.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"thresholds\.json"):
        read_thresholds(path)


def test_confident_detections():
    thresholds = Thresholds(0.35, {"cat": 0.68})
    scores = [0.9, 0.68, 0.67, 0.36, 0.35, 0.34]
    found = make(scores, [1, 1, 1, 2, 2, 2], thresholds)
    assert found.confident().scores.tolist() == np.float32([0.9, 0.68, 0.36, 0.35]).tolist()
    assert make([], [], thresholds).confident().names == []
    assert make([0.5, 0.49], [1, 2]).confident().names == ["cat"]


def test_confident_detections_are_drawn():
    low = make([0.4], [1], Thresholds(0.3, {}))
    assert np.asarray(low.draw()).any()
    assert not np.asarray(low.draw(score=0.5)).any()
    assert not np.asarray(make([0.4], [1]).draw()).any()
