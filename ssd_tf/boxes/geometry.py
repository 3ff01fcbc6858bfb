"""Areas and overlaps of boxes `[ymin, xmin, ymax, xmax]`.

Shapes: `N` objects, `A` default boxes.
"""

import numpy as np
import tensorflow as tf


def area(boxes):
    """boxes [..., 4] -> area [...], in squares of the boxes' unit."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection(boxes, others):
    """boxes [N, 4], others [A, 4] -> shared area of each pair [N, A]."""
    # One coordinate at a time keeps every intermediate contiguous in A; an [N, A, 2] layout takes
    # about twice the time.
    ymin, xmin, ymax, xmax = tf.unstack(boxes[:, :, None], axis=1)  # [N, 1] each
    other_ymin, other_xmin, other_ymax, other_xmax = tf.unstack(others, axis=1)  # [A] each
    height = tf.minimum(ymax, other_ymax) - tf.maximum(ymin, other_ymin)
    width = tf.minimum(xmax, other_xmax) - tf.maximum(xmin, other_xmin)
    return tf.maximum(height, 0.0) * tf.maximum(width, 0.0)


def paired_intersection(boxes, others):
    """Shared area [...] of pairs of boxes [..., 4], which are broadcast."""
    low = tf.maximum(boxes[..., :2], others[..., :2])
    high = tf.minimum(boxes[..., 2:], others[..., 2:])
    return tf.reduce_prod(tf.maximum(high - low, 0.0), -1)


def iou(boxes, others):
    """boxes [N, 4], others [A, 4] -> intersection over union [N, A]; 0 if both boxes are empty."""
    shared = intersection(boxes, others)
    return tf.math.divide_no_nan(shared, area(boxes)[:, None] + area(others) - shared)


def best_overlaps(boxes, others):
    """boxes [N, 4], others [A, 4] -> of each box the index of its best other [N] and their IoU [N].

    NumPy arrays, computed for 256 boxes at a time.
    """
    others = tf.constant(others, tf.float32)
    index = [np.zeros(0, np.int64)]
    overlap = [np.zeros(0, np.float32)]
    for start in range(0, len(boxes), 256):
        overlaps = iou(tf.constant(boxes[start : start + 256], tf.float32), others)
        index.append(tf.argmax(overlaps, 1).numpy())
        overlap.append(tf.reduce_max(overlaps, 1).numpy())
    return np.concatenate(index), np.concatenate(overlap)
