"""Boxes to offsets from default boxes, and back (Liu et al. 2016, sec. 2.2).

Offsets are `ty, tx, th, tw`: the centre's distance in sizes of the default box and the logarithm of the size ratio,
each divided by its variance (.1 for centres and .2 for sizes in the authors' Caffe layer; the paper does not name them).
"""

import tensorflow as tf

VARIANCES = (0.1, 0.1, 0.2, 0.2)


def to_centre_form(boxes):
    """Corners [..., 4] -> centre y, centre x, height, width [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return tf.concat([(low + high) / 2, high - low], -1)


def encode(boxes, default_boxes, variances=VARIANCES):
    """boxes [..., 4] of positive size, their default_boxes [..., 4] -> offsets [..., 4]. decode(encode(b, d), d) = b."""
    box, default = to_centre_form(boxes), to_centre_form(default_boxes)
    centres = (box[..., :2] - default[..., :2]) / default[..., 2:]
    sizes = tf.math.log(box[..., 2:] / default[..., 2:])
    return tf.concat([centres, sizes], -1) / tf.constant(variances, tf.float32)


def decode(offsets, default_boxes, variances=VARIANCES):
    """offsets [..., A, 4], default_boxes [A, 4] -> boxes [..., A, 4], not clipped."""
    default = to_centre_form(tf.convert_to_tensor(default_boxes))
    offsets = offsets * tf.constant(variances, tf.float32)
    centres = offsets[..., :2] * default[:, 2:] + default[:, :2]
    half = tf.exp(offsets[..., 2:]) * default[:, 2:] / 2
    return tf.concat([centres - half, centres + half], -1)
