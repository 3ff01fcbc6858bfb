"""The MultiBox loss, by hand."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.boxes import coding
from ssd_tf.config import Loss
from ssd_tf.training import losses

VARIANCES = (0.1, 0.1, 0.2, 0.2)


def make_targets(labels, offsets=None):
    labels = np.asarray(labels, "int32")
    if offsets is None:
        offsets = np.zeros((*labels.shape, 4))
    return {"labels": tf.constant(labels), "offsets": tf.constant(offsets, tf.float32)}


def make_predictions(logits, offsets=None):
    logits = np.asarray(logits, "float32")
    if offsets is None:
        offsets = np.zeros((*logits.shape[:2], 4))
    return {"logits": tf.constant(logits), "offsets": tf.constant(offsets, tf.float32)}


def make_loss(score_activation="softmax", default_boxes=((0, 0, 1, 1),), **changes):
    """The loss of Liu et al. 2016, with at least three negatives per image, and with changes."""
    boxes = np.array(default_boxes, "float32")
    return losses.MultiBoxLoss(Loss(**changes), score_activation, boxes, VARIANCES)


def loss_sums(predictions, targets, **changes):
    """ImageLosses, summed over the images, as numbers."""
    return sums_of(make_loss(**changes)(predictions, targets))


def sums_of(image_losses):
    return losses.ImageLosses(*(float(tf.reduce_sum(value)) for value in image_losses))


def classification_loss(logits, labels, score_activation="softmax", **changes):
    return losses.classification_loss(
        logits, tf.constant(labels), score_activation, Loss(**changes)
    )


# One class. Logits (0, log n) give the object a probability of n / (n + 1): .75, .5, .8 and .2.
FOUR = [[[0.0, math.log(3)], [0.0, 0.0], [0.0, math.log(4)], [0.0, -math.log(4)]]]


def test_four_boxes_by_hand():
    # Box 0 is the object: -log .75. It gets one negative, the hardest: box 2 with -log .2. Boxes 1
    # and 3 do not contribute.
    targets = make_targets([[1, 0, 0, 0]], [[[0.0, 0.0, 0.0, 0.0], [9] * 4, [9] * 4, [9] * 4]])
    offsets = [[[0.5, -2.0, 0.0, 1.0], [1] * 4, [2] * 4, [3] * 4]]
    sums = loss_sums(
        make_predictions(FOUR, offsets), targets, negatives_per_positive=1, min_negatives=0
    )
    assert sums.classification == pytest.approx(-math.log(0.75) - math.log(0.2), rel=1e-5)
    assert sums.localization == pytest.approx(0.5 * 0.25 + (2 - 0.5) + 0 + 0.5, rel=1e-6)


# Background and three classes with the probabilities .1, .2, .3 and .4 of the softmax.
FOUR_ROWS = np.log([[[1.0, 2, 3, 4]]])


def make_row_loss(trained_rows, score_activation="softmax", **changes):
    loss = make_loss(score_activation, **changes)
    return dataclasses.replace(loss, trained_rows=np.array(trained_rows))


@pytest.mark.parametrize(
    ("label", "trained_rows", "expected", "gradient"),
    [
        (1, [3, 1], -math.log(0.4), [0, 0.2, 0, -0.6]),  # row 3
        (2, [3, 1], -math.log(0.2), [0, -0.8, 0, 0.4]),  # row 1
        (0, [3, 1], -math.log(0.4), [0, 0.2, 0, 0.4]),  # background and row 2: .1 + .3
        (0, [2], -math.log(0.7), [0, 0, 0.3, 0]),
        (3, [1, 2, 3], -math.log(0.4), [0, 0.2, 0.3, -0.6]),  # all classes, but no background
    ],
)
def test_rows_that_are_not_trained_are_background(label, trained_rows, expected, gradient):
    logits = tf.constant(FOUR_ROWS, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        predictions = {"logits": logits, "offsets": tf.zeros([1, 1, 4])}
        sums = make_row_loss(trained_rows)(predictions, make_targets([[label]]))
        loss = tf.reduce_sum(sums.classification)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, logits)[0, 0], gradient, atol=1e-6)


def test_sigmoids_of_trained_rows_only():
    # Row 1 has odds of 2, so 2/3, row 3 has 4/5; the label is that of row 3.
    sums = sums_of(
        make_row_loss([3, 1], "sigmoid")(make_predictions(FOUR_ROWS), make_targets([[1]]))
    )
    assert sums.classification == pytest.approx(-math.log(4 / 5) - math.log(1 / 3), rel=1e-5)


def test_the_background_of_the_other_rows():
    merged = losses.merge_rows(tf.constant(FOUR_ROWS, tf.float32), np.array([3, 1]), "softmax")
    np.testing.assert_allclose(np.exp(merged), [[[4, 4, 2]]], rtol=1e-6)
    # The sigmoid uses none, and nothing is computed for it.
    unused, *rows = losses.merge_rows(tf.constant(FOUR_ROWS), np.array([3, 1]), "sigmoid")[0, 0]
    assert unused == FOUR_ROWS[0, 0, 0]
    np.testing.assert_array_equal(rows, FOUR_ROWS[0, 0, [3, 1]])


@pytest.mark.parametrize("score_activation", ["softmax", "sigmoid"])
def test_negatives_are_hard_for_trained_rows(score_activation):
    # Box 1 is certainly of class 1, which is not trained, box 2 is of class 2 at even odds.
    logits = [[[0.0, 0, 9], [0, 9, -9], [0, -9, 0]]]
    loss = make_row_loss([2], score_activation, negatives_per_positive=1, min_negatives=0)
    sums = sums_of(loss(make_predictions(logits), make_targets([[1, 0, 0]])))
    assert sums.classification == pytest.approx(math.log(2), abs=1e-3)


def test_losses_are_summed_image_by_image():
    targets = make_targets([[1, 0], [0, 0]])
    predictions = make_predictions(np.zeros((2, 2, 2)), np.full((2, 2, 4), 2.0))
    image_losses = make_loss(min_negatives=1)(predictions, targets)
    # Two boxes and one box with a probability of a half; 4 coordinates of 2 - .5 each.
    np.testing.assert_allclose(image_losses.classification, np.log(2) * np.array([2, 1]), rtol=1e-6)
    np.testing.assert_allclose(image_losses.localization, [6.0, 0.0])


def test_localization_weight():
    predictions = make_predictions(FOUR, np.ones((1, 4, 4)))
    sums = loss_sums(predictions, make_targets([[1, 0, 0, 0]]), localization_weight=3.0)
    assert sums.localization == pytest.approx(3 * 4 * 0.5)


def test_three_negatives_for_each_positive_of_the_same_image():
    # Two images of ten boxes, with one object and with none. The second has the harder negatives,
    # but no positive.
    labels = [[1] + [0] * 9, [0] * 10]
    hardness = np.array([np.arange(10) / 10, np.arange(10) + 5.0], "float32")
    mined = losses.mine_negatives(tf.constant(hardness), tf.constant(labels), 3.0, 0)
    expected = [[0, 0, 0, 0, 0, 0, 0, 1, 1, 1], [0] * 10]
    assert np.array(mined).astype(int).tolist() == expected


def test_min_negatives_of_an_image_without_objects():
    hardness = np.array([[0.3, 0.9, 0.1, 0.8]], "float32")
    mined = losses.mine_negatives(tf.constant(hardness), tf.zeros([1, 4], tf.int32), 3.0, 2)
    assert np.array(mined).tolist() == [[False, True, False, True]]


def test_no_more_negatives_than_there_are():
    mined = losses.mine_negatives(tf.constant([[0.5, 0.4, 0.3]]), tf.constant([[1, 2, 0]]), 3.0, 3)
    assert np.array(mined).tolist() == [[False, False, True]]


def test_no_negatives_at_all():
    hardness = tf.constant([[0.5, 0.4]])
    for labels in ([[0, 0]], [[1, 2]], [[-1, -1]]):
        mined = losses.mine_negatives(hardness, tf.constant(labels), 0.0, 0)
        assert not np.array(mined).any()


@pytest.mark.parametrize("ties", [False, True])
def test_mining_with_static_shapes_finds_the_same(ties):
    random = np.random.default_rng(0)
    labels = random.integers(-1, 3, (7, 40)) * (random.uniform(size=(7, 40)) < 0.3)
    hardness = random.integers(0, 4, (7, 40)) if ties else random.uniform(size=(7, 40))
    arguments = (tf.constant(hardness, tf.float32), tf.constant(labels), 3.0, 2)
    mined = np.array(losses.mine_negatives(*arguments))
    np.testing.assert_array_equal(losses.mine_negatives(*arguments, static_shapes=True), mined)
    # By another way: a stable sort of the negatives of each image.
    for found, hard, label in zip(mined, hardness, labels, strict=True):
        order = np.argsort(np.where(label == 0, -hard, 9.0), kind="stable")
        count = min(max(3 * (label > 0).sum(), 2), (label == 0).sum())
        assert sorted(np.flatnonzero(found)) == sorted(order[:count])


def test_equal_hardness_takes_the_earlier_box():
    mined = losses.mine_negatives(tf.ones([1, 5]), tf.constant([[0, 1, 0, 0, 0]]), 2.0, 0)
    assert np.array(mined).tolist() == [[True, False, True, False, False]]


def test_a_batch_without_objects_is_finite_and_so_is_its_gradient():
    logits = tf.Variable(np.array(FOUR, "float32"))
    predictions = {"logits": logits, "offsets": tf.zeros([1, 4, 4])}
    with tf.GradientTape() as tape:
        sums = make_loss(min_negatives=1)(predictions, make_targets([[0, 0, 0, 0]]))
    assert sums_of(sums) == (pytest.approx(-math.log(0.2), rel=1e-5), 0)
    gradient = np.array(tf.convert_to_tensor(tape.gradient(sums.classification, logits)))
    # Softmax minus one-hot in the hardest box only.
    np.testing.assert_allclose(gradient, [[[0, 0], [0, 0], [-0.8, 0.8], [0, 0]]], atol=1e-6)


def test_without_objects_and_min_negatives_the_loss_is_zero():
    sums = loss_sums(make_predictions(FOUR), make_targets([[0, 0, 0, 0]]), min_negatives=0)
    assert sums.classification == 0


def test_ignored_boxes_do_not_contribute():
    # The hardest box is ignored, so the next one, of -log .5, is mined.
    targets = make_targets([[1, 0, -1, 0]])
    sums = loss_sums(make_predictions(FOUR), targets, negatives_per_positive=1, min_negatives=0)
    assert sums.classification == pytest.approx(-math.log(0.75) - math.log(0.5), rel=1e-5)


def test_all_ignored_is_zero():
    sums = loss_sums(make_predictions(FOUR), make_targets([[-1, -1, -1, -1]]))
    assert sums.classification == sums.localization == 0


def test_smooth_l1_values_and_slope_around_its_knee():
    x = tf.constant([-2.0, -1.0, -0.5, 0.0, 0.5, 0.999, 1.0, 1.001, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = losses.smooth_l1(x)
    expected = [1.5, 0.5, 0.125, 0, 0.125, 0.4990005, 0.5, 0.501, 2.5]
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    slope = [-1, -1, -0.5, 0, 0.5, 0.999, 1, 1, 1]
    np.testing.assert_allclose(tape.gradient(y, x), slope, atol=1e-6)


def test_the_order_of_the_boxes_does_not_matter():
    random = np.random.default_rng(0)
    labels = random.choice([-1, 0, 0, 0, 0, 1, 2], (3, 40))
    logits = random.normal(size=(3, 40, 3))
    offsets = random.normal(size=(3, 40, 4))
    target_offsets = random.normal(size=(3, 40, 4))
    order = random.permutation(40)
    before = loss_sums(make_predictions(logits, offsets), make_targets(labels, target_offsets))
    after = loss_sums(
        make_predictions(logits[:, order], offsets[:, order]),
        make_targets(labels[:, order], target_offsets[:, order]),
    )
    assert before == pytest.approx(after, rel=1e-5)
    assert before.classification > 1
    assert before.localization > 1


# Variants, against plain Python on one number at a time.


def random_case():
    """Logits of three classes and labels, both for two images of 30 boxes."""
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (2, 30, 4)).astype("float32")
    return logits, random.choice([-1, 0, 0, 0, 1, 2, 3], (2, 30))


def softmax_of(row):
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def test_focal_softmax():
    logits, labels = random_case()
    loss = np.array(classification_loss(logits, labels, focal_gamma=2.0, focal_alpha=0.75))
    for place in np.ndindex(2, 30):
        label = max(labels[place], 0)
        p = softmax_of(logits[place])[label]
        expected = -(0.75 if label else 0.25) * (1 - p) ** 2 * math.log(p)
        assert loss[place] == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("gamma", "alpha"),
    [(None, None), (2.0, 0.25), (1.5, None)],
)
def test_sigmoid_and_its_focal_loss(gamma, alpha):
    logits, labels = random_case()
    focal = {"focal_gamma": gamma, "focal_alpha": alpha}
    loss = np.array(classification_loss(logits, labels, "sigmoid", **focal))
    for place in np.ndindex(2, 30):
        expected = 0.0
        for column in (1, 2, 3):
            p = 1 / (1 + math.exp(-logits[place][column]))
            is_class = labels[place] == column
            term = -math.log(p if is_class else 1 - p)
            if gamma is not None:
                term *= ((1 - p) if is_class else p) ** gamma
            if alpha is not None:
                term *= alpha if is_class else 1 - alpha
            expected += term
        assert loss[place] == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("score_activation", ["softmax", "sigmoid"])
def test_focal_loss_of_gamma_0_is_cross_entropy(score_activation):
    logits, labels = random_case()
    logits = tf.Variable(logits)
    with tf.GradientTape(persistent=True) as tape:
        plain = classification_loss(logits, labels, score_activation=score_activation)
        focal = classification_loss(
            logits, labels, score_activation=score_activation, focal_gamma=0.0
        )
    np.testing.assert_allclose(focal, plain, rtol=1e-6)
    gradients = [tape.gradient(value, logits) for value in (plain, focal)]
    np.testing.assert_allclose(*map(tf.convert_to_tensor, gradients), atol=1e-6)


@pytest.mark.parametrize("score_activation", ["softmax", "sigmoid"])
def test_focal_loss_is_finite_if_the_answer_is_certain(score_activation):
    logits = tf.Variable([[[200.0, -200.0], [-200.0, 200.0]]])
    with tf.GradientTape() as tape:
        loss = classification_loss(
            logits, [[0, 1]], score_activation=score_activation, focal_gamma=0.5
        )
    np.testing.assert_allclose(loss, [[0, 0]], atol=1e-6)
    assert np.isfinite(tf.convert_to_tensor(tape.gradient(loss, logits))).all()


def test_with_the_focal_loss_all_boxes_but_the_ignored_contribute():
    # p of the true class: .75, .5, (ignored), .8 of background.
    targets = make_targets([[1, 0, -1, 0]])
    sums = loss_sums(make_predictions(FOUR), targets, focal_gamma=1.0)
    expected = -0.25 * math.log(0.75) - 0.5 * math.log(0.5) - 0.2 * math.log(0.8)
    assert sums.classification == pytest.approx(expected, rel=1e-5)


def test_negatives_are_mined_by_the_sigmoid_loss_too():
    # Columns of class 1: hardness of a negative is log(1 + e^x), largest for box 2.
    logits = [[[9.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, -3.0]]]
    sums = loss_sums(
        make_predictions(logits),
        make_targets([[1, 0, 0, 0]]),
        score_activation="sigmoid",
        negatives_per_positive=1,
        min_negatives=0,
    )
    expected = math.log(2) + math.log(1 + math.exp(2))
    assert sums.classification == pytest.approx(expected, rel=1e-5)


# Boxes ymin, xmin, ymax, xmax; the numbers derived by hand.
PAIRS = {
    # name: box, other, GIoU
    "equal": ([0, 0, 2, 4], [0, 0, 2, 4], 1),
    # Shared 1 of 2 + 2 - 1, so IoU 1/3; the hull is 1 x 3 and covered.
    "beside": ([0, 0, 1, 2], [0, 1, 1, 3], 1 / 3),
    # Nothing shared, IoU 0; hull 1 x 5 of which 3 is free.
    "apart": ([0, 0, 1, 1], [0, 4, 1, 5], -3 / 5),
    # Shared 4 of 4 * 2 + 2 * 4 - 4 = 12, IoU 1/3; hull 4 x 4 of which 4 is free.
    "crossed": ([0, 1, 4, 3], [1, 0, 3, 4], 1 / 3 - 4 / 16),
}


@pytest.mark.parametrize("name", PAIRS)
def test_giou_of_literal_pairs(name):
    box, other, expected = PAIRS[name]
    for first, second in ((box, other), (other, box)):
        pair = (tf.constant([[each]], tf.float32) for each in (first, second))
        assert float(losses.giou(*pair)[0, 0]) == pytest.approx(expected, abs=1e-5)


def test_giou_compares_decoded_boxes_of_positives_only():
    default_boxes = np.array([[0, 0, 10, 20], [5, 5, 9, 9], [0, 0, 8, 8]], "float32")
    true_boxes = np.array([[1, 2, 9, 20], [5, 5, 9, 9], [1, 1, 8, 8]], "float32")
    predicted_boxes = np.array([[0, 0, 10, 18], [5, 5, 9, 9], [0, 0, 8, 8]], "float32")
    target_offsets = np.array(coding.encode(true_boxes, default_boxes, VARIANCES))[None]
    offsets = np.array(coding.encode(predicted_boxes, default_boxes, VARIANCES))[None]
    offsets[0, 1] = 1e4  # a negative whose decoded size overflows
    offsets = tf.Variable(offsets)
    loss = make_loss(box_loss="giou", default_boxes=default_boxes)
    with tf.GradientTape() as tape:
        sums = loss(
            {"logits": tf.zeros([1, 3, 3]), "offsets": offsets},
            make_targets([[1, 0, 2]], target_offsets),
        )
    # Of the first pair 8 x 16 = 128 of 180 + 144 are shared, and the union of 196 leaves 4 of the
    # hull of 10 x 20; of the last 49 of 64.
    expected = (1 - 128 / 196 + 4 / 200) + (1 - 49 / 64)
    assert sums_of(sums).localization == pytest.approx(expected, rel=1e-4)
    gradient = np.array(tf.convert_to_tensor(tape.gradient(sums.localization, offsets)))
    assert np.isfinite(gradient).all()
    assert gradient[0, 0].any()
    assert not gradient[0, 1].any()


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        # Sides of at most 62.5 default boxes: an IoU of 1 / 62.5**2, and nothing of the hull free.
        *(([0, 0, size, size], 1 - 1 / 62.5**2) for size in (30, 240, 450, 1e6)),
        # Three heights away, so half of the hull is free.
        ([30, 0, 0, 0], 1.5),
    ],
)
def test_giou_of_positives_that_are_far_off(offsets, expected):
    default_boxes = np.array([[0.4, 0.4, 0.5, 0.6]], "float32")
    offsets = tf.Variable([[offsets]], dtype=tf.float32)
    variances = (0.1, 0.1, 0.2, 0.4)
    loss = losses.MultiBoxLoss(Loss(box_loss="giou"), "softmax", default_boxes, variances)
    targets = make_targets([[1]], [[[0] * 4]])
    with tf.GradientTape() as tape:
        sums = loss({"logits": tf.zeros([1, 1, 3]), "offsets": offsets}, targets)
    assert sums_of(sums).localization == pytest.approx(expected, abs=1e-5)
    assert np.isfinite(tape.gradient(sums.localization, offsets)).all()


@pytest.mark.parametrize(
    ("normalizer", "weights", "divisor"),
    # Three images with 3, 0 and 1 positives.
    [
        ("global", (1, 1, 1), 4),
        ("torchvision", (1 / 4, 1 / 4, 1 / 4), 1),
        # Each image by its own positives, to be divided by three images.
        ("nvidia", (1 / 3, 0, 1), 3),
    ],
)
def test_normalizers_by_hand(normalizer, weights, divisor):
    found = losses.image_weights(normalizer, tf.constant([3.0, 0.0, 1.0]))
    np.testing.assert_allclose(found.weights, weights, rtol=1e-6)
    assert float(found.divisor) == divisor


@pytest.mark.parametrize(
    ("normalizer", "weight", "divisor"),
    [("global", 1, 0), ("torchvision", 1, 1), ("nvidia", 0, 1)],
)
def test_normalizers_without_positives(normalizer, weight, divisor):
    found = losses.image_weights(normalizer, tf.constant([0.0]))
    assert found.weights.numpy().tolist() == [weight]
    assert float(found.divisor) == divisor
