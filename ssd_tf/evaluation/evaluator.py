"""Run a detector over a split: COCO ground truth, COCO results and their metrics."""

import itertools
import time

import numpy as np

from ssd_tf.evaluation import coco_format
from ssd_tf.evaluation.coco_metrics import coco_metrics
from ssd_tf.evaluation.voc_metrics import voc_metrics

_WARM_UP_CALLS = 3


def metrics(ground_truth: dict, results: list[dict]) -> dict:
    """COCO instances and results -> {"coco", "voc", "per_class"} as in metrics.json."""
    coco, coco_per_class = coco_metrics(ground_truth, results)
    voc, voc_per_class = voc_metrics(ground_truth, results)
    per_class = {}
    for category in ground_truth["categories"]:
        name = category["name"]
        values = {**coco_per_class.get(name, {}), **voc_per_class.get(name, {})}
        if values:
            per_class[name] = values
    return {"coco": coco, "voc": voc, "per_class": per_class}


def run_detector(detect, examples, classes, batch_size=1) -> tuple[dict, list[dict]]:
    """Run a detector over Examples (decoded, in file order) -> COCO instances, COCO results.

    detect: a list of images -> a list of {"boxes" [n, 4] normalised, "scores" [n], "labels" [n]}.
    classes: those of dataset.json. Image ids follow `coco_format.image_ids` of the source_ids.
    """
    truths = []
    detections = []
    stream = iter(examples.as_numpy_iterator())
    while batch := list(itertools.islice(stream, batch_size)):
        detections += detect([example["image"] for example in batch])
        truths += [coco_format.make_image_truth(example) for example in batch]
    ground_truth = coco_format.make_instances(truths, classes)
    results = [
        row
        for image, of_image in zip(ground_truth["images"], detections, strict=True)
        for row in coco_format.make_results(image, of_image, classes)
    ]
    return ground_truth, results


def latency_ms(detect, images, repeats=20) -> float:
    """Median milliseconds per image, called with one image at a time, after a warm-up."""
    times = []
    for index in range(_WARM_UP_CALLS + repeats):
        image = images[index % len(images)]
        start = time.perf_counter()
        detect([image])
        times.append(time.perf_counter() - start)
    return float(np.median(times[_WARM_UP_CALLS:]) * 1000)
