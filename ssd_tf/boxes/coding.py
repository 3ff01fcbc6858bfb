"""Boxes to offsets from default boxes, and back (Liu et al. 2016, sec. 2.2).

Offsets are `ty, tx, th, tw`: the distance of the centres in heights and widths of the default box,
and the logarithm of the size ratio, each divided by its variance. The variances come from the
original Caffe layer (.1 for centres, .2 for sizes); the paper does not mention them.
"""

import math

import tensorflow as tf

# Smallest side that corners can give, in sides of the default box.
_MIN_RATIO = 0.01


def to_centre_form(boxes):
    """Corners [..., 4] -> centre y, centre x, height, width [..., 4]."""
    low = boxes[..., :2]
    high = boxes[..., 2:]
    return tf.concat([(low + high) / 2, high - low], -1)


def encode(boxes, default_boxes, variances):
    """boxes [..., 4] of positive size, default_boxes [..., 4], variances [4] -> offsets [..., 4].

    decode(encode(b, d, v), d, v) = b.
    """
    box = to_centre_form(boxes)
    default = to_centre_form(default_boxes)
    centres = (box[..., :2] - default[..., :2]) / default[..., 2:]
    sizes = tf.math.log(box[..., 2:] / default[..., 2:])
    return tf.concat([centres, sizes], -1) / tf.constant(variances, tf.float32)


def decode(offsets, default_boxes, variances):
    """offsets [..., A, 4], default_boxes [A, 4], variances [4] -> unclipped boxes [..., A, 4]."""
    default = to_centre_form(tf.convert_to_tensor(default_boxes))
    offsets = offsets * tf.constant(variances, tf.float32)
    centres = offsets[..., :2] * default[:, 2:] + default[:, :2]
    half = tf.exp(offsets[..., 2:]) * default[:, 2:] / 2
    return tf.concat([centres - half, centres + half], -1)


def limit_sizes(offsets, variances, max_ratio):
    """offsets [..., 4] -> the same, with th and tw of at most max_ratio default boxes."""
    limits = [math.log(max_ratio) / variance for variance in variances[2:]]
    return tf.minimum(offsets, [math.inf, math.inf, *limits])


def corners_to_offsets(moves, variances):
    """Moves of ymin, xmin, ymax and xmax [..., 4] -> offsets [..., 4] of the box of these corners.

    Moves are in sides of the default box, divided by the variances of the centres. A side of the
    box is at least a hundredth of the default box's, even if corners crossed.
    """
    low = moves[..., :2]
    high = moves[..., 2:]
    ratios = tf.maximum(1.0 + (high - low) * tf.constant(variances[:2], tf.float32), _MIN_RATIO)
    sizes = tf.math.log(ratios) / tf.constant(variances[2:], tf.float32)
    return tf.concat([(low + high) / 2, sizes], -1)
