"""The definition of a valid box gives the same for NumPy arrays and in a graph."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.boxes import validity

NAN = float("nan")


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0, 0, 1, 1], [True, True]),
        ([0.5, 0.5, 0.5, 0.75], [False, True]),  # no height
        ([0.25, 0.75, 0.5, 0.5], [True, False]),  # negative width
        ([-0.5, -1, 0.5, 0.75], [True, False]),  # the centre is at x -0.125
        ([0.75, 0.5, 1.25, 2], [True, False]),  # at y 1, which is the edge, and at x 1.25
        ([NAN, 0, 1, NAN], [False, False]),
        ([0.1, 0, 0.1 + 1e-9, 1], [False, True]),  # no height in float32
    ],
)
def test_boxes(box, expected):
    box = np.array(box, np.float32)
    assert validity.is_valid(box).tolist() == expected
    in_graph = tf.function(validity.is_valid)(tf.constant([box, box]))
    assert in_graph.numpy().tolist() == [expected, expected]


def test_no_boxes():
    assert validity.is_valid(np.zeros((0, 4))).shape == (0, 2)
