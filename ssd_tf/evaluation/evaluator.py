"""A detector over a split: COCO ground truth, COCO results and their numbers."""

import itertools
import time

import numpy as np

from ssd_tf.evaluation.coco_metrics import coco_metrics
from ssd_tf.evaluation.voc_metrics import voc_metrics


def metrics(ground_truth: dict, detections: list[dict]) -> dict:
    """COCO JSON and results -> {"coco", "voc", "per_class"} as in metrics.json."""
    coco, coco_classes = coco_metrics(ground_truth, detections)
    voc, voc_classes = voc_metrics(ground_truth, detections)
    names = [category["name"] for category in ground_truth["categories"]]
    per_class = {
        name: {**coco_classes.get(name, {}), **voc_classes.get(name, {})} for name in names
    }
    return {
        "coco": coco,
        "voc": voc,
        "per_class": {name: values for name, values in per_class.items() if values},
    }


def run_detector(detect, examples, classes, batch_size=1) -> tuple[dict, list[dict]]:
    """Runs a detector over Examples (image uint8 [H, W, 3], boxes, ...) -> COCO ground truth and COCO results.

    detect: list of images -> list of {"boxes" [n, 4] normalised, "scores" [n], "labels" [n]}. classes: dataset.json's.
    Ids of images are the records' source_id where all of them are numbers, else 1..n in file order.
    """
    truths, found = [], []
    stream = (example for example in examples.as_numpy_iterator())
    while batch := list(itertools.islice(stream, batch_size)):
        found += detect([example["image"] for example in batch])
        truths += [{**example, "image": example["image"].shape[:2]} for example in batch]
    ids = _image_ids([truth["source_id"].decode() for truth in truths])
    ground_truth = {
        "images": [
            {"id": i, "height": t["image"][0], "width": t["image"][1]}
            for i, t in zip(ids, truths, strict=True)
        ],
        "annotations": [
            a for i, t in zip(ids, truths, strict=True) for a in _annotations(i, t, classes)
        ],
        "categories": [{"id": entry["id"], "name": entry["name"]} for entry in classes],
    }
    for number, annotation in enumerate(ground_truth["annotations"], start=1):
        annotation["id"] = number
    pairs = zip(ids, truths, found, strict=True)
    return ground_truth, [
        row for i, t, f in pairs for row in coco_results(i, f, t["image"], classes)
    ]


def coco_results(image_id, found, image_hw, classes) -> list[dict]:
    """One picture's detections as rows of a COCO results file, boxes in its pixels, category ids the original ones."""
    boxes = to_xywh_pixels(found["boxes"], image_hw)
    return [
        {
            "image_id": image_id,
            "category_id": classes[label - 1]["id"],
            "bbox": box.tolist(),
            "score": float(score),
        }
        for box, label, score in zip(boxes, found["labels"], found["scores"], strict=True)
    ]


def to_xywh_pixels(boxes, image_hw):
    """Normalised corners [n, 4] -> x, y, width, height in pixels [n, 4]."""
    ymin, xmin, ymax, xmax = np.asarray(boxes, float).reshape(-1, 4).T
    height, width = image_hw
    return np.stack([xmin * width, ymin * height, (xmax - xmin) * width, (ymax - ymin) * height], 1)


def latency_ms(detect, images, repeats=20) -> float:
    """Median milliseconds of one picture through the detector, one at a time, after three to warm up."""
    times = []
    for index in range(repeats + 3):
        image = images[index % len(images)]
        start = time.perf_counter()
        detect([image])
        times.append(time.perf_counter() - start)
    return float(np.median(times[3:]) * 1000)


def _annotations(image_id, truth, classes):
    boxes = to_xywh_pixels(truth["boxes"], truth["image"])
    for row, box in enumerate(boxes):
        yield {
            "image_id": image_id,
            "category_id": classes[truth["labels"][row] - 1]["id"],
            "bbox": box.tolist(),
            "area": float(truth["area"][row]),
            "iscrowd": int(truth["crowd"][row]),
            "difficult": int(truth["difficult"][row]),
        }


def _image_ids(source_ids):
    numbers = {int(source) for source in source_ids if source.isdecimal()}
    if len(numbers) == len(source_ids):
        return [int(source) for source in source_ids]
    return list(range(1, len(source_ids) + 1))
