"""Run a detector over Examples: ground truth, detections by the classes of the data, latency."""

import dataclasses
import itertools
import time

import numpy as np
from absl import logging

from ssd_tf.data.records import to_text
from ssd_tf.evaluation.tables import SCORE_TOLERANCE, Found, Truth, concatenate
from ssd_tf.inference.detections import image_ids, to_xywh_pixels

_NO_FLAGS = np.zeros(0, bool)
# Labels, boxes, areas, crowd flags and difficult flags.
_NO_OBJECTS = (np.zeros(0, int), np.zeros((0, 4)), np.zeros(0), _NO_FLAGS, _NO_FLAGS)
# Labels, boxes and scores.
_NO_DETECTIONS = (np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
_WARM_UP_CALLS = 3
_BATCH = 8
_STAGES = ("preprocessing", "network", "postprocessing")


def run_detector(detect, examples, classes, batch_size=1) -> tuple[Truth, Found]:
    """Run a detector over Examples, decoded and in the order of the files.

    detect: a list of images -> a list of Detections. classes: those of dataset.json.
    Image ids follow `detections.image_ids` of the source_ids. Raises ValueError for scores outside
    0 to 1 and for boxes that are not finite.
    """
    images = []
    objects = []
    found = []
    stream = iter(examples.as_numpy_iterator())
    while batch := list(itertools.islice(stream, batch_size)):
        detections = detect([example["image"] for example in batch])
        for example, of_image in zip(batch, detections, strict=True):
            image_hw = example["image"].shape[:2]
            images.append(_image_row(example))
            boxes = to_xywh_pixels(example["boxes"], image_hw)
            others = (example[key] for key in ("area", "crowd", "difficult"))
            objects.append((example["labels"], boxes, *others))
            _check_finite(of_image, images[-1]["file_name"])
            boxes = to_xywh_pixels(of_image.boxes, image_hw)
            found.append((of_image.labels, boxes, of_image.scores))
    ids = image_ids([row["source_id"] for row in images])
    image_index = _index_of(ids)
    category_index = _index_of([entry["id"] for entry in classes])
    labels, *columns = concatenate(_NO_OBJECTS, objects)
    truth = Truth(
        {image_id: {"id": image_id, **row} for image_id, row in zip(ids, images, strict=True)},
        {entry["id"]: entry["name"] for entry in classes},
        np.repeat(image_index, [len(part[0]) for part in objects]),
        category_index[labels - 1],
        *columns,
    )
    labels, boxes, scores = concatenate(_NO_DETECTIONS, found)
    image = np.repeat(image_index, [len(part[0]) for part in found])
    return truth, Found(image, category_index[labels - 1], boxes, np.clip(scores, 0, 1))


def fetch_images(examples, truth: Truth, indices) -> dict:
    """{index into truth.image_ids: its image, uint8 [H, W, 3]}, read from the Examples again."""
    images = {}
    for index, example in zip(
        _index_of(list(truth.images)), examples.as_numpy_iterator(), strict=False
    ):
        if index in indices:
            images[int(index)] = example["image"]
        if len(images) == len(indices):
            break
    return images


def _image_row(example):
    """The row of COCO's `images` without its id, and with the source_id."""
    height, width = example["image"].shape[:2]
    return {
        "file_name": to_text(example["file_name"]),
        "height": height,
        "width": width,
        "source_id": to_text(example["source_id"]),
    }


def _index_of(ids):
    """The index of each id among the sorted ids."""
    return np.argsort(np.argsort(np.array(ids, int)))


def _check_finite(detections, file_name):
    scores = detections.scores
    is_right = (scores >= -SCORE_TOLERANCE) & (scores <= 1 + SCORE_TOLERANCE)
    if not is_right.all():
        raise ValueError(
            f"{file_name}: expected scores from 0 to 1 from the model, got {scores[~is_right][0]}"
        )
    if not np.isfinite(detections.boxes).all():
        raise ValueError(f"{file_name}: expected finite boxes from the model, got NaN or infinity")


def match_labels(detector, names):
    """The detector's `batch`, with the labels of the data set.

    names: class names of the data set, in label order. Classes are matched by name; detections of
    classes that the data lacks are dropped, and a warning names the unmatched classes on either
    side. Raises ValueError if the model has no class names, or none in common with the data.
    """
    if detector.classes is None:
        raise ValueError(
            "the model has no class names; give them with --labels FILE, one name per line"
        )
    if detector.classes != names:
        _report_unmatched(detector.classes, names)
    return relabel_batch(detector, names)


def relabel_batch(detector, names):
    """The detector's `batch`, with the labels of these names; it drops detections of others."""
    if detector.classes == names:
        return detector.batch
    label_of = [names.index(name) + 1 if name in names else 0 for name in detector.classes]

    def batch(images):
        return [_relabel(detections, label_of) for detections in detector.batch(images)]

    return batch


def _report_unmatched(model_names, names):
    model_names = [name for name in model_names if name is not None]
    only_model = [name for name in model_names if name not in names]
    if len(only_model) == len(model_names):
        raise ValueError(
            "the model and the data have no class in common: the model has "
            f"{', '.join(only_model[:5])}, ..., the data has {', '.join(names[:5])}, ..."
        )
    if only_model:
        logging.warning("classes of the model that the data lacks: %s", ", ".join(only_model))
    only_data = [name for name in names if name not in model_names]
    if only_data:
        logging.warning("classes of the data that the model lacks: %s", ", ".join(only_data))


def _relabel(detections, label_of):
    """Replace each label by the table; drop those of label 0 or beyond the table."""
    labels = np.array(
        [label_of[label - 1] if 1 <= label <= len(label_of) else 0 for label in detections.labels],
        np.int32,
    )
    return dataclasses.replace(detections, labels=labels).select(labels > 0)


def measure_latency(stages, images, repeats=30) -> tuple[dict, dict]:
    """Time a detector's Stages, with one image at a time and with batches of 8.

    images: uint8 [H, W, 3], read and decoded. Returns {"per_image", "p90", "preprocessing",
    "network", "postprocessing"} in milliseconds, the first and the last three medians, and
    {"batch_1", "batch_8"} in images per second; both empty without images.
    """
    if not images:
        return {}, {}
    times = _time(stages, [[image] for image in images], repeats)
    whole = times.sum(1)
    latency = {"per_image": float(np.median(whole)), "p90": float(np.percentile(whole, 90))}
    latency |= dict(zip(_STAGES, np.median(times, 0).tolist(), strict=True))
    batch = [images[index % len(images)] for index in range(_BATCH)]
    batch_ms = np.median(_time(stages, [batch], max(repeats // _BATCH, 3)).sum(1))
    rates = {"batch_1": 1000 / latency["per_image"], "batch_8": float(1000 * _BATCH / batch_ms)}
    return latency, rates


def _time(stages, batches, repeats):
    """Milliseconds of each stage [repeats, 3], after a warm-up."""
    rows = []
    for index in range(_WARM_UP_CALLS + repeats):
        value = batches[index % len(batches)]
        marks = [time.perf_counter()]
        for stage in stages:
            value = stage(value)
            marks.append(time.perf_counter())
        rows.append(np.diff(marks) * 1000)
    return np.array(rows[_WARM_UP_CALLS:])
