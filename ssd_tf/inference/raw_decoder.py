"""Detections from the outputs of a `_raw` file. Needs NumPy alone; exports bring a copy along.

    settings = load_settings("default_boxes.json")
    boxes, scores, classes = decode(offsets, logits, settings)

A `_raw` file gives `offsets` [1, A, 4] and `logits` [1, A, C + 1] for its A default boxes and C
classes. The steps here are those of the model's own post-processing, and then detections below the
threshold of their class are left out, if the run had thresholds when it was exported.
"""

import hashlib
import json

import numpy as np


def load_settings(path) -> dict:
    """Read default_boxes.json, which the export wrote beside the file."""
    with open(path, encoding="utf-8") as file:
        settings = json.load(file)
    settings["boxes"] = np.array(settings["boxes"], np.float32)
    return settings


def fingerprint(settings) -> str:
    """The version of the `_raw` file that settings belong to.

    It covers what the network was trained with; scores, NMS and limits may be changed in the file.
    """
    network = [settings[key] for key in ("variances", "score_activation", "size_limit")]
    content = np.asarray(settings["boxes"], "<f4").tobytes() + json.dumps(network).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def decode(offsets, logits, settings, score=None):
    """Predictions of one image -> boxes [n, 4], scores [n], classes [n], highest score first.

    offsets: [A, 4] or [1, A, 4]. logits: [A, C + 1] or [1, A, C + 1], the background first. score:
    the minimum; default: the threshold of each class, a list in settings, else the score floor.
    Boxes are ymin, xmin, ymax, xmax as fractions of the image; classes are lines of labels.txt,
    from 0.
    """
    boxes = decode_boxes(np.reshape(offsets, (-1, 4)), settings)
    scores = class_scores(np.reshape(logits, (len(boxes), -1)), settings["score_activation"])
    return select(boxes, scores, settings, score)


def select(boxes, scores, settings, score=None):
    """Boxes [A, 4] and scores [A, C] of all default boxes -> what `decode` returns."""
    boxes = np.where(np.isnan(boxes).any(1, keepdims=True), 0, boxes)
    if settings["clip_first"]:
        boxes = np.clip(boxes, 0, 1)
    scores = np.where(scores >= 0, scores, 0)  # NaN is no score
    classes = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    if settings["class_agnostic"]:
        classes = scores.argmax(1)[:, None]
        scores = scores.max(1, keepdims=True)
    rows, columns = _candidates(scores, settings["pre_nms_top_k"], settings["score_floor"])
    kept = suppress(boxes[rows], columns, settings["nms_iou"], settings["max_detections"])
    rows = rows[kept]
    columns = columns[kept]
    scores = scores[rows, columns]
    classes = classes[rows, columns]
    shown = scores >= _minimum(classes, settings.get("thresholds"), score)
    return np.clip(boxes[rows], 0, 1)[shown], scores[shown], classes[shown]


def _minimum(classes, thresholds, score):
    """The minimum score of detections of these classes [n]: one number, or [n]."""
    if score is not None:
        return score
    if thresholds is None:
        return 0.0
    return np.array(thresholds, np.float32)[classes]


def _candidates(scores, top_k, score_floor):
    """Rows and columns of the scores [A, C] above the floor, top_k per column, best first."""
    order = np.argsort(-scores, axis=0, kind="stable")[:top_k].T
    columns = np.repeat(np.arange(scores.shape[1]), order.shape[1])
    rows = order.reshape(-1)
    above = scores[rows, columns] > score_floor
    rows = rows[above]
    columns = columns[above]
    best = np.argsort(-scores[rows, columns], kind="stable")
    return rows[best], columns[best]


def decode_boxes(offsets, settings):
    """Offsets [A, 4] from the default boxes -> boxes [A, 4]."""
    defaults = settings["boxes"]
    ty, tx, th, tw = (offsets * np.array(settings["variances"], np.float32)).T
    if settings["size_limit"] is not None:
        limit = np.log(settings["size_limit"])
        th = np.minimum(th, limit)
        tw = np.minimum(tw, limit)
    height = defaults[:, 2] - defaults[:, 0]
    width = defaults[:, 3] - defaults[:, 1]
    centre_y = (defaults[:, 0] + defaults[:, 2]) / 2 + ty * height
    centre_x = (defaults[:, 1] + defaults[:, 3]) / 2 + tx * width
    half_height = np.exp(th) * height / 2
    half_width = np.exp(tw) * width / 2
    corners = (
        centre_y - half_height,
        centre_x - half_width,
        centre_y + half_height,
        centre_x + half_width,
    )
    return np.stack(corners, 1)


def class_scores(logits, score_activation):
    """Logits [A, C + 1] -> scores [A, C] of the classes without the background."""
    if score_activation == "sigmoid":
        return 1 / (1 + np.exp(-logits[:, 1:]))
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return (exponentials / exponentials.sum(1, keepdims=True))[:, 1:]


def suppress(boxes, columns, nms_iou, max_detections):
    """Indices of the boxes [n, 4] kept, best first, at most max_detections.

    Each box removes those after it that are of the same column and overlap it too much.
    """
    kept = []
    left = np.arange(len(boxes))
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    while len(left) and len(kept) < max_detections:
        best = left[0]
        kept.append(best)
        same = left[columns[left] == columns[best]]
        low = np.maximum(boxes[best, :2], boxes[same, :2])
        high = np.minimum(boxes[best, 2:], boxes[same, 2:])
        shared = np.prod(np.maximum(high - low, 0), 1)
        union = areas[best] + areas[same] - shared
        removed = same[shared > nms_iou * union]
        left = np.setdiff1d(left[1:], removed, assume_unique=True)
    return np.array(kept, int)
