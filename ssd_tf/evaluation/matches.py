"""Which detections are right and which objects are found, at an IoU of 0.5 and the rules of COCO.

Shapes: `N` objects of a split, `n` detections of a split.
"""

import typing

import numpy as np
from hotcoco import COCOeval

from ssd_tf.evaluation.coco_metrics import make_evaluation
from ssd_tf.evaluation.tables import Found, Truth, select_objects

MIN_IOU = 0.5
RIGHT = 1
WRONG = 0
IGNORED = -1
# hotcoco answers with a dict entry for each detection: taken at once, a gigabyte at COCO's size.
_IMAGES_AT_ONCE = 250


class Matches(typing.NamedTuple):
    """status [n]: RIGHT, WRONG, or IGNORED: of an ignored object, or beyond the 100 best of a class
    in an image. partner [N]: the row of the detection that found the object, -1 if none did.
    label_errors: what may be wrong in the ground truth, best score first, as dicts of
    type ("wrong_label", or "missing_annotation" without an object), detection and object (rows).
    """

    status: np.ndarray
    partner: np.ndarray
    label_errors: list[dict]


def match(truth: Truth, found: Found, sure_score=0.5) -> Matches:
    """Match detections to objects, best score first, each object once.

    sure_score: of detections below it, none makes a label error.
    """
    status = np.full(len(found.scores), IGNORED, np.int8)
    partner = np.full(len(truth.image), -1, np.int64)
    label_errors = []
    order = np.argsort(found.image, kind="stable")
    object_order = np.argsort(truth.image, kind="stable")
    for start in range(0, len(truth.image_ids), _IMAGES_AT_ONCE):
        edges = (start, start + _IMAGES_AT_ONCE)
        rows = order[slice(*np.searchsorted(found.image[order], edges))]
        objects = object_order[slice(*np.searchsorted(truth.image[object_order], edges))]
        matched = evaluate_at_half(select_objects(truth, objects), found.select(rows))
        diagnostics = matched.image_diagnostics(iou_thr=MIN_IOU, score_thr=sure_score)
        for detection_id, value in diagnostics["dt_status"].items():
            status[rows[detection_id - 1]] = RIGHT if value == "tp" else WRONG
        for object_id, detection_id in diagnostics["gt_match"].items():
            partner[objects[object_id - 1]] = rows[detection_id - 1]
        label_errors += [_label_error(row, rows, objects) for row in diagnostics["label_errors"]]
    label_errors.sort(key=lambda row: -found.scores[row["detection"]])
    return Matches(status, partner, label_errors)


def without_ignored(truth: Truth, found: Found, matches: Matches) -> tuple[Truth, Found]:
    """Both tables without what counts neither as right nor as wrong."""
    return select_objects(truth, ~truth.ignored), found.select(matches.status != IGNORED)


def evaluate_at_half(truth: Truth, found: Found) -> COCOeval:
    """hotcoco's evaluator, which has matched the tables at MIN_IOU alone."""
    evaluation = make_evaluation(truth, found)
    evaluation.params.iou_thrs = [MIN_IOU]
    evaluation.evaluate()
    return evaluation


def _label_error(row, rows, objects):
    return {
        "type": row["type"],
        "detection": int(rows[row["dt_id"] - 1]),
        "object": None if row["gt_id"] is None else int(objects[row["gt_id"] - 1]),
    }
