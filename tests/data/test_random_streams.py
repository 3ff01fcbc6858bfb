"""The streams of random numbers: their identity is part of what a seed means."""

import numpy as np
import tensorflow as tf

from ssd_tf.data.random_streams import RandomStream, uniform

SEED = tf.constant([3, 7], tf.int64)


def test_the_values_of_the_streams():
    values = {stream.name: stream.value for stream in RandomStream}
    assert values == {
        "ZOOM_OUT": 0,
        "CAFFE_CROPS": 1,
        "CAFFE_CHOICE": 2,
        "FLIPS": 3,
        "COLORS": 4,
        "TORCHVISION_CROPS": 16,
    }


def test_a_stream_shifts_the_seed():
    shifted = tf.random.stateless_uniform([5], [3 + 4 * 2**40, 7])
    np.testing.assert_array_equal(uniform(SEED, RandomStream.COLORS, [5]), shifted)
    later = tf.random.stateless_uniform([5], [3 + (16 + 2) * 2**40, 7])
    attempt = tf.constant(2)
    found = uniform(SEED, RandomStream.TORCHVISION_CROPS, [5], attempt)
    np.testing.assert_array_equal(found, later)


def test_streams_and_attempts_differ():
    draws = [uniform(SEED, stream, [100]) for stream in RandomStream]
    draws += [uniform(SEED, RandomStream.TORCHVISION_CROPS, [100], attempt) for attempt in (1, 2)]
    correlations = np.corrcoef(np.array(draws))
    assert np.abs(correlations - np.eye(len(draws))).max() < 0.5
