import json

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.data import dataset_json, pipeline
from ssd_tf.evaluation import evaluator

CLASSES = ({"name": "red", "id": 7}, {"name": "green", "id": 3})


def detections(*rows):
    """(box, score, label) -> a detector's output."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        "boxes": np.array(boxes).reshape(-1, 4),
        "scores": np.array(scores),
        "labels": np.array(labels, np.int32),
    }


def examples(*source_ids):
    """Pictures of 40 x 80 without objects."""
    return tf.data.Dataset.from_tensor_slices(
        {
            "image": np.zeros((len(source_ids), 40, 80, 3), np.uint8),
            "boxes": np.zeros((len(source_ids), 0, 4), np.float32),
            "source_id": [source.encode() for source in source_ids],
        }
    )


def nothing(images):
    return [detections() for _ in images]


def test_no_boxes_to_pixels():
    assert evaluator.to_xywh_pixels(np.zeros((0, 4)), (100, 200)).shape == (0, 4)
    assert evaluator.coco_results(5, detections(), (100, 200), CLASSES) == []


def test_rows_of_a_picture_that_is_not_square():
    rows = evaluator.coco_results(
        5, detections(([0.1, 0.2, 0.5, 0.3], 0.75, 2)), (100, 200), CLASSES
    )
    # Left 0.2 of 200, top 0.1 of 100, 0.1 of 200 wide, 0.4 of 100 high; label 2 has the category id 3.
    assert rows == [
        {"image_id": 5, "category_id": 3, "bbox": pytest.approx([40, 10, 20, 40]), "score": 0.75}
    ]
    assert json.loads(json.dumps(rows)) == rows


def test_ground_truth_of_a_data_set(tiny_data):
    info = dataset_json.read_dataset(tiny_data)
    truth, found = evaluator.run_detector(
        nothing, pipeline.read_examples(tiny_data, "train"), info.classes, batch_size=4
    )
    assert found == []
    assert [image["id"] for image in truth["images"]] == [100, 101, 102, 103, 104, 105]
    assert truth["images"][1] == {"id": 101, "height": 96, "width": 64}
    assert truth["categories"] == [
        {"id": 7, "name": "red"},
        {"id": 3, "name": "green"},
        {"id": 12, "name": "blue"},
    ]
    # Green, rows 30 to 78 and columns 10 to 42.
    second = truth["annotations"][1]
    assert (second["id"], second["image_id"], second["category_id"], second["area"]) == (
        2,
        101,
        3,
        pytest.approx(1536),
    )
    assert second["bbox"] == pytest.approx([10, 30, 32, 48], abs=1e-4)
    assert [row["image_id"] for row in truth["annotations"]] == [100, 101, 102, 103, 103, 105, 105]


def test_a_detector_that_knows_everything_scores_one(tiny_data):
    info = dataset_json.read_dataset(tiny_data)
    split = pipeline.read_examples(tiny_data, "train")
    answers = {
        example["image"].tobytes(): [
            (box, 0.9, label)
            for box, label in zip(example["boxes"], example["labels"], strict=True)
        ]
        for example in split.as_numpy_iterator()
    }
    sizes = []

    def detect(images):
        sizes.append(len(images))
        return [detections(*answers[image.tobytes()]) for image in images]

    truth, found = evaluator.run_detector(detect, split, info.classes, batch_size=4)
    assert sizes == [4, 2]
    assert len(found) == 7
    content = evaluator.metrics(truth, found)
    assert content["coco"]["AP"] == pytest.approx(1)
    assert content["voc"] == {"AP50_11point": 1, "AP50_all": 1}
    assert content["per_class"]["green"] == pytest.approx(
        {"AP": 1, "AP50": 1, "AP50_11point": 1, "AP50_all": 1}
    )


@pytest.mark.parametrize(
    ("sources", "ids"),
    [
        (("17", "5"), [17, 5]),
        (("000017", "5"), [17, 5]),
        (("17", "b"), [1, 2]),
        (("", ""), [1, 2]),
        (("5", "5"), [1, 2]),
        (("5", "05"), [1, 2]),
        (("\u00b2", "5"), [1, 2]),
    ],
)
def test_ids_of_pictures(sources, ids):
    truth, _ = evaluator.run_detector(nothing, examples(*sources), CLASSES)
    assert [image["id"] for image in truth["images"]] == ids


def test_latency_calls_one_picture_at_a_time():
    calls = []

    def detect(images):
        calls.append([int(image) for image in images])

    assert evaluator.latency_ms(detect, [0, 1], repeats=2) >= 0
    assert calls == [[0], [1], [0], [1], [0]]
