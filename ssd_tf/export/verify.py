"""Compare the detections of an exported model with those of the Keras model."""

import itertools
import os

import numpy as np

from ssd_tf.evaluation import evaluator, latency
from ssd_tf.evaluation.coco_metrics import coco_metrics


def measure(examples, classes, detector) -> dict:
    """{"AP", "AP50"} of a Detector on Examples. classes: those of dataset.json."""
    _, truth, found = evaluator.run_detector(detector.batch, examples, classes, batch_size=8)
    stats, _, _ = coco_metrics(truth, found)
    return {name: stats[name] for name in ("AP", "AP50")}


def time_once(detector, images) -> float:
    """Milliseconds per image, with the threads that TensorFlow takes."""
    measured, _ = latency.measure_latency(detector.stages, images)
    return measured["per_image"]


def time_by_threads(load, images) -> dict:
    """Milliseconds per image {"1": with one thread, "N": with one for each of N cores}.

    load: a function from a number of threads to a Detector.
    """
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    times = {}
    for num_threads in dict.fromkeys((1, num_cores)):
        times[str(num_threads)] = time_once(load(num_threads), images)
    return times


def compare(reference, other, images, score=0.35, partner_score=0.30, tolerance=0.01) -> dict:
    """Run two Detectors over images and pair their detections, in both directions.

    A detection that scores at least `score` on one side is paired if the other side has one of the
    same class that scores at least `partner_score` and whose corners all lie within `tolerance` of
    its own, in normalised coordinates. Returns {"images", "detections", "unpaired",
    "first_unpaired" (up to 20), "largest_corner_difference" (of the paired)}.
    """
    unpaired = []
    distances = []
    for index, image in enumerate(images):
        found = {"reference": reference(image), "other": other(image)}
        for side, opposite in itertools.permutations(found):
            for row in np.flatnonzero(found[side].scores >= score):
                distance = _nearest(found[side], row, found[opposite], partner_score)
                if distance <= tolerance:
                    distances.append(distance)
                else:
                    unpaired.append(_describe(index, side, found[side], row))
    return {
        "images": len(images),
        "detections": len(distances) + len(unpaired),
        "unpaired": len(unpaired),
        "first_unpaired": unpaired[:20],
        "largest_corner_difference": max(distances, default=0.0),
    }


def _nearest(detections, row, others, partner_score):
    """The largest corner difference to the nearest partner, infinite if there is none."""
    is_candidate = others.labels == detections.labels[row]
    is_candidate &= others.scores >= partner_score
    if not is_candidate.any():
        return np.inf
    differences = np.abs(others.boxes[is_candidate] - detections.boxes[row])
    return float(differences.max(1).min())


def _describe(index, side, detections, row):
    return {
        "image": index,
        "side": side,
        "box": np.round(detections.boxes[row].astype(float), 4).tolist(),
        "label": int(detections.labels[row]),
    }
