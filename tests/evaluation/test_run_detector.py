import json
import types

import numpy as np
import pytest
import tensorflow as tf
from detector_output import CLASSES, detections

from ssd_tf.data import dataset_json, split_examples
from ssd_tf.evaluation import coco_instances, coco_results, metrics
from ssd_tf.evaluation import run_detector as module
from ssd_tf.evaluation.run_detector import match_labels, measure_latency, run_detector
from ssd_tf.inference.detections import Detections
from ssd_tf.inference.detector import Detector, Stages

IMAGE = np.zeros((4, 6, 3), np.uint8)
BOXES = np.array([[0.1, 0.1, 0.2, 0.2], [0.3, 0.3, 0.4, 0.4], [0.5, 0.5, 0.6, 0.6]])


def examples(*names, boxes=(), **flags):
    """Examples of 40 x 80, their source ids these names, each with these boxes of green objects."""
    objects = {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.full(len(boxes), 2, np.int32),
        "crowd": np.full(len(boxes), flags.get("crowd", False)),
        "difficult": np.full(len(boxes), flags.get("difficult", False)),
        "area": np.full(len(boxes), 600, np.float32),
    }
    count = len(names)
    columns = {key: np.repeat(values[None], count, 0) for key, values in objects.items()}
    columns["image"] = np.zeros((count, 40, 80, 3), np.uint8)
    columns["source_id"] = list(names)
    columns["file_name"] = [
        b"folder/" + (name if isinstance(name, bytes) else name.encode()) + b".png"
        for name in names
    ]
    return tf.data.Dataset.from_tensor_slices(columns)


def find_nothing(images):
    return [detections() for _ in images]


def test_ground_truth_of_a_data_set(tiny_data):
    info = dataset_json.read_dataset(tiny_data)
    truth, found = run_detector(
        find_nothing, split_examples.read_examples(tiny_data, "train"), info.classes, batch_size=4
    )
    ground_truth = coco_instances.make_instances(truth)
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

    truth, found = run_detector(detect, split, info.classes, batch_size=4)
    assert batch_sizes == [4, 2]
    assert len(found.scores) == 7
    content = metrics.measure(truth, found)
    assert content["coco"]["AP"] == pytest.approx(1)
    assert content["voc"] == {"AP50_11point": 1, "AP50_all": 1}
    assert content["per_class"]["green"] == pytest.approx(
        {"AP": 1, "AP50": 1, "AP50_11point": 1, "AP50_all": 1}
    )


def test_instances_of_objects():
    truth, _ = run_detector(
        find_nothing,
        examples("b", "2", boxes=[[0.1, 0.2, 0.5, 0.3]], crowd=True, difficult=True),
        CLASSES,
    )
    content = coco_instances.make_instances(truth)
    assert content["images"][1] == {
        "id": 2,
        "file_name": "folder/2.png",
        "height": 40,
        "width": 80,
        "source_id": "2",
    }
    row = {"category_id": 3, "bbox": pytest.approx([16, 4, 8, 16], abs=1e-4), "area": 600}
    row |= {"iscrowd": 1, "difficult": 1}
    assert content["annotations"] == [
        {"id": 1, "image_id": 1, **row},
        {"id": 2, "image_id": 2, **row},
    ]
    assert content["categories"] == [{"id": 7, "name": "red"}, {"id": 3, "name": "green"}]
    assert json.loads(json.dumps(content)) == content
    np.testing.assert_equal(coco_instances.make_truth(content)._asdict(), truth._asdict())


@pytest.mark.parametrize(("score", "kept"), [(1 + 5e-7, 1), (-5e-7, 0)])
def test_rounding_does_not_lead_scores_out_of_0_to_1(score, kept):
    def detect(images):
        return [detections((BOXES[0], score, 1)) for _ in images]

    _, found = run_detector(detect, examples("1"), CLASSES)
    assert found.scores.tolist() == [kept]


def test_names_that_are_not_unicode():
    truth, _ = run_detector(find_nothing, examples(b"\xff"), CLASSES)
    (row,) = truth.image_rows
    assert row["file_name"].encode("utf-8", "surrogateescape") == b"folder/\xff.png"
    content = coco_instances.make_instances(truth)
    assert json.loads(json.dumps(content)) == content


@pytest.mark.parametrize(
    ("names", "ids"),
    [(("17", "5"), [17, 5]), (("2", "a"), [1, 2]), (("5", "05"), [1, 2])],
)
def test_detections_join_to_their_images(names, ids, tmp_path):
    def detect(images):
        return [detections(([0.1, 0.2, 0.5, 0.3], 0.75, 2)) for _ in images]

    truth, found = run_detector(detect, examples(*names), CLASSES)
    path = tmp_path / "detections.json"
    coco_results.write_results(path, found, truth)
    results = json.loads(path.read_text())
    assert results[0]["category_id"] == 3
    assert results[0]["bbox"] == pytest.approx([16, 4, 8, 16])
    files = [f"folder/{name}.png" for name in names]
    images = coco_instances.make_instances(truth)["images"]
    for rows, key in ((images, "id"), (results, "image_id")):
        assert [row[key] for row in rows] == ids
        assert [row["file_name"] for row in rows] == files
        assert [row["source_id"] for row in rows] == list(names)


def test_images_are_fetched_by_the_index_of_their_sorted_id():
    numbered = examples("17", "5", "11").enumerate()
    split = numbered.map(lambda i, row: row | {"image": row["image"] + tf.cast(i, tf.uint8)})
    truth, _ = run_detector(find_nothing, split, CLASSES)
    images = module.fetch_images(split, truth, {0, 2})
    assert {index: image.max() for index, image in images.items()} == {0: 1, 2: 0}


def detector(classes):
    """Finds an object of each of the labels 1, 2 and 3."""

    found = (BOXES, np.array([0.9, 0.8, 0.7]), np.array([1, 2, 3]))
    stages = Stages(
        lambda images: images, lambda batch: batch, lambda batch: [found for _ in batch]
    )
    return Detector(stages, "test", classes)


def test_classes_are_matched_by_name():
    detect = match_labels(detector(["dog", "cat", "owl"]), ["cat", "bat", "dog"])
    (found,) = detect([IMAGE])
    assert list(found.labels) == [3, 1]
    assert found.scores.tolist() == [0.9, 0.8]
    np.testing.assert_array_equal(found.boxes, BOXES[:2])


def test_equal_names():
    (found,) = match_labels(detector(["dog", "cat", "owl"]), ["dog", "cat", "owl"])([IMAGE])
    assert list(found.labels) == [1, 2, 3]


def test_labels_beyond_the_names_are_dropped():
    (found,) = match_labels(detector(["cat", "dog"]), ["dog", "cat"])([IMAGE])
    assert list(found.labels) == [2, 1]


@pytest.mark.parametrize("low", [0, -1, -5])
def test_labels_below_1_are_never_the_last_names(low):
    found = Detections(BOXES, np.array([0.9, 0.8, 0.7]), np.array([low, 1, 2]))
    assert module._relabel(found, [3, 1]).labels.tolist() == [3, 1]


def test_no_class_in_common():
    with pytest.raises(
        ValueError,
        match=r"no class in common: the model has owl, ..., the data has cat, dog, ...",
    ):
        match_labels(detector(["owl"]), ["cat", "dog"])


def test_a_model_without_class_names():
    with pytest.raises(ValueError, match="give them with --labels FILE"):
        match_labels(detector(None), ["cat"])


def test_no_latency_without_images():
    assert measure_latency([], []) == ({}, {})


def test_rates_and_medians(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def stage(seconds_per_call, seconds_per_image):
        def run(images):
            now[0] += seconds_per_call + seconds_per_image * len(images)
            return images

        return run

    # 2 ms, 7 ms and 1 ms for one image; 16 ms, 28 ms and 8 ms for eight.
    stages = [stage(0, 0.002), stage(0.004, 0.003), stage(0, 0.001)]
    times, rates = measure_latency(stages, ["a", "b", "c"])
    assert times == pytest.approx(
        {"per_image": 10, "p90": 10, "preprocessing": 2, "network": 7, "postprocessing": 1}
    )
    assert rates == pytest.approx({"batch_1": 100, "batch_8": 8 / 0.052})


def test_latency_is_measured_by_stage_one_image_at_a_time_and_in_batches():
    calls = []

    def preprocess(images):
        calls.append(len(images))
        return images

    stages = Stages(preprocess, lambda batch: batch, lambda outputs: outputs)
    times, rates = measure_latency(stages, [0, 1], repeats=8)
    assert calls == [1] * (3 + 8) + [8] * (3 + 3)
    assert sorted(times) == ["network", "p90", "per_image", "postprocessing", "preprocessing"]
    assert 0 <= times["per_image"] <= times["p90"]
    assert rates["batch_1"] == pytest.approx(1000 / times["per_image"])
