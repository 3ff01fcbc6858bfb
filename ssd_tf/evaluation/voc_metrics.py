"""Average precision by the rules of PASCAL VOC.

A detection is right if it overlaps an object by an IoU of at least 0.5. Difficult objects count
neither as found nor as missed. `AP50_11point` is VOC2007's mean of the precision at 11 recalls,
`AP50_all` is VOC2010's area under the curve.
"""

import collections

import numpy as np


def voc_metrics(ground_truth: dict, results: list[dict], min_iou=0.5) -> tuple[dict, dict]:
    """COCO instances and results -> {"AP50_11point", "AP50_all"}, and the same per class name.

    Means are over the classes that have objects, -1 if there are none. Crowds count as difficult.
    """
    annotations = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in ground_truth["annotations"]:
        annotations[row["category_id"]][row["image_id"]].append(row)
    results_of = collections.defaultdict(list)
    for row in results:
        results_of[row["category_id"]].append(row)

    per_class = {}
    for category in ground_truth["categories"]:
        by_image = annotations[category["id"]]
        num_objects = sum(not _is_ignored(row) for rows in by_image.values() for row in rows)
        if num_objects:
            hits = _find_hits(by_image, results_of[category["id"]], min_iou)
            recall, precision = _curve(hits, num_objects)
            per_class[category["name"]] = {
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


def _find_hits(by_image, results, min_iou):
    """1 for a hit, 0 for a miss, best score first; detections of ignored objects are left out.

    by_image: the annotations of one class by image id. results: those of the class.
    """
    boxes = {
        image_id: np.array([row["bbox"] for row in rows], float)
        for image_id, rows in by_image.items()
    }
    is_taken = {image_id: np.zeros(len(rows), bool) for image_id, rows in by_image.items()}
    hits = []
    for row in sorted(results, key=lambda row: -row["score"]):
        image_id = row["image_id"]
        if image_id not in boxes:
            hits.append(0)
            continue
        overlaps = _iou(np.array(row["bbox"], float), boxes[image_id])
        best = int(np.argmax(overlaps))
        if overlaps[best] < min_iou:
            hits.append(0)
        elif not _is_ignored(by_image[image_id][best]):
            hits.append(0 if is_taken[image_id][best] else 1)
            is_taken[image_id][best] = True
    return hits


def _curve(hits, num_objects):
    """Recall and precision after each detection that counts."""
    num_hits = np.cumsum(np.array(hits, float))
    return num_hits / num_objects, num_hits / np.maximum(np.arange(1, len(hits) + 1), 1)


def _iou(box, others):
    """One box and others [N, 4], all x, y, width, height -> IoU [N]."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), 1)
    union = box[2] * box[3] + others[:, 2] * others[:, 3] - intersection
    return intersection / np.maximum(union, 1e-12)


def _is_ignored(annotation):
    return bool(annotation.get("difficult") or annotation.get("iscrowd"))
