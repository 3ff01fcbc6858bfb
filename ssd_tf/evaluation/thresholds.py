"""Precision, recall and F1 of the detections above each score, and the best score.

Shapes: `N` objects of a split, `n` detections of a split, `T` scores.
"""

import numpy as np

from ssd_tf.evaluation.matches import IGNORED, RIGHT, Matches
from ssd_tf.evaluation.tables import SCORE_ROUNDING, Found, Truth

SCORES = np.arange(100) / 100


def threshold_curves(truth: Truth, found: Found, matches: Matches) -> tuple[dict, dict]:
    """The curves over all classes, and {class name: its curves} of the classes with objects.

    Curves: {"score" [T], "precision" [T], "recall" [T], "f1" [T], "best": {"score", "precision",
    "recall", "f1"}}. Precision is 1 where nothing is detected; best is a score with the largest F1,
    None if no detection is right.
    Over all classes detections and objects are counted together, so frequent classes weigh more.
    None instead of curves without objects.
    """
    counts = matches.status != IGNORED
    is_object = ~truth.ignored
    per_class = {}
    for category, name in enumerate(truth.names):
        rows = counts & (found.category == category)
        num_objects = int(np.sum(is_object & (truth.category == category)))
        if num_objects:
            per_class[name] = _curves(found.scores[rows], matches.status[rows], num_objects)
    if not per_class:
        return None, {}
    overall = _curves(found.scores[counts], matches.status[counts], int(np.sum(is_object)))
    return overall, per_class


def _curves(scores, status, num_objects):
    num_found = _count_above(scores)
    num_right = _count_above(scores[status == RIGHT])
    precision = np.where(num_found > 0, num_right / np.maximum(num_found, 1), 1.0)
    recall = num_right / num_objects
    f1 = 2 * num_right / (num_found + num_objects)
    curves = {"score": SCORES, "precision": precision, "recall": recall, "f1": f1}
    best = _middle_of_best(f1)
    return {
        **{name: values.tolist() for name, values in curves.items()},
        "best": {name: float(values[best]) for name, values in curves.items()}
        if num_right.any()
        else None,
    }


def _middle_of_best(values):
    """The middle of the first run of largest values: farthest from where they get smaller."""
    first = int(np.argmax(values))
    lower = np.flatnonzero(values[first:] < values[first])
    length = lower[0] if len(lower) else len(values) - first
    return first + (int(length) - 1) // 2


def _count_above(scores):
    """How many scores are at least each of SCORES [T]."""
    return len(scores) - np.searchsorted(np.sort(scores), SCORES - SCORE_ROUNDING)
