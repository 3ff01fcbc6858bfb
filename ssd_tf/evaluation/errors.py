"""What the errors are: TIDE's split, confusion of classes, calibration of the scores.

The functions take what `matches.evaluate_at_half` makes of the tables without what is ignored.

Shapes: `C` categories.
"""

import numpy as np
from hotcoco import COCOeval

from ssd_tf.evaluation.matches import MIN_IOU
from ssd_tf.evaluation.tables import SCORE_ROUNDING

# TIDE (Bolya et al. 2020), section 2.2: below this IoU a detection is of the background.
_BACKGROUND_IOU = 0.1
# COCO's limit of 100 is one of each class; here it would be one of all classes together.
_ALL_DETECTIONS = 1 << 31
# hotcoco's names -> ours.
_KINDS = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}


def error_split(matched: COCOeval) -> dict:
    """TIDE: {kind: {"count", "cost"}}, the cost being the AP50 that mending these errors gains.

    A detection is wrong because of its class (IoU with an object of another class >= 0.5), its
    place (IoU with one of its class 0.1 to 0.5), both, because the object was found already, or
    because there is no object. An object is missed if no detection has its class or its place.
    """
    tide = matched.tide_errors(MIN_IOU, _BACKGROUND_IOU)
    return {
        name: {"count": int(tide["counts"][kind]), "cost": float(tide["delta_ap"][kind])}
        for kind, name in _KINDS.items()
    }


def calibration(matched: COCOeval, num_bins=10) -> dict:
    """{"error", "bins": [{"low", "high", "count", "score", "precision"}]}.

    score, precision: the mean of the detections in a bin, and the share of them that is right; the
    error (ECE) is the mean gap of the two, weighted by count.
    """
    content = matched.calibration(n_bins=num_bins, iou_threshold=MIN_IOU)
    bins = [
        {
            "low": float(row["bin_lower"]),
            "high": float(row["bin_upper"]),
            "count": int(row["count"]),
            "score": float(row["avg_confidence"]),
            "precision": float(row["avg_accuracy"]),
        }
        for row in content["bins"]
    ]
    return {"error": float(content["ece"]), "bins": bins}


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
