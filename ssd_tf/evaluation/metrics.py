"""The metrics of COCO, computed by hotcoco, and of PASCAL VOC.

Shapes: `N` objects of a split, `n` detections of a split, `T` IoU thresholds, `R` recalls, `C`
categories, `S` area ranges, `M` limits of detections.
"""

import numpy as np
from hotcoco import COCO, COCOeval, mask

from ssd_tf.evaluation.tables import Found, Truth

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
MAX_AREA = 1e10  # the end of COCO's widest area range
# Objects outside every area range count neither as found nor as missed, as difficult ones should.
_IGNORED_AREA = 10 * MAX_AREA
_ALL_AREAS = 0
_MOST_DETECTIONS = -1  # the last of the limits 1, 10 and 100


def measure(truth: Truth, found: Found) -> dict:
    """{"coco", "voc", "per_class", "precision_at_recall"} as in metrics.json."""
    coco, coco_per_class, curves = coco_metrics(truth, found)
    voc, voc_per_class = voc_metrics(truth, found)
    per_class = {}
    for name in truth.names:
        values = {**coco_per_class.get(name, {}), **voc_per_class.get(name, {})}
        if values:
            per_class[name] = values
    return {"coco": coco, "voc": voc, "per_class": per_class, "precision_at_recall": curves}


def coco_metrics(truth: Truth, found: Found) -> tuple[dict, dict, dict]:
    """The twelve numbers by name; {"AP", "AP50"} and precision at recalls per class name.

    A number is -1 if there is nothing to measure it on, as in pycocotools; classes without objects
    are left out. Precision: at the recalls 0, 0.01, ..., 1 and IoU 0.5.
    """
    evaluation = make_evaluation(truth, found)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summary_lines()
    assert evaluation.eval is not None  # accumulate sets it
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
    """hotcoco's evaluator of two tables; its ids are indices + 1.

    areas [N], found_areas [n]: values to use as areas; default: those of the annotations and of the
    detected boxes.
    """
    areas = truth.area if areas is None else areas
    ground_truth = COCO.from_arrays(
        images=[{"id": index + 1} for index in range(len(truth.images))],
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


def voc_metrics(truth: Truth, found: Found) -> tuple[dict, dict]:
    """{"AP50_11point", "AP50_all"} by the rules of PASCAL VOC, and the same per class name.

    A detection is right if it overlaps an object by an IoU of at least .5. `AP50_11point` is
    VOC2007's mean of the precision at 11 recalls, `AP50_all` is VOC2010's area under the curve.
    Means are over the classes that have objects, -1 if there are none. Crowds count as difficult.
    """
    best, overlap = _best_objects(truth, found)
    is_near = overlap >= 0.5
    per_class = {}
    for category, name in enumerate(truth.names):
        num_objects = int(np.sum((truth.category == category) & ~truth.ignored))
        if num_objects:
            rows = np.flatnonzero(found.category == category)
            rows = rows[np.argsort(-found.scores[rows], kind="stable")]
            hits = _find_hits(best[rows], is_near[rows], truth.ignored)
            num_hits = np.cumsum(hits)
            recall = num_hits / num_objects
            precision = num_hits / np.maximum(np.arange(1, len(hits) + 1), 1)
            per_class[name] = {
                "AP50_11point": eleven_point(recall, precision),
                "AP50_all": all_points(recall, precision),
            }
    means = {
        name: float(np.mean([values[name] for values in per_class.values()])) if per_class else -1.0
        for name in ("AP50_11point", "AP50_all")
    }
    return means, per_class


def eleven_point(recall, precision) -> float:
    """Mean over the recalls 0, 0.1, ..., 1 of the best precision at that recall or beyond.

    As in VOCap.m of the VOC2007 devkit.
    """
    # linspace, not arange: a recall of exactly 0.3 must count at 0.3.
    beyond = [precision[recall >= level - 1e-12] for level in np.linspace(0, 1, 11)]
    return float(np.mean([values.max() if values.size else 0.0 for values in beyond]))


def all_points(recall, precision) -> float:
    """Area under the precision made monotone from the right, as in the VOC2010 devkit."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision[1:]))


def _best_objects(truth, found):
    """The object of its image and class that each detection overlaps most.

    Returns its row [n] (0 if there is none) and the IoU [n] (-1 if there is none).
    """
    best = np.zeros(len(found.scores), np.int64)
    overlap = np.full(len(found.scores), -1.0)
    rows_of = _by_group(found, len(truth.categories))
    for group, objects in _by_group(truth, len(truth.categories)).items():
        rows = rows_of.get(group)
        if rows is not None:
            overlaps = mask.bbox_iou(found.boxes[rows], truth.boxes[objects], [0] * len(objects))
            nearest = overlaps.argmax(1)
            best[rows] = objects[nearest]
            overlap[rows] = overlaps[np.arange(len(rows)), nearest]
    return best, overlap


def _by_group(table, num_categories):
    """{(image, category) as one number: the rows of a table, in their order}"""
    groups = table.image * num_categories + table.category
    order = np.argsort(groups, kind="stable")
    keys, starts = np.unique(groups[order], return_index=True)
    return dict(zip(keys.tolist(), np.split(order, starts[1:]), strict=False))


def _find_hits(best, is_near, is_ignored):
    """1 for a hit, 0 for a miss; detections of ignored objects are left out.

    best, is_near: of the detections of one class, best score first. is_ignored: [N].
    """
    counts = ~is_near if len(is_ignored) == 0 else ~(is_near & is_ignored[best])
    best = best[counts]
    is_near = is_near[counts]
    near_rows = np.flatnonzero(is_near)
    _, first = np.unique(best[near_rows], return_index=True)
    hits = np.zeros(len(best))
    hits[near_rows[first]] = 1  # later ones of the same object are misses
    return hits
