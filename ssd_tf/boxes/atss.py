"""Adaptive training sample selection (ATSS, Zhang et al. 2020, algorithm 1).

Shapes: `N` objects of one image, `A` default boxes, `K` candidates of an object.
"""

import numpy as np
import tensorflow as tf

from ssd_tf.boxes import geometry

# Candidates on each feature map, in cells (k in the paper).
CANDIDATES = 9


def match(boxes, default_boxes, level_of_box, input_hw):
    """boxes [N, 4], default_boxes [A, 4] -> each default box's object [A] int32, -1 if none.

    The candidates of an object are the default boxes of the CANDIDATES cells on each feature map
    whose centres are closest to its own. Those are positive whose IoU is at least the mean plus
    the standard deviation of all candidates' IoUs, and whose centre lies in the object. A default
    box of several objects takes the one with the greatest IoU, then the earlier one. An object may
    get none.
    level_of_box: the feature map of each default box [A], in rising order, a NumPy array.
    input_hw: size of the model's input; distances are measured in its pixels.
    """
    num_boxes = len(level_of_box)
    return tf.cond(
        tf.shape(boxes)[0] > 0,
        lambda: _match(boxes, tf.convert_to_tensor(default_boxes), level_of_box, input_hw),
        lambda: tf.fill([num_boxes], -1),
    )


def _match(boxes, default_boxes, level_of_box, input_hw):
    candidates = _find_candidates(boxes, default_boxes, level_of_box, input_hw)  # [N, K]
    overlaps = tf.gather(geometry.iou(boxes, default_boxes), candidates, batch_dims=1)
    # As in the authors' code: the standard deviation of a sample, with K - 1 in the divisor.
    num_candidates = tf.cast(tf.shape(candidates)[1], overlaps.dtype)
    mean = tf.reduce_mean(overlaps, 1, keepdims=True)
    squares = tf.reduce_sum(tf.square(overlaps - mean), 1, keepdims=True)
    threshold = mean + tf.sqrt(squares / tf.maximum(num_candidates - 1, 1))
    centres = tf.gather(_centres(default_boxes), candidates)  # [N, K, 2]
    is_inside = tf.reduce_all((centres > boxes[:, None, :2]) & (centres < boxes[:, None, 2:]), 2)
    is_positive = (overlaps >= threshold) & is_inside & (overlaps > 0)
    rows = tf.where(is_positive)
    positions = tf.stack([rows[:, 0], tf.cast(tf.gather_nd(candidates, rows), tf.int64)], 1)
    shape = tf.stack([tf.shape(boxes, tf.int64)[0], len(level_of_box)])
    claims = tf.scatter_nd(positions, tf.gather_nd(overlaps, rows), shape)  # [N, A]
    best = tf.argmax(claims, 0, tf.int32)
    return tf.where(tf.reduce_max(claims, 0) > 0, best, -1)


def _find_candidates(boxes, default_boxes, level_of_box, input_hw):
    """Indices [N, K] of the default boxes closest to each object, map by map."""
    scale = tf.constant(input_hw, boxes.dtype)
    offsets = (_centres(boxes)[:, None] - _centres(default_boxes)) * scale
    distances = tf.reduce_sum(tf.square(offsets), 2)  # [N, A]
    candidates = []
    for level in np.unique(level_of_box):
        (members,) = np.nonzero(level_of_box == level)
        begin = members[0]
        per_cell = _boxes_per_cell(default_boxes, members)
        count = tf.minimum(CANDIDATES * per_cell, len(members))
        _, nearest = tf.math.top_k(-distances[:, begin : begin + len(members)], count)
        candidates.append(nearest + begin)
    return tf.concat(candidates, 1)


def _boxes_per_cell(default_boxes, members):
    """The number of default boxes with the first one's centre, which follow each other."""
    centres = _centres(tf.gather(default_boxes, members))
    return tf.reduce_sum(tf.cast(tf.reduce_all(tf.abs(centres - centres[0]) < 1e-6, 1), tf.int32))


def _centres(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2
