"""Average precision by the rules of PASCAL VOC.

A detection is right if it overlaps an object by an IoU of at least 0.5. Difficult objects count
neither as found nor as missed. `AP50_11point` is VOC2007's mean of the precision at 11 recalls,
`AP50_all` is VOC2010's area under the curve.

Shapes: `N` objects of a split, `n` detections of a split.
"""

import numpy as np

from ssd_tf.evaluation.tables import Found, Truth


def voc_metrics(truth: Truth, found: Found, min_iou=0.5) -> tuple[dict, dict]:
    """{"AP50_11point", "AP50_all"}, and the same per class name.

    Means are over the classes that have objects, -1 if there are none. Crowds count as difficult.
    """
    best, overlap = best_objects(truth, found)
    is_near = overlap >= min_iou
    per_class = {}
    for category, name in enumerate(truth.names):
        num_objects = int(np.sum((truth.category == category) & ~truth.ignored))
        if num_objects:
            rows = np.flatnonzero(found.category == category)
            rows = rows[np.argsort(-found.scores[rows], kind="stable")]
            hits = _find_hits(best[rows], is_near[rows], truth.ignored)
            recall, precision = _curve(hits, num_objects)
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


def best_objects(truth: Truth, found: Found):
    """The object of its image and class that each detection overlaps most.

    Returns its row [n] (0 if there is none) and the IoU [n] (-1 if there is none).
    """
    best = np.zeros(len(found.scores), np.int64)
    overlap = np.full(len(found.scores), -1.0)
    rows_of = _by_group(found, len(truth.names))
    for group, objects in _by_group(truth, len(truth.names)).items():
        rows = rows_of.get(group)
        if rows is not None:
            overlaps = _iou(found.boxes[rows], truth.boxes[objects])
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


def _curve(hits, num_objects):
    """Recall and precision after each detection that counts."""
    num_hits = np.cumsum(hits)
    return num_hits / num_objects, num_hits / np.maximum(np.arange(1, len(hits) + 1), 1)


def _iou(boxes, others):
    """boxes [n, 4], others [N, 4], all x, y, width, height -> IoU [n, N]."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], others[:, :2] + others[:, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), -1)
    areas = boxes[:, 2] * boxes[:, 3]
    union = areas[:, None] + others[:, 2] * others[:, 3] - intersection
    return intersection / np.maximum(union, 1e-12)
