"""Everything that explains the metrics of a split: thresholds, errors, slices, images.

Shapes: `N` objects of a split, `n` detections of a split.
"""

import typing

import numpy as np

from ssd_tf.evaluation import errors, slices, thresholds
from ssd_tf.evaluation.matches import (
    IGNORED,
    RIGHT,
    WRONG,
    Matches,
    evaluate_at_half,
    match,
    without_ignored,
)
from ssd_tf.evaluation.tables import SCORE_ROUNDING, Found, Truth

# Without a right detection no score is best; detect.py's default.
_DEFAULT_SCORE = 0.5


class Analysis(typing.NamedTuple):
    """score: with the best F1 over all classes; what is found and missed below is meant at it.

    thresholds, class_thresholds: as `threshold_curves` returns them. image_counts: {"right",
    "wrong", "missed"} of each image. is_found: [N] bool. The others: as their functions say.
    """

    truth: Truth
    found: Found
    matches: Matches
    score: float
    thresholds: dict | None
    class_thresholds: dict
    errors: dict
    confusion: np.ndarray
    calibration: dict
    by_size: list[dict]
    by_aspect: list[dict]
    is_found: np.ndarray
    image_counts: dict


def analyse(truth: Truth, found: Found) -> Analysis:
    """Analyse the detections of a split."""
    matches = match(truth, found)
    curves, class_curves = thresholds.threshold_curves(truth, found, matches)
    best = curves and curves["best"]
    score = best["score"] if best else _DEFAULT_SCORE
    split, confusion, calibrated = _analyse_errors(*without_ignored(truth, found, matches), score)
    shown = found.scores >= score - SCORE_ROUNDING
    is_found = matches.partner >= 0
    is_found[is_found] = shown[matches.partner[is_found]]
    return Analysis(
        truth,
        found,
        matches,
        score,
        curves,
        class_curves,
        split,
        confusion,
        calibrated,
        slices.ap_by_size(truth, found),
        slices.ap_by_aspect(truth, found),
        is_found,
        _count_by_image(truth, found, matches.status, shown, is_found),
    )


def _analyse_errors(truth, found, score):
    """A function of its own, so that the matches are freed before the next ones are made."""
    matched = evaluate_at_half(truth, found)
    return (
        errors.error_split(matched),
        errors.confusion_matrix(matched, score),
        errors.calibration(matched),
    )


def summary(analysis: Analysis) -> dict:
    """The part of an analysis that metrics.json keeps."""
    return {
        "thresholds": analysis.thresholds,
        "errors": analysis.errors,
        "calibration_error": analysis.calibration["error"],
        "by_size": analysis.by_size,
        "by_aspect": analysis.by_aspect,
    }


def class_rows(per_class: dict, analysis: Analysis) -> list[dict]:
    """One row for each class, as in per_class.csv; classes without objects have counts only.

    per_class: as `evaluator.metrics` returns it.
    """
    truth = analysis.truth
    counted = analysis.matches.status != IGNORED
    rows = []
    for category, name in enumerate(truth.names):
        num_objects = int(np.sum((truth.category == category) & ~truth.ignored))
        num_found = int(np.sum((analysis.found.category == category) & counted))
        best = analysis.class_thresholds.get(name, {}).get("best") or {}
        rows.append(
            {
                "class": name,
                "objects": num_objects,
                "detections": num_found,
                **{key: per_class.get(name, {}).get(key) for key in _CLASS_KEYS},
                "best_score": best.get("score"),
                **{key: best.get(key) for key in ("precision", "recall", "f1")},
            }
        )
    return rows


_CLASS_KEYS = ("AP", "AP50", "AP50_11point", "AP50_all")


def _count_by_image(truth, found, status, shown, is_found):
    num_images = len(truth.image_ids)

    def count(images):
        return np.bincount(images, minlength=num_images)

    return {
        "right": count(found.image[shown & (status == RIGHT)]),
        "wrong": count(found.image[shown & (status == WRONG)]),
        "missed": count(truth.image[~truth.ignored & ~is_found]),
    }
