"""Explain the metrics of a split: thresholds, errors, slices, images.

Detections are matched to objects at an IoU of 0.5 by the rules of COCO.

Shapes: `N` objects of a split, `n` detections of a split, `C` categories.
"""

import itertools
import typing

import numpy as np
from hotcoco import COCOeval

from ssd_tf import coco_rows
from ssd_tf.evaluation import thresholds
from ssd_tf.evaluation.metrics import MAX_AREA, make_evaluation
from ssd_tf.evaluation.tables import SCORE_ROUNDING, Found, Truth
from ssd_tf.inference.thresholds import DEFAULT_SCORE, Thresholds

MIN_IOU = 0.5
RIGHT = 1
WRONG = 0
IGNORED = -1
# hotcoco answers with a dict entry for each detection: taken at once, a gigabyte at COCO's size.
_IMAGES_AT_ONCE = 250
# TIDE (Bolya et al. 2020), section 2.2: below this IoU a detection is of the background.
_BACKGROUND_IOU = 0.1
# COCO's limit of 100 is one of each class; here it would be one of all classes together.
_ALL_DETECTIONS = 1 << 31
_NUM_BINS = 10  # of the calibration
_SURE_SCORE = 0.5  # detections below it never count as label errors
# hotcoco's names -> ours.
_ERRORS = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}
_SIZES = (0, 16, 32, 64, 128, 256)
_ASPECTS = (0, 1 / 3, 2 / 3, 1.5, 3)
_ASPECT_NAMES = ("below 1:3", "1:3 to 2:3", "2:3 to 3:2", "3:2 to 3:1", "above 3:1")
_CLASS_KEYS = ("AP", "AP50", "AP50_11point", "AP50_all")


class Matches(typing.NamedTuple):
    """status [n]: RIGHT, WRONG, or IGNORED: of an ignored object, or beyond the 100 best of a class
    in an image. partner [N]: the row of the detection that found the object, -1 if none did.
    label_errors: what may be wrong in the ground truth, best score first, as dicts of
    type ("wrong_label", or "missing_annotation" without an object), detection and object (rows).
    """

    status: np.ndarray
    partner: np.ndarray
    label_errors: list[dict]


class Analysis(typing.NamedTuple):
    """score: the threshold over all classes, at which the counts below are taken.

    thresholds, class_thresholds: as `threshold_curves` returns them. chosen: the thresholds that
    were chosen from them or given, None if no detection is right. errors: {kind: {"count",
    "cost"}}. confusion: [C + 1, C + 1]. calibration: hotcoco's, the mean gap of score and precision
    (ECE) and both by bins of the score. by_size, by_aspect: [{"name", "objects", "AP", "AP50"}].
    is_found: [N] bool. image_counts: {"right", "wrong", "missed"} of each image.
    """

    truth: Truth
    found: Found
    matches: Matches
    score: float
    thresholds: dict | None
    class_thresholds: dict
    chosen: Thresholds | None
    errors: dict
    confusion: np.ndarray
    calibration: dict
    by_size: list[dict]
    by_aspect: list[dict]
    is_found: np.ndarray
    image_counts: dict


def analyse(
    truth: Truth, found: Found, precision=None, given: Thresholds | None = None
) -> Analysis:
    """Analyse the detections of a split.

    precision: as `thresholds.choose` takes it. given: thresholds to use instead of chosen ones.
    """
    matches = match(truth, found)
    counts = _count_by_class(truth, found, matches)
    curves, class_curves = threshold_curves(counts)
    chosen = given or thresholds.choose(counts, precision)
    score = chosen.all if chosen else DEFAULT_SCORE
    errors, confusion, calibrated = _analyse_errors(*without_ignored(truth, found, matches), score)
    shown, is_found = find_shown(found, matches, score)
    return Analysis(
        truth,
        found,
        matches,
        score,
        curves,
        class_curves,
        chosen,
        errors,
        confusion,
        calibrated,
        _ap_by_size(truth, found),
        _ap_by_aspect(truth, found),
        is_found,
        _count_by_image(truth, found, matches.status, shown, is_found),
    )


def find_shown(found: Found, matches: Matches, scores) -> tuple[np.ndarray, np.ndarray]:
    """The detections [n] bool that score at least `scores`, and the objects [N] bool they found.

    scores: one number, or one for each detection [n].
    """
    shown = found.scores >= scores - SCORE_ROUNDING
    is_found = matches.partner >= 0
    is_found[is_found] = shown[matches.partner[is_found]]
    return shown, is_found


def image_names(truth: Truth) -> list[str]:
    """The file name of each image, in the order of image_ids; its id if it has none."""
    return [coco_rows.read_file_name(row) or f"image {row['id']}" for row in truth.image_rows]


def at_score(analysis: Analysis) -> dict | None:
    """{"score", "precision", "recall", "f1"} at the threshold over all classes, if there is one."""
    if analysis.chosen is None or analysis.thresholds is None:
        return None
    return thresholds.at_score(analysis.thresholds, analysis.score)


def summary(analysis: Analysis) -> dict:
    """The part of an analysis that metrics.json keeps."""
    return {
        "thresholds": analysis.thresholds,
        "errors": analysis.errors,
        "calibration_error": float(analysis.calibration["ece"]),
        "by_size": analysis.by_size,
        "by_aspect": analysis.by_aspect,
    }


def class_rows(per_class: dict, analysis: Analysis) -> list[dict]:
    """One row for each class, as in per_class.csv; classes without objects have counts only.

    Precision, recall and F1 are those at the threshold of the class.
    per_class: as `metrics.measure` returns it.
    """
    truth = analysis.truth
    counted = analysis.matches.status != IGNORED
    rows = []
    for category, name in enumerate(truth.names):
        num_objects = int(np.sum((truth.category == category) & ~truth.ignored))
        num_found = int(np.sum((analysis.found.category == category) & counted))
        chosen = _at_threshold(analysis, name)
        rows.append(
            {
                "class": name,
                "objects": num_objects,
                "detections": num_found,
                **{key: per_class.get(name, {}).get(key) for key in _CLASS_KEYS},
                "threshold": chosen.get("score"),
                **{key: chosen.get(key) for key in ("precision", "recall", "f1")},
            }
        )
    return rows


def _at_threshold(analysis, name):
    """The numbers of a class at its threshold; empty without objects, or without a threshold.

    Without detections there is no precision, which is 1 on curves.
    """
    curves = analysis.class_thresholds.get(name)
    if curves is None or analysis.chosen is None:
        return {}
    values = thresholds.at_score(curves, *analysis.chosen.of([name]))
    if values["recall"] == 0 and values["precision"] == 1:
        del values["precision"]
    return values


def match(truth: Truth, found: Found) -> Matches:
    """Match detections to objects, best score first, each object once."""
    status = np.full(len(found.scores), IGNORED, np.int8)
    partner = np.full(len(truth.image), -1, np.int64)
    label_errors = []
    order = np.argsort(found.image, kind="stable")
    object_order = np.argsort(truth.image, kind="stable")
    for start in range(0, len(truth.images), _IMAGES_AT_ONCE):
        edges = (start, start + _IMAGES_AT_ONCE)
        rows = order[slice(*np.searchsorted(found.image[order], edges))]
        objects = object_order[slice(*np.searchsorted(truth.image[object_order], edges))]
        matched = match_at_iou50(truth.select(objects), found.select(rows))
        diagnostics = matched.image_diagnostics(iou_thr=MIN_IOU, score_thr=_SURE_SCORE)
        for detection_id, value in diagnostics["dt_status"].items():
            status[rows[detection_id - 1]] = RIGHT if value == "tp" else WRONG
        for object_id, detection_id in diagnostics["gt_match"].items():
            partner[objects[object_id - 1]] = rows[detection_id - 1]
        label_errors += [_label_error(row, rows, objects) for row in diagnostics["label_errors"]]
    label_errors.sort(key=lambda row: -found.scores[row["detection"]])
    return Matches(status, partner, label_errors)


def _label_error(row, rows, objects):
    return {
        "type": row["type"],
        "detection": int(rows[row["dt_id"] - 1]),
        "object": None if row["gt_id"] is None else int(objects[row["gt_id"] - 1]),
    }


def match_at_iou50(truth: Truth, found: Found) -> COCOeval:
    """hotcoco's evaluator after matching the tables at MIN_IOU alone."""
    evaluation = make_evaluation(truth, found)
    evaluation.params.iou_thrs = [MIN_IOU]
    evaluation.evaluate()
    return evaluation


def without_ignored(truth: Truth, found: Found, matches: Matches) -> tuple[Truth, Found]:
    """Both tables without what counts neither as right nor as wrong."""
    return truth.select(~truth.ignored), found.select(matches.status != IGNORED)


def _count_by_class(truth, found, matches) -> dict[str, thresholds.Counts]:
    """{class name: its counts}, without what is ignored."""
    counts = {}
    for category, name in enumerate(truth.names):
        rows = (matches.status != IGNORED) & (found.category == category)
        num_objects = int(np.sum(~truth.ignored & (truth.category == category)))
        is_right = matches.status[rows] == RIGHT
        counts[name] = thresholds.count(found.scores[rows], is_right, num_objects)
    return counts


def threshold_curves(class_counts) -> tuple[dict | None, dict]:
    """The curves over all classes, and {class name: its curves} of the classes with objects.

    Curves: as `thresholds.make_curves` returns them.
    Over all classes detections and objects are counted together, so frequent classes weigh more.
    None instead of curves without objects.
    """
    per_class = {
        name: thresholds.make_curves(counts)
        for name, counts in class_counts.items()
        if counts.num_objects
    }
    if not per_class:
        return None, {}
    return thresholds.make_curves(thresholds.add(class_counts.values())), per_class


def _analyse_errors(truth, found, score):
    """A function of its own, so that the matches are freed before the next ones are made."""
    matched = match_at_iou50(truth, found)
    calibration = matched.calibration(n_bins=_NUM_BINS, iou_threshold=MIN_IOU)
    return split_errors(matched), confusion_matrix(matched, score), calibration


def split_errors(matched: COCOeval) -> dict:
    """TIDE: {kind: {"count", "cost"}}; the cost is the AP50 gained by fixing these errors.

    A detection is wrong because of its class (IoU with an object of another class >= 0.5), its
    location (IoU with one of its class 0.1 to 0.5), both, because the object was found already, or
    because there is no object. An object is missed if no detection has its class or its location.
    """
    tide = matched.tide_errors(MIN_IOU, _BACKGROUND_IOU)
    return {
        name: {"count": int(tide["counts"][kind]), "cost": float(tide["delta_ap"][kind])}
        for kind, name in _ERRORS.items()
    }


def confusion_matrix(matched: COCOeval, score) -> np.ndarray:
    """Objects by their class (rows) and the class of the detection that overlaps them (columns).

    [C + 1, C + 1]; the last row has detections without an object, the last column objects without
    a detection. Detections that score at least `score` are matched to objects of any class by IoU
    of at least 0.5.
    """
    content = matched.confusion_matrix(
        iou_thr=MIN_IOU, min_score=score - SCORE_ROUNDING, max_det=_ALL_DETECTIONS
    )
    return content["matrix"].astype(int)


def _ap_by_size(truth, found):
    """AP by the square root of the area, in pixels."""
    names = [f"{low} to {high}" for low, high in itertools.pairwise(_SIZES)]
    limits = [size**2 for size in _SIZES]
    areas = found.boxes[:, 2] * found.boxes[:, 3]
    return _ap_by(truth, found, truth.area, areas, limits, [*names, f"above {_SIZES[-1]}"])


def _ap_by_aspect(truth, found):
    """AP by width : height."""
    return _ap_by(truth, found, _aspect(truth), _aspect(found), _ASPECTS, _ASPECT_NAMES)


def _aspect(table):
    ratio = table.boxes[:, 2] / np.maximum(table.boxes[:, 3], 1e-9)
    return np.minimum(ratio, MAX_AREA)


def _ap_by(truth, found, values, found_values, limits, names):
    """COCO's area ranges do it: outside a range, objects and false detections do not count."""
    upper = [*limits[1:], MAX_AREA]
    ranges = [[float(low), float(high)] for low, high in zip(limits, upper, strict=True)]
    evaluation = make_evaluation(truth, found, values, found_values)
    evaluation.params.area_rng = [[0.0, MAX_AREA], *ranges]
    evaluation.params.area_rng_lbl = ["all", *names]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 1:, -1]  # [T, R, C, slices]
    rows = []
    for index, (name, (low, high)) in enumerate(zip(names, ranges, strict=True)):
        is_inside = ~truth.ignored & (values >= low) & (values <= high)
        valid = precision[..., index] > -1
        ap = float(precision[..., index][valid].mean()) if valid.any() else -1.0
        ap50 = float(precision[0, ..., index][valid[0]].mean()) if valid.any() else -1.0
        rows.append({"name": name, "objects": int(is_inside.sum()), "AP": ap, "AP50": ap50})
    return rows


def _count_by_image(truth, found, status, shown, is_found):
    num_images = len(truth.images)

    def count(images):
        return np.bincount(images, minlength=num_images)

    return {
        "right": count(found.image[shown & (status == RIGHT)]),
        "wrong": count(found.image[shown & (status == WRONG)]),
        "missed": count(truth.image[~truth.ignored & ~is_found]),
    }
