"""Precision, recall and F1 by the score, and the thresholds that are chosen from them.

Shapes: `n` detections, `C` categories, `T` scores.
"""

import typing

import numpy as np

from ssd_tf.evaluation.tables import SCORE_ROUNDING
from ssd_tf.inference.thresholds import Thresholds

SCORES = np.arange(100) / 100
# The objects of all classes that are counted with those of a class, so that a class with few of
# them has nearly the threshold of all. Of 5 to 100, 20 gave the best F1 on other images.
_PRIOR_OBJECTS = 20
_ROUNDING = 1e-9  # of fractions of weighted counts


class Counts(typing.NamedTuple):
    """What was detected from each of SCORES on. found, right: [T]. num_objects: a number."""

    found: np.ndarray
    right: np.ndarray
    num_objects: float


def count(scores, is_right, num_objects) -> Counts:
    """The Counts of detections, scores [n] and is_right [n], of a number of objects."""
    return Counts(_count_above(scores), _count_above(scores[is_right]), num_objects)


def make_curves(counts: Counts) -> dict:
    """The curves of counts with objects.

    {"score" [T], "precision" [T], "recall" [T], "f1" [T], "best": {"score", "precision", "recall",
    "f1"}}. Precision is 1 if nothing is detected; best is a score with the largest F1, None if no
    detection is right.
    """
    found, right, num_objects = counts
    precision = np.where(found > 0, right / np.maximum(found, 1e-9), 1.0)
    f1 = 2 * right / (found + num_objects)
    curves = {"score": SCORES, "precision": precision, "recall": right / num_objects, "f1": f1}
    curves = {name: values.tolist() for name, values in curves.items()}
    best = at_score(curves, SCORES[_middle_of_best(f1)]) if right.any() else None
    return {**curves, "best": best}


def at_score(curves, score) -> dict:
    """The {"score", "precision", "recall", "f1"} of curves at a score, the next of SCORES."""
    index = min(int(np.searchsorted(SCORES, score)), len(SCORES) - 1)
    values = {name: curves[name][index] for name in ("precision", "recall", "f1")}
    return {"score": float(score), **values}


def choose(class_counts: dict[str, Counts], precision=None) -> Thresholds | None:
    """Choose a threshold for each class; None if no detection is right.

    precision: None for the best F1, else the lowest score whose precision is at least that, or, if
    there is none, the score with the highest precision. Beside those of the class, each threshold
    counts detections and objects of all classes, as many as there are to _PRIOR_OBJECTS objects.
    """
    of_all = add(class_counts.values())
    if not of_all.right.any():
        return None
    prior = _scale(of_all, _PRIOR_OBJECTS / of_all.num_objects)
    classes = {
        name: _choose_score(add([counts, prior]), precision)
        for name, counts in class_counts.items()
    }
    rule = "best F1" if precision is None else f"precision {precision:g}"
    return Thresholds(_choose_score(of_all, precision), classes, rule)


def add(counts: typing.Iterable[Counts]) -> Counts:
    """The Counts of all detections and objects together."""
    nothing = Counts(np.zeros(len(SCORES)), np.zeros(len(SCORES)), 0)
    found, right, num_objects = zip(nothing, *counts, strict=True)
    return Counts(np.sum(found, axis=0), np.sum(right, axis=0), sum(num_objects))


def _scale(counts, weight) -> Counts:
    return Counts(counts.found * weight, counts.right * weight, counts.num_objects * weight)


def may_choose(known, split) -> bool:
    """Whether new thresholds are chosen on a split, instead of using the model's.

    known: the model's Thresholds, or None. Those of the split `val` hold for the others: chosen on
    the images of a test, they would make its result look better than it is.
    """
    return known is None or split == "val" or known.split != "val"


def _choose_score(counts, precision) -> float:
    """A score at which some detection is right."""
    curves = make_curves(counts)
    if precision is None:
        return curves["best"]["score"]
    # Where nothing is right any more, precision is 0 or, of nothing, 1.
    precisions = np.where(counts.right > 0, curves["precision"], -1)
    is_enough = precisions >= min(precision, precisions.max()) - _ROUNDING
    return curves["score"][int(np.argmax(is_enough))]


def _middle_of_best(values):
    """The index in the middle of the first run of maxima, farthest from smaller values."""
    is_best = values >= values.max() - _ROUNDING
    first = int(np.argmax(is_best))
    lower = np.flatnonzero(~is_best[first:])
    length = lower[0] if len(lower) else len(values) - first
    return first + (int(length) - 1) // 2


def _count_above(scores):
    """The number of scores that are at least each of SCORES [T]."""
    return len(scores) - np.searchsorted(np.sort(scores), SCORES - SCORE_ROUNDING)
