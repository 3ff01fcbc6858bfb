"""Run a detector over a split: COCO ground truth, detections and their metrics."""

import itertools

import numpy as np

from ssd_tf.evaluation import coco_instances
from ssd_tf.evaluation.coco_metrics import coco_metrics
from ssd_tf.evaluation.tables import SCORE_TOLERANCE, Found, Truth, make_truth, places
from ssd_tf.evaluation.voc_metrics import voc_metrics
from ssd_tf.inference.detections import to_xywh_pixels


def metrics(truth: Truth, found: Found) -> dict:
    """{"coco", "voc", "per_class", "precision_at_recall"} as in metrics.json."""
    coco, coco_per_class, curves = coco_metrics(truth, found)
    voc, voc_per_class = voc_metrics(truth, found)
    per_class = {}
    for name in truth.names:
        values = {**coco_per_class.get(name, {}), **voc_per_class.get(name, {})}
        if values:
            per_class[name] = values
    return {"coco": coco, "voc": voc, "per_class": per_class, "precision_at_recall": curves}


def run_detector(detect, examples, classes, batch_size=1) -> tuple[dict, Truth, Found]:
    """Run a detector over Examples (decoded, in file order) -> COCO instances, and tables.

    detect: a list of images -> a list of Detections.
    classes: those of dataset.json. Image ids follow `coco_instances.image_ids` of the source_ids.
    """
    truths = []
    columns = ([], [], [])
    stream = iter(examples.as_numpy_iterator())
    while batch := list(itertools.islice(stream, batch_size)):
        detections = detect([example["image"] for example in batch])
        for example, of_image in zip(batch, detections, strict=True):
            truths.append(coco_instances.make_image_truth(example))
            _check_finite(of_image, truths[-1].file_name)
            boxes = to_xywh_pixels(of_image.boxes, truths[-1].image_hw)
            for column, values in zip(
                columns, (of_image.labels, boxes, of_image.scores), strict=True
            ):
                column.append(values)
    ground_truth = coco_instances.make_instances(truths, classes)
    truth = make_truth(ground_truth)
    ids = [row["id"] for row in ground_truth["images"]]
    return ground_truth, truth, _make_found(truth, ids, classes, *columns)


def fetch_images(examples, ground_truth, truth: Truth, indices) -> dict:
    """{index into truth.image_ids: its image, uint8 [H, W, 3]}, read from the Examples again."""
    place = places(truth.image_ids)
    wanted = {}
    for example, row in zip(examples.as_numpy_iterator(), ground_truth["images"], strict=False):
        if place[row["id"]] in indices:
            wanted[place[row["id"]]] = example["image"]
        if len(wanted) == len(indices):
            break
    return wanted


def _make_found(truth, image_ids, classes, labels, boxes, scores):
    """The columns of each image -> Found."""
    image_place = places(truth.image_ids)
    category_place = places(truth.category_ids)
    category_of = np.array([category_place[entry["id"]] for entry in classes], np.int64)
    images = np.array([image_place[image_id] for image_id in image_ids], np.int64)
    counts = [len(values) for values in scores]
    return Found(
        np.repeat(images, counts),
        category_of[_concatenate(labels, np.int64) - 1],
        _concatenate(boxes, float).reshape(-1, 4),
        np.clip(_concatenate(scores, float), 0, 1),
    )


def _check_finite(detections, file_name):
    """Raise ValueError for what no metric can rank or place."""
    scores = detections.scores
    is_right = (scores >= -SCORE_TOLERANCE) & (scores <= 1 + SCORE_TOLERANCE)
    if not is_right.all():
        raise ValueError(
            f"{file_name}: expected scores from 0 to 1 from the model, got {scores[~is_right][0]}"
        )
    if not np.isfinite(detections.boxes).all():
        raise ValueError(f"{file_name}: expected finite boxes from the model, got NaN or infinity")


def _concatenate(parts, dtype):
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)
