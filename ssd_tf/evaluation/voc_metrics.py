"""Average precision by the rules of PASCAL VOC: IoU 0.5, difficult objects neither wanted nor punished.

`AP50_11point` is VOC2007's mean of the precision at 11 recalls, `AP50_all` is VOC2010's area under the curve.
"""

import collections

import numpy as np


def voc_metrics(ground_truth: dict, detections: list[dict], threshold=0.5) -> tuple[dict, dict]:
    """COCO instances JSON and COCO results, both as plain Python -> {"AP50_11point", "AP50_all"} and the same per class name.

    Means are over the classes that have objects. Crowds count as difficult.
    """
    truths = collections.defaultdict(lambda: collections.defaultdict(list))
    for annotation in ground_truth["annotations"]:
        truths[annotation["category_id"]][annotation["image_id"]].append(annotation)
    found = collections.defaultdict(list)
    for detection in detections:
        found[detection["category_id"]].append(detection)

    per_class = {}
    for category in ground_truth["categories"]:
        objects = truths[category["id"]]
        wanted = sum(not _skipped(item) for items in objects.values() for item in items)
        if wanted:
            recall, precision = _curve(objects, found[category["id"]], wanted, threshold)
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
    """Mean over the recalls 0, 0.1, ..., 1 of the best precision at that recall or beyond (VOCap.m of the VOC2007 devkit)."""
    # linspace, not arange: a recall of exactly 0.3 must count at 0.3.
    levels = [precision[recall >= level - 1e-12] for level in np.linspace(0, 1, 11)]
    return float(np.mean([values.max() if values.size else 0.0 for values in levels]))


def all_points(recall, precision) -> float:
    """Area under the precision made monotone from the right (VOC2010 devkit)."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision[1:]))


def _curve(objects, detections, wanted, threshold):
    """Recall and precision after each detection that counts, by falling score."""
    ordered = sorted(detections, key=lambda detection: -detection["score"])
    boxes = {
        image: np.array([item["bbox"] for item in items], float) for image, items in objects.items()
    }
    taken = {image: np.zeros(len(items), bool) for image, items in objects.items()}
    hits = []
    for detection in ordered:
        image = detection["image_id"]
        if image not in boxes:
            hits.append(0)
            continue
        overlaps = _iou(np.array(detection["bbox"], float), boxes[image])
        best = int(np.argmax(overlaps))
        if overlaps[best] < threshold:
            hits.append(0)
        elif not _skipped(objects[image][best]):
            hits.append(0 if taken[image][best] else 1)
            taken[image][best] = True
    hits = np.array(hits, float)
    true = np.cumsum(hits)
    return true / wanted, true / np.maximum(np.arange(1, len(hits) + 1), 1)


def _iou(box, others):
    """One box and others [N, 4], all x, y, width, height -> IoU [N]."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), 1)
    return shared / np.maximum(box[2] * box[3] + others[:, 2] * others[:, 3] - shared, 1e-12)


def _skipped(annotation):
    return bool(annotation.get("difficult") or annotation.get("iscrowd"))
