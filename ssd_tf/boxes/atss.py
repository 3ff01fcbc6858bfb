"""Adaptive training sample selection (ATSS, Zhang et al. 2020, algorithm 1).

Shapes: `N` objects of one image, `A` default boxes, `K` candidates of an object.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ssd_tf.boxes import geometry

# Candidates on each feature map, in cells (k in the paper).
CANDIDATES = 9


def make_match(default_boxes, level_of_box, input_hw) -> Callable:
    """Make the function: objects [N, 4] -> each default box's object [A] int32, -1 if none.

    The candidates of an object are the default boxes of the CANDIDATES cells on each feature map
    whose centres are closest to its own, as in the authors' code (the paper has one default box per
    cell). Those are positive whose IoU is at least the mean plus
    the standard deviation of all candidates' IoUs, and whose centre lies in the object. A default
    box of several objects takes the one with the greatest IoU, then the earlier one. An object may
    get none.
    default_boxes [A, 4], level_of_box [A]: NumPy arrays, as an SSD has them. input_hw: size of the
    model's input; distances are measured in its pixels.
    """
    num_boxes = len(default_boxes)
    cells = [
        _cells(default_boxes, np.flatnonzero(level_of_box == level))
        for level in np.unique(level_of_box)
    ]

    def match(objects):
        return tf.cond(
            tf.shape(objects)[0] > 0,
            lambda: _match(objects, default_boxes, cells, input_hw),
            lambda: tf.fill([num_boxes], -1),
        )

    return match


def _cells(default_boxes, members):
    """The boxes of a feature map, cell by cell: indices [cells, k] and centres [cells, 2]."""
    centres = _centres(default_boxes[members])
    is_first = np.any(np.abs(centres - centres[0]) > 1e-6, 1)
    per_cell = int(np.argmax(is_first)) or len(members)  # one cell if all have the same centre
    return members.reshape(-1, per_cell).astype(np.int32), centres[::per_cell]


def _match(objects, default_boxes, cells, input_hw):
    candidates = _find_candidates(objects, cells, input_hw)  # [N, K]
    boxes = tf.gather(default_boxes, candidates)  # [N, K, 4]
    overlaps = _iou(objects[:, None], boxes)
    # As in the authors' code: the standard deviation of a sample, with K - 1 in the divisor.
    num_candidates = tf.cast(tf.shape(candidates)[1], overlaps.dtype)
    mean = tf.reduce_mean(overlaps, 1, keepdims=True)
    squares = tf.reduce_sum(tf.square(overlaps - mean), 1, keepdims=True)
    threshold = mean + tf.sqrt(squares / tf.maximum(num_candidates - 1, 1))
    centres = _centres(boxes)
    is_inside = (centres > objects[:, None, :2]) & (centres < objects[:, None, 2:])
    is_positive = (overlaps >= threshold) & tf.reduce_all(is_inside, 2) & (overlaps > 0)
    rows = tf.where(is_positive)  # object by object
    return _resolve(
        tf.gather_nd(candidates, rows),
        tf.cast(rows[:, 0], tf.int32),
        tf.gather_nd(overlaps, rows),
        len(default_boxes),
    )


def _resolve(index, objects, overlaps, num_boxes):
    """Claims of objects to default boxes -> the object of each box [num_boxes], -1 if none."""
    best = tf.math.unsorted_segment_max(overlaps, index, num_boxes)
    wins = overlaps == tf.gather(best, index)
    # Of equal claims the first one, as the minimum of the objects.
    winner = tf.math.unsorted_segment_min(
        tf.boolean_mask(objects, wins), tf.boolean_mask(index, wins), num_boxes
    )
    return tf.where(winner == winner.dtype.max, -1, winner)


def _find_candidates(objects, cells, input_hw):
    """Indices [N, K] of the default boxes of the closest cells, map by map."""
    scale = tf.constant(input_hw, objects.dtype)
    candidates = []
    for index, centres in cells:
        offsets = (_centres(objects)[:, None] - centres) * scale
        distances = tf.reduce_sum(tf.square(offsets), 2)  # [N, cells]
        _, nearest = tf.math.top_k(-distances, min(CANDIDATES, len(index)))
        chosen = tf.gather(index, nearest)  # [N, cells, k]
        candidates.append(tf.reshape(chosen, [tf.shape(objects)[0], -1]))
    return tf.concat(candidates, 1)


def _iou(boxes, others):
    """IoU of pairs of boxes [..., 4], which are broadcast."""
    shared = geometry.paired_intersection(boxes, others)
    union = geometry.area(boxes) + geometry.area(others) - shared
    return tf.math.divide_no_nan(shared, union)


def _centres(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2
