"""Precision, recall and F1 by the score, and the thresholds that are chosen from them.

Shapes: `n` detections, `C` categories, `T` scores.
"""

import numpy as np

from ssd_tf.evaluation.tables import SCORE_ROUNDING, Truth
from ssd_tf.inference.thresholds import Thresholds

SCORES = np.arange(100) / 100
# A threshold chosen on fewer objects of a class is chance: it has the one over all classes instead.
MIN_OBJECTS = 10


def make_curves(scores, is_right, num_objects) -> dict:
    """The curves of detections, scores [n] and is_right [n], of a number of objects.

    {"score" [T], "precision" [T], "recall" [T], "f1" [T], "best": {"score", "precision", "recall",
    "f1"}}. Precision is 1 if nothing is detected; best is a score with the largest F1, None if no
    detection is right.
    """
    num_found = _count_above(scores)
    num_right = _count_above(scores[is_right])
    precision = np.where(num_found > 0, num_right / np.maximum(num_found, 1), 1.0)
    recall = num_right / num_objects
    f1 = 2 * num_right / (num_found + num_objects)
    curves = {"score": SCORES, "precision": precision, "recall": recall, "f1": f1}
    curves = {name: values.tolist() for name, values in curves.items()}
    best = at_score(curves, SCORES[_middle_of_best(f1)]) if num_right.any() else None
    return {**curves, "best": best}


def at_score(curves, score) -> dict:
    """The {"score", "precision", "recall", "f1"} of curves at a score, the next of SCORES."""
    index = min(int(np.searchsorted(SCORES, score)), len(SCORES) - 1)
    values = {name: curves[name][index] for name in ("precision", "recall", "f1")}
    return {"score": float(score), **values}


def choose(truth: Truth, curves, class_curves, precision=None) -> Thresholds | None:
    """Choose a threshold for each class; None if no detection is right.

    curves, class_curves: as `analysis.threshold_curves` returns them. precision: None for the best
    F1, else the lowest score whose precision is at least that, or, if there is none, the score with
    the highest precision. A class with fewer than MIN_OBJECTS objects, or without a right
    detection, has the threshold of all classes together.
    """
    overall = curves and _choose_score(curves, precision)
    if overall is None:
        return None
    counts = np.bincount(truth.category[~truth.ignored], minlength=len(truth.names))
    classes = {}
    from_all = []
    for name, count in zip(truth.names, counts, strict=True):
        score = _choose_score(class_curves[name], precision) if count >= MIN_OBJECTS else None
        if score is None:
            from_all.append(name)
            score = overall
        classes[name] = score
    rule = "best F1" if precision is None else f"precision {precision:g}"
    return Thresholds(overall, classes, from_all, rule)


def may_choose(known, split) -> bool:
    """Whether new thresholds are chosen on a split, instead of using the model's.

    known: the model's Thresholds, or None. Those of the split `val` hold for the others: chosen on
    the images of a test, they would make its result look better than it is.
    """
    return known is None or split == "val" or known.split != "val"


def _choose_score(curves, precision) -> float | None:
    if curves["best"] is None:
        return None
    if precision is None:
        return curves["best"]["score"]
    # Where nothing is right any more, precision is 0 or, of nothing, 1.
    precisions = np.where(np.array(curves["recall"]) > 0, curves["precision"], -1)
    is_enough = precisions >= min(precision, precisions.max())
    return curves["score"][int(np.argmax(is_enough))]


def _middle_of_best(values):
    """The index in the middle of the first run of maxima, farthest from smaller values."""
    first = int(np.argmax(values))
    lower = np.flatnonzero(values[first:] < values[first])
    length = lower[0] if len(lower) else len(values) - first
    return first + (int(length) - 1) // 2


def _count_above(scores):
    """The number of scores that are at least each of SCORES [T]."""
    return len(scores) - np.searchsorted(np.sort(scores), SCORES - SCORE_ROUNDING)
