import json

import numpy as np
import pytest
import tensorflow as tf
from detector_output import CLASSES, detections

from ssd_tf.data import dataset_json, split_examples
from ssd_tf.evaluation import coco_results, evaluator, latency
from ssd_tf.inference.detector import Stages


def examples(*names):
    """Examples of 40 x 80 without objects, their source ids these names."""
    count = len(names)
    return tf.data.Dataset.from_tensor_slices(
        {
            "image": np.zeros((count, 40, 80, 3), np.uint8),
            "boxes": np.zeros((count, 0, 4), np.float32),
            "labels": np.zeros((count, 0), np.int32),
            "crowd": np.zeros((count, 0), bool),
            "difficult": np.zeros((count, 0), bool),
            "area": np.zeros((count, 0), np.float32),
            "source_id": [name.encode() for name in names],
            "file_name": [f"folder/{name}.png".encode() for name in names],
        }
    )


def find_nothing(images):
    return [detections() for _ in images]


def test_ground_truth_of_a_data_set(tiny_data):
    info = dataset_json.read_dataset(tiny_data)
    ground_truth, _, found = evaluator.run_detector(
        find_nothing, split_examples.read_examples(tiny_data, "train"), info.classes, batch_size=4
    )
    assert len(found.scores) == 0
    assert [image["id"] for image in ground_truth["images"]] == [100, 101, 102, 103, 104, 105]
    assert ground_truth["images"][1] == {
        "id": 101,
        "file_name": "1.png",
        "height": 96,
        "width": 64,
        "source_id": "101",
    }
    assert ground_truth["categories"] == [
        {"id": 7, "name": "red"},
        {"id": 3, "name": "green"},
        {"id": 12, "name": "blue"},
    ]
    # Green, rows 30 to 78 and columns 10 to 42.
    second = ground_truth["annotations"][1]
    assert (second["id"], second["image_id"], second["category_id"]) == (2, 101, 3)
    assert second["area"] == pytest.approx(1536)
    assert second["bbox"] == pytest.approx([10, 30, 32, 48], abs=1e-4)
    image_ids = [row["image_id"] for row in ground_truth["annotations"]]
    assert image_ids == [100, 101, 102, 103, 103, 105, 105]


def test_a_perfect_detector_scores_one(tiny_data):
    info = dataset_json.read_dataset(tiny_data)
    split = split_examples.read_examples(tiny_data, "train")
    answers = {
        example["image"].tobytes(): [
            (box, 0.9, label)
            for box, label in zip(example["boxes"], example["labels"], strict=True)
        ]
        for example in split.as_numpy_iterator()
    }
    batch_sizes = []

    def detect(images):
        batch_sizes.append(len(images))
        return [detections(*answers[image.tobytes()]) for image in images]

    _, truth, found = evaluator.run_detector(detect, split, info.classes, batch_size=4)
    assert batch_sizes == [4, 2]
    assert len(found.scores) == 7
    content = evaluator.metrics(truth, found)
    assert content["coco"]["AP"] == pytest.approx(1)
    assert content["voc"] == {"AP50_11point": 1, "AP50_all": 1}
    assert content["per_class"]["green"] == pytest.approx(
        {"AP": 1, "AP50": 1, "AP50_11point": 1, "AP50_all": 1}
    )


@pytest.mark.parametrize(
    ("names", "ids"),
    [(("17", "5"), [17, 5]), (("2", "a"), [1, 2]), (("5", "05"), [1, 2])],
)
def test_detections_join_to_their_images(names, ids, tmp_path):
    def detect(images):
        return [detections(([0.1, 0.2, 0.5, 0.3], 0.75, 2)) for _ in images]

    ground_truth, truth, found = evaluator.run_detector(detect, examples(*names), CLASSES)
    path = tmp_path / "detections.json"
    coco_results.write_results(path, found, ground_truth, truth)
    results = json.loads(path.read_text())
    assert results[0]["category_id"] == 3
    assert results[0]["bbox"] == pytest.approx([16, 4, 8, 16])
    files = [f"folder/{name}.png" for name in names]
    for rows, key in ((ground_truth["images"], "id"), (results, "image_id")):
        assert [row[key] for row in rows] == ids
        assert [row["file_name"] for row in rows] == files
        assert [row["source_id"] for row in rows] == list(names)


def test_latency_is_measured_by_stage_one_image_at_a_time_and_in_batches():
    calls = []

    def preprocess(images):
        calls.append(len(images))
        return images

    stages = Stages(preprocess, lambda batch: batch, lambda outputs: outputs)
    times, rates = latency.measure_latency(stages, [0, 1], repeats=8)
    assert calls == [1] * (3 + 8) + [8] * (3 + 3)
    assert sorted(times) == ["network", "p90", "per_image", "postprocessing", "preprocessing"]
    assert 0 <= times["per_image"] <= times["p90"]
    assert rates["batch_1"] == pytest.approx(1000 / times["per_image"])
    assert latency.measure_latency(stages, []) == ({}, {})
