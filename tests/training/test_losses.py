"""The MultiBox loss, by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.training import losses


def make_targets(labels, offsets=None):
    labels = np.asarray(labels, "int32")
    offsets = np.zeros((*labels.shape, 4), "float32") if offsets is None else np.asarray(offsets, "float32")
    return {"labels": tf.constant(labels), "offsets": tf.constant(offsets)}


def make_predictions(logits, offsets=None):
    logits = np.asarray(logits, "float32")
    offsets = np.zeros((*logits.shape[:2], 4), "float32") if offsets is None else np.asarray(offsets, "float32")
    return {"logits": tf.constant(logits), "offsets": tf.constant(offsets)}


def loss(predictions, targets, **options):
    return {name: float(value) for name, value in losses.multibox_loss(predictions, targets, **options).items()}


# One class. Logits (0, log n) make the object's probability n / (n + 1): boxes with .75, .5, .8 and .2 of it.
FOUR = [[[0.0, math.log(3)], [0.0, 0.0], [0.0, math.log(4)], [0.0, -math.log(4)]]]


def test_four_boxes_by_hand():
    # Box 0 is the object: -log .75. One negative for it, the hardest: box 2 with -log .2. Boxes 1 and 3 take no part.
    targets = make_targets([[1, 0, 0, 0]], [[[0.0, 0.0, 0.0, 0.0], [9] * 4, [9] * 4, [9] * 4]])
    offsets = [[[0.5, -2.0, 0.0, 1.0], [1] * 4, [2] * 4, [3] * 4]]
    found = loss(make_predictions(FOUR, offsets), targets, negatives_per_positive=1, min_negatives=0)
    assert found["classification"] == pytest.approx(-math.log(0.75) - math.log(0.2), rel=1e-5)
    assert found["localization"] == pytest.approx(0.5 * 0.25 + (2 - 0.5) + 0 + 0.5, rel=1e-6)
    assert found["positives"] == 1


def test_localization_weight():
    targets, offsets = make_targets([[1, 0, 0, 0]]), np.ones((1, 4, 4))
    assert loss(make_predictions(FOUR, offsets), targets, localization_weight=3.0)["localization"] == pytest.approx(3 * 4 * 0.5)


def test_three_negatives_for_each_positive_of_the_same_image():
    # Two images of ten boxes; one object and none. The second has the harder negatives, but no object that asks for them.
    labels = [[1] + [0] * 9, [0] * 10]
    hardness = np.array([np.arange(10) / 10, np.arange(10) + 5.0], "float32")
    mined = losses.mine_negatives(tf.constant(hardness), tf.constant(labels), 3.0, 0)
    assert np.array(mined).astype(int).tolist() == [[0, 0, 0, 0, 0, 0, 0, 1, 1, 1], [0] * 10]


def test_least_number_of_negatives_of_an_image_without_objects():
    hardness = np.array([[0.3, 0.9, 0.1, 0.8]], "float32")
    mined = losses.mine_negatives(tf.constant(hardness), tf.zeros([1, 4], tf.int32), 3.0, 2)
    assert np.array(mined).tolist() == [[False, True, False, True]]


def test_negatives_are_never_more_than_there_are():
    mined = losses.mine_negatives(tf.constant([[0.5, 0.4, 0.3]]), tf.constant([[1, 2, 0]]), 3.0, 3)
    assert np.array(mined).tolist() == [[False, False, True]]


def test_equal_hardness_takes_the_earlier_box():
    mined = losses.mine_negatives(tf.ones([1, 5]), tf.constant([[0, 1, 0, 0, 0]]), 2.0, 0)
    assert np.array(mined).tolist() == [[True, False, True, False, False]]


def test_a_batch_without_objects_is_finite_and_so_is_its_gradient():
    logits = tf.Variable(np.array(FOUR, "float32"))
    with tf.GradientTape() as tape:
        found = losses.multibox_loss(
            {"logits": logits, "offsets": tf.zeros([1, 4, 4])}, make_targets([[0, 0, 0, 0]]), min_negatives=1
        )
    assert float(found["positives"]) == 0
    assert float(found["localization"]) == 0
    assert float(found["classification"]) == pytest.approx(-math.log(0.2), rel=1e-5)
    gradient = np.array(tf.convert_to_tensor(tape.gradient(found["classification"], logits)))
    # Softmax minus one-hot in the hardest box alone.
    np.testing.assert_allclose(gradient, [[[0, 0], [0, 0], [-0.8, 0.8], [0, 0]]], atol=1e-6)


def test_without_objects_and_without_least_negatives_nothing_is_left():
    assert loss(make_predictions(FOUR), make_targets([[0, 0, 0, 0]]), min_negatives=0)["classification"] == 0


def test_ignored_boxes_take_no_part():
    # The hardest box is ignored, so the next one, of -log .5, is mined.
    found = loss(make_predictions(FOUR), make_targets([[1, 0, -1, 0]]), negatives_per_positive=1, min_negatives=0)
    assert found["classification"] == pytest.approx(-math.log(0.75) - math.log(0.5), rel=1e-5)


def test_all_ignored_is_zero():
    found = loss(make_predictions(FOUR), make_targets([[-1, -1, -1, -1]]))
    assert found["classification"] == found["localization"] == found["positives"] == 0


def test_smooth_l1_values_and_slope_around_its_knee():
    x = tf.constant([-2.0, -1.0, -0.5, 0.0, 0.5, 0.999, 1.0, 1.001, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = losses.smooth_l1(x)
    np.testing.assert_allclose(y, [1.5, 0.5, 0.125, 0, 0.125, 0.4990005, 0.5, 0.501, 2.5], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(y, x), [-1, -1, -0.5, 0, 0.5, 0.999, 1, 1, 1], atol=1e-6)


def test_the_order_of_the_boxes_does_not_matter():
    rng = np.random.default_rng(0)
    labels = rng.choice([-1, 0, 0, 0, 0, 1, 2], (3, 40))
    logits, offsets, wanted = rng.normal(size=(3, 40, 3)), rng.normal(size=(3, 40, 4)), rng.normal(size=(3, 40, 4))
    order = rng.permutation(40)
    before = loss(make_predictions(logits, offsets), make_targets(labels, wanted))
    after = loss(make_predictions(logits[:, order], offsets[:, order]), make_targets(labels[:, order], wanted[:, order]))
    assert before == pytest.approx(after, rel=1e-5)
    assert before["positives"] == (labels > 0).sum()
