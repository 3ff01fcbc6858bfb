import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.boxes import geometry

EMPTY = tf.zeros([0, 4])
# A wide, a tall and a distant box.
BOXES = tf.constant([[0.0, 0.0, 0.2, 0.8], [0.1, 0.6, 0.9, 0.8], [0.95, 0.0, 1.0, 0.1]])


def test_no_boxes():
    assert geometry.area(EMPTY).shape == (0,)
    assert geometry.iou(EMPTY, BOXES).shape == (0, 3)
    assert geometry.iou(BOXES, EMPTY).shape == (3, 0)


def test_area():
    np.testing.assert_allclose(geometry.area(BOXES), [0.16, 0.16, 0.005], rtol=1e-6)
    np.testing.assert_allclose(geometry.area(BOXES[None]), [[0.16, 0.16, 0.005]], rtol=1e-6)


def test_intersection_of_each_pair():
    others = tf.constant([[0.1, 0.4, 0.3, 0.7], [0.0, 0.0, 1.0, 1.0]])
    # Rows 0.1 to 0.2 and columns 0.4 to 0.7 of the wide box; rows 0.1 to 0.3 and columns 0.6 to 0.7
    # of the tall one.
    expected = [[0.03, 0.16], [0.02, 0.16], [0.0, 0.005]]
    np.testing.assert_allclose(geometry.intersection(BOXES, others), expected, atol=1e-7)


def test_iou_of_each_pair():
    # Wide and tall share rows 0.1 to 0.2 and columns 0.6 to 0.8: 0.02 of 0.16 + 0.16 - 0.02 = 0.30.
    expected = [[1.0, 0.02 / 0.30, 0.0], [0.02 / 0.30, 1.0, 0.0], [0.0, 0.0, 1.0]]
    np.testing.assert_allclose(geometry.iou(BOXES, BOXES), expected, atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [[0.2, 0.0, 0.4, 0.8], [0.0, 0.8, 0.2, 1.0], [0.1, 0.9, 0.15, 1.0], [0.5, 0.1, 0.9, 0.5]],
)
def test_adjacent_and_distant_boxes_have_an_iou_of_zero(other):
    assert geometry.iou(BOXES[:1], tf.constant([other])).numpy() == 0.0


def test_empty_boxes_do_not_divide_by_zero():
    point = tf.constant([[0.3, 0.3, 0.3, 0.3]])
    assert geometry.iou(point, point).numpy() == 0.0
