"""COCO's twelve numbers and AP per class, computed by hotcoco; `reference.py` has pycocotools'.

Shapes: `N` objects of a split, `n` detections of a split, `T` IoU thresholds, `R` recalls, `C`
categories, `S` area ranges, `M` limits of detections.
"""

import numpy as np
from hotcoco import COCO, COCOeval

from ssd_tf.evaluation.tables import Found, Truth

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
LARGEST_AREA = 1e10  # the end of COCO's widest area range
# Objects outside every area range count neither as found nor as missed: so do difficult ones.
_IGNORED_AREA = 10 * LARGEST_AREA
_ALL_AREAS = 0
_MOST_DETECTIONS = -1  # of the limits 1, 10 and 100 the last


def coco_metrics(truth: Truth, found: Found) -> tuple[dict, dict, dict]:
    """The twelve numbers by name; {"AP", "AP50"} and precision at recalls per class name.

    A number is -1 if there is nothing to measure it on, as in pycocotools; classes without objects
    are left out. Precision: at the recalls 0, 0.01, ..., 1 and IoU 0.5.
    """
    evaluation = make_evaluation(truth, found)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summary_lines()
    stats = {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}
    precision = evaluation.eval["precision"][:, :, :, _ALL_AREAS, _MOST_DETECTIONS]  # [T, R, C]
    per_class = {}
    curves = {}
    for name, values in zip(truth.names, np.moveaxis(precision, 2, 0), strict=True):
        if (values > -1).any():
            per_class[name] = {"AP": float(np.mean(values)), "AP50": float(np.mean(values[0]))}
            curves[name] = values[0].tolist()
    return stats, per_class, curves


def make_evaluation(truth: Truth, found: Found, areas=None, found_areas=None) -> COCOeval:
    """hotcoco's evaluator of two tables, whose ids there are indices + 1.

    areas [N], found_areas [n]: what to take for the areas, by default those of the annotations and
    of the detected boxes.
    """
    areas = truth.area if areas is None else areas
    ground_truth = COCO.from_arrays(
        images=[{"id": index + 1} for index in range(len(truth.image_ids))],
        categories=[{"id": index + 1, "name": name} for index, name in enumerate(truth.names)],
        image_ids=truth.image + 1,
        category_ids=truth.category + 1,
        boxes=truth.boxes,
        area=np.where(truth.difficult, _IGNORED_AREA, areas),
        iscrowd=truth.crowd,
    )
    columns = [found.image + 1, found.boxes, found.scores, found.category + 1]
    results = ground_truth.load_res(np.column_stack(columns))
    if found_areas is not None and len(found.scores):
        results.update_anns(ids=np.arange(1, len(found.scores) + 1), area=found_areas)
    return COCOeval(ground_truth, results, "bbox")
