import numpy as np
import tensorflow as tf

from ssd_tf.boxes import coding

VARIANCES = (0.1, 0.1, 0.2, 0.2)
# Upright: 0.4 high, 0.2 wide, about (0.4, 0.4).
DEFAULT = tf.constant([[0.2, 0.3, 0.6, 0.5]])


def test_no_boxes():
    empty = tf.zeros([0, 4])
    assert coding.encode(empty, empty, VARIANCES).shape == (0, 4)
    assert coding.decode(empty, empty, VARIANCES).shape == (0, 4)
    assert coding.decode(tf.zeros([2, 0, 4]), empty, VARIANCES).shape == (2, 0, 4)


def test_centre_form():
    np.testing.assert_allclose(coding.to_centre_form(DEFAULT), [[0.4, 0.4, 0.4, 0.2]], rtol=1e-6)


def test_encode_by_hand():
    # The object is 0.2 high and 0.4 wide about (0.4, 0.45). Centre: 0 down, and 0.05 to the right
    # = 0.25 widths; / 0.1. Size: half as high, twice as wide; log(2) / 0.2 = 3.465736.
    box = tf.constant([[0.3, 0.25, 0.5, 0.65]])
    np.testing.assert_allclose(
        coding.encode(box, DEFAULT, VARIANCES), [[0.0, 2.5, -3.465736, 3.465736]], atol=1e-5
    )


def test_decode_by_hand():
    # Down 2 * 0.1 heights of 0.4 = 0.08, left 0.1 widths of 0.2 = 0.02; as high as before,
    # e^0.2 = 1.2214028 times as wide.
    offsets = tf.constant([[[2.0, -1.0, 0.0, 1.0]]])
    half_width = 0.12214028
    expected = [[[0.28, 0.38 - half_width, 0.68, 0.38 + half_width]]]
    np.testing.assert_allclose(coding.decode(offsets, DEFAULT, VARIANCES), expected, atol=1e-6)


def test_zero_offsets_decode_to_the_default_boxes():
    decoded = coding.decode(tf.zeros([1, 4]), DEFAULT, VARIANCES)
    np.testing.assert_allclose(decoded, DEFAULT, atol=1e-7)


def test_variances_are_per_coordinate():
    box = tf.constant([[0.3, 0.25, 0.5, 0.65]])
    variances = (1.0, 0.5, 0.1, 1.0)
    encoded = coding.encode(box, DEFAULT, variances)
    np.testing.assert_allclose(encoded, [[0.0, 0.5, -6.931472, 0.693147]], atol=1e-5)
    np.testing.assert_allclose(coding.decode(encoded, DEFAULT, variances), box, atol=1e-6)


def test_decode_is_the_inverse_of_encode():
    corners_and_sizes = np.random.default_rng(0).uniform(0.02, 0.5, (2, 50, 4)).astype(np.float32)
    low = corners_and_sizes[..., :2]
    boxes, default_boxes = np.concatenate([low, low + corners_and_sizes[..., 2:]], -1)
    encoded = coding.encode(tf.constant(boxes), tf.constant(default_boxes), VARIANCES)
    decoded = coding.decode(encoded, default_boxes, VARIANCES)
    np.testing.assert_allclose(decoded, boxes, atol=1e-5)


def test_decoded_boxes_may_reach_over_the_border():
    decoded = coding.decode(tf.constant([[-20.0, 0.0, 0.0, 0.0]]), DEFAULT, VARIANCES)
    np.testing.assert_allclose(decoded[0, 0], -0.6, atol=1e-6)


def test_moved_corners_by_hand():
    # The corners of the test of encode: ymin a quarter of the height down and ymax as far up, xmin
    # half a width to the left, and xmax a whole width to the right, / 0.1: 2.5 times as wide, from
    # 0.2 to 0.7. The centre moves by a quarter of a width; / 0.1.
    moves = tf.constant([[2.5, -5.0, -2.5, 10.0]])
    offsets = coding.corners_to_offsets(moves, VARIANCES)
    np.testing.assert_allclose(offsets, [[0.0, 2.5, -3.465736, 4.581454]], atol=1e-5)
    decoded = coding.decode(offsets, DEFAULT, VARIANCES)
    np.testing.assert_allclose(decoded, [[0.3, 0.2, 0.5, 0.7]], atol=1e-6)
    moves = tf.constant([[0.25, -1.0, -0.25, 2.0]])
    offsets = coding.corners_to_offsets(moves, (1.0, 0.5, 0.1, 1.0))
    np.testing.assert_allclose(offsets, [[0.0, 0.5, -6.931472, 0.916291]], atol=1e-5)


def test_no_moved_corners():
    assert coding.corners_to_offsets(tf.zeros([2, 0, 4]), VARIANCES).shape == (2, 0, 4)
    assert coding.corners_to_offsets(tf.zeros([0, 5, 4]), VARIANCES).shape == (0, 5, 4)


def test_crossed_corners_give_a_hundredth_of_the_side():
    moves = tf.constant([[8.0, 0.0, -8.0, 0.0]])
    decoded = coding.decode(coding.corners_to_offsets(moves, VARIANCES), DEFAULT, VARIANCES)
    np.testing.assert_allclose(decoded, [[0.398, 0.3, 0.402, 0.5]], atol=1e-6)
