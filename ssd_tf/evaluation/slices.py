"""AP of objects by their size and by their aspect ratio.

Shapes: `N` objects of a split, `n` detections of a split.
"""

import itertools

import numpy as np

from ssd_tf.evaluation.coco_metrics import LARGEST_AREA, make_evaluation
from ssd_tf.evaluation.tables import Found, Truth

_SIZES = (0, 16, 32, 64, 128, 256)
_ASPECTS = (0, 1 / 3, 2 / 3, 1.5, 3)
_ASPECT_NAMES = ("below 1:3", "1:3 to 2:3", "2:3 to 3:2", "3:2 to 3:1", "above 3:1")


def ap_by_size(truth: Truth, found: Found) -> list[dict]:
    """[{"name", "objects", "AP", "AP50"}] by the square root of the area, in pixels."""
    names = [f"{low} to {high}" for low, high in itertools.pairwise(_SIZES)]
    limits = [size**2 for size in _SIZES]
    areas = found.boxes[:, 2] * found.boxes[:, 3]
    return _ap_by(truth, found, truth.area, areas, limits, [*names, f"above {_SIZES[-1]}"])


def ap_by_aspect(truth: Truth, found: Found) -> list[dict]:
    """The same by width : height."""
    return _ap_by(truth, found, _aspect(truth), _aspect(found), _ASPECTS, _ASPECT_NAMES)


def _aspect(table):
    ratio = table.boxes[:, 2] / np.maximum(table.boxes[:, 3], 1e-9)
    return np.minimum(ratio, LARGEST_AREA)


def _ap_by(truth, found, values, found_values, limits, names):
    """COCO's area ranges do it: outside a range, objects and false detections do not count."""
    upper = [*limits[1:], LARGEST_AREA]
    ranges = [[float(low), float(high)] for low, high in zip(limits, upper, strict=True)]
    evaluation = make_evaluation(truth, found, values, found_values)
    evaluation.params.area_rng = [[0.0, LARGEST_AREA], *ranges]
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
