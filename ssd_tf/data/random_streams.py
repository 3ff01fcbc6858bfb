"""Stateless random numbers: independent streams, one per purpose, derived from one seed."""

import enum

import tensorflow as tf


class RandomStream(enum.IntEnum):
    """What a stream is used for. Changing a value changes the results of every seed."""

    ZOOM_OUT = 0
    CAFFE_CROPS = 1
    CAFFE_CHOICE = 2
    FLIPS = 3
    COLORS = 4
    TORCHVISION_CROPS = 16  # attempt i uses stream 16 + i, so this one stays last


def uniform(seed, stream, shape, attempt=0):
    """Random numbers in [0, 1) of the given shape; the streams of a seed are independent.

    seed [2] int64; stream: a RandomStream; attempt: scalar, selects a stream following `stream`.
    """
    offset = tf.cast(int(stream) + attempt, tf.int64) * 2**40
    return tf.random.stateless_uniform(shape, seed + tf.stack([offset, 0]))


def interpolate(amount, low, high):
    """Map numbers in [0, 1) to [low, high)."""
    return low + amount * (high - low)
