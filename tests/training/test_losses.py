"""The MultiBox loss, by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.boxes import coding
from ssd_tf.training import losses


def make_targets(labels, offsets=None):
    labels = np.asarray(labels, "int32")
    offsets = (
        np.zeros((*labels.shape, 4), "float32")
        if offsets is None
        else np.asarray(offsets, "float32")
    )
    return {"labels": tf.constant(labels), "offsets": tf.constant(offsets)}


def make_predictions(logits, offsets=None):
    logits = np.asarray(logits, "float32")
    offsets = (
        np.zeros((*logits.shape[:2], 4), "float32")
        if offsets is None
        else np.asarray(offsets, "float32")
    )
    return {"logits": tf.constant(logits), "offsets": tf.constant(offsets)}


def loss(predictions, targets, **options):
    return {
        name: float(value)
        for name, value in losses.multibox_loss(predictions, targets, **options).items()
    }


# One class. Logits (0, log n) make the object's probability n / (n + 1): boxes with .75, .5, .8 and .2 of it.
FOUR = [[[0.0, math.log(3)], [0.0, 0.0], [0.0, math.log(4)], [0.0, -math.log(4)]]]


def test_four_boxes_by_hand():
    # Box 0 is the object: -log .75. One negative for it, the hardest: box 2 with -log .2. Boxes 1 and 3 take no part.
    targets = make_targets([[1, 0, 0, 0]], [[[0.0, 0.0, 0.0, 0.0], [9] * 4, [9] * 4, [9] * 4]])
    offsets = [[[0.5, -2.0, 0.0, 1.0], [1] * 4, [2] * 4, [3] * 4]]
    found = loss(
        make_predictions(FOUR, offsets), targets, negatives_per_positive=1, min_negatives=0
    )
    assert found["classification"] == pytest.approx(-math.log(0.75) - math.log(0.2), rel=1e-5)
    assert found["localization"] == pytest.approx(0.5 * 0.25 + (2 - 0.5) + 0 + 0.5, rel=1e-6)
    assert found["positives"] == 1


def test_localization_weight():
    targets, offsets = make_targets([[1, 0, 0, 0]]), np.ones((1, 4, 4))
    assert loss(make_predictions(FOUR, offsets), targets, localization_weight=3.0)[
        "localization"
    ] == pytest.approx(3 * 4 * 0.5)


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
            {"logits": logits, "offsets": tf.zeros([1, 4, 4])},
            make_targets([[0, 0, 0, 0]]),
            min_negatives=1,
        )
    assert float(found["positives"]) == 0
    assert float(found["localization"]) == 0
    assert float(found["classification"]) == pytest.approx(-math.log(0.2), rel=1e-5)
    gradient = np.array(tf.convert_to_tensor(tape.gradient(found["classification"], logits)))
    # Softmax minus one-hot in the hardest box alone.
    np.testing.assert_allclose(gradient, [[[0, 0], [0, 0], [-0.8, 0.8], [0, 0]]], atol=1e-6)


def test_without_objects_and_without_least_negatives_nothing_is_left():
    assert (
        loss(make_predictions(FOUR), make_targets([[0, 0, 0, 0]]), min_negatives=0)[
            "classification"
        ]
        == 0
    )


def test_ignored_boxes_take_no_part():
    # The hardest box is ignored, so the next one, of -log .5, is mined.
    found = loss(
        make_predictions(FOUR),
        make_targets([[1, 0, -1, 0]]),
        negatives_per_positive=1,
        min_negatives=0,
    )
    assert found["classification"] == pytest.approx(-math.log(0.75) - math.log(0.5), rel=1e-5)


def test_all_ignored_is_zero():
    found = loss(make_predictions(FOUR), make_targets([[-1, -1, -1, -1]]))
    assert found["classification"] == found["localization"] == found["positives"] == 0


def test_smooth_l1_values_and_slope_around_its_knee():
    x = tf.constant([-2.0, -1.0, -0.5, 0.0, 0.5, 0.999, 1.0, 1.001, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = losses.smooth_l1(x)
    np.testing.assert_allclose(
        y, [1.5, 0.5, 0.125, 0, 0.125, 0.4990005, 0.5, 0.501, 2.5], rtol=1e-6
    )
    np.testing.assert_allclose(
        tape.gradient(y, x), [-1, -1, -0.5, 0, 0.5, 0.999, 1, 1, 1], atol=1e-6
    )


def test_the_order_of_the_boxes_does_not_matter():
    rng = np.random.default_rng(0)
    labels = rng.choice([-1, 0, 0, 0, 0, 1, 2], (3, 40))
    logits, offsets, wanted = (
        rng.normal(size=(3, 40, 3)),
        rng.normal(size=(3, 40, 4)),
        rng.normal(size=(3, 40, 4)),
    )
    order = rng.permutation(40)
    before = loss(make_predictions(logits, offsets), make_targets(labels, wanted))
    after = loss(
        make_predictions(logits[:, order], offsets[:, order]),
        make_targets(labels[:, order], wanted[:, order]),
    )
    assert before == pytest.approx(after, rel=1e-5)
    assert before["positives"] == (labels > 0).sum()


# Variants, against plain Python over one number at a time.


def random_case(classes=3, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (2, 30, classes + 1)).astype("float32"), rng.choice(
        [-1, 0, 0, 0, 1, 2, 3], (2, 30)
    )


def softmax_of(row):
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def test_softmax_with_label_smoothing():
    logits, labels = random_case()
    found = np.array(losses.classification_loss(logits, tf.constant(labels), label_smoothing=0.1))
    for place in np.ndindex(2, 30):
        p, label = softmax_of(logits[place]), max(labels[place], 0)
        # .1 spread over four classes: .025 each, and .9 more for the right one.
        expected = -sum(
            (0.925 if index == label else 0.025) * math.log(p[index]) for index in range(4)
        )
        assert found[place] == pytest.approx(expected, rel=1e-4)


def test_label_smoothing_does_not_choose_the_negatives():
    # 80 classes. The first negative is certain (background logit 50), the second is not (2): -log p = log(e^2 + 80) - 2 = 2.470.
    # Smoothed, the first has .1 * 50 * 80 / 81 = 4.938 and the second .9 * 2.470 + .1 * (log(e^2 + 80) - 2 / 81) = 2.668.
    logits = np.zeros((1, 3, 81))
    logits[0, 0, 5], logits[0, 1, 0], logits[0, 2, 0] = 200.0, 50.0, 2.0
    options = {"negatives_per_positive": 1.0, "min_negatives": 0, "label_smoothing": 0.1}
    found = loss(make_predictions(logits), make_targets([[5, 0, 0]]), **options)
    positive = 0.1 * 200 * 80 / 81
    assert found["classification"] - positive == pytest.approx(2.6678, abs=1e-3)


def test_focal_softmax():
    logits, labels = random_case()
    found = np.array(
        losses.classification_loss(logits, tf.constant(labels), focal_gamma=2.0, focal_alpha=0.75)
    )
    for place in np.ndindex(2, 30):
        label = max(labels[place], 0)
        p = softmax_of(logits[place])[label]
        assert found[place] == pytest.approx(
            -(0.75 if label else 0.25) * (1 - p) ** 2 * math.log(p), rel=1e-3, abs=1e-6
        )


@pytest.mark.parametrize(
    ("gamma", "alpha", "smoothing"),
    [(None, None, 0.0), (2.0, 0.25, 0.0), (1.5, None, 0.0), (None, None, 0.2)],
)
def test_sigmoid_and_its_focal_loss(gamma, alpha, smoothing):
    logits, labels = random_case()
    found = np.array(
        losses.classification_loss(logits, tf.constant(labels), "sigmoid", gamma, alpha, smoothing)
    )
    for place in np.ndindex(2, 30):
        expected = 0.0
        for column in (1, 2, 3):
            p, is_class = 1 / (1 + math.exp(-logits[place][column])), labels[place] == column
            wanted = (1 - smoothing / 2) if is_class else smoothing / 2
            term = -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)
            if gamma is not None:
                term *= ((1 - p) if is_class else p) ** gamma
            if alpha is not None:
                term *= alpha if is_class else 1 - alpha
            expected += term
        assert found[place] == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_focal_loss_of_gamma_0_is_cross_entropy(scores):
    logits, labels = random_case()
    logits = tf.Variable(logits)
    with tf.GradientTape(persistent=True) as tape:
        plain = losses.classification_loss(logits, tf.constant(labels), scores)
        focal = losses.classification_loss(logits, tf.constant(labels), scores, 0.0)
    np.testing.assert_allclose(focal, plain, rtol=1e-6)
    gradients = [tape.gradient(value, logits) for value in (plain, focal)]
    np.testing.assert_allclose(*map(tf.convert_to_tensor, gradients), atol=1e-6)


def test_focal_loss_is_finite_where_the_answer_is_certain():
    logits = tf.Variable([[[200.0, -200.0], [-200.0, 200.0]]])
    for scores in ("softmax", "sigmoid"):
        with tf.GradientTape() as tape:
            value = losses.classification_loss(logits, tf.constant([[0, 1]]), scores, 0.5)
        np.testing.assert_allclose(value, [[0, 0]], atol=1e-6)
        assert np.isfinite(tf.convert_to_tensor(tape.gradient(value, logits))).all()


def test_with_the_focal_loss_every_box_but_the_ignored_takes_part():
    # p of the true class: .75, .5, (ignored), .8 of background.
    found = loss(make_predictions(FOUR), make_targets([[1, 0, -1, 0]]), focal_gamma=1.0)
    expected = -0.25 * math.log(0.75) - 0.5 * math.log(0.5) - 0.2 * math.log(0.8)
    assert found["classification"] == pytest.approx(expected, rel=1e-5)


def test_negatives_are_mined_by_the_sigmoid_loss_too():
    # Columns of class 1: hardness of a negative is log(1 + e^x), largest for box 2.
    logits = [[[9.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, -3.0]]]
    found = loss(
        make_predictions(logits),
        make_targets([[1, 0, 0, 0]]),
        score_activation="sigmoid",
        negatives_per_positive=1,
        min_negatives=0,
    )
    assert found["classification"] == pytest.approx(
        math.log(2) + math.log(1 + math.exp(2)), rel=1e-5
    )


# Boxes ymin, xmin, ymax, xmax; the numbers derived by hand.
PAIRS = {
    # name: box, other, IoU, GIoU, DIoU, CIoU
    "equal": ([0, 0, 2, 4], [0, 0, 2, 4], 1, 1, 1, 1),
    # Shared 1 of 2 + 2 - 1; the hull is 1 x 3 and covered. Centres 1 apart, diagonal 10. Same shape.
    "beside": ([0, 0, 1, 2], [0, 1, 1, 3], 1 / 3, 1 / 3, 1 / 3 - 1 / 10, 1 / 3 - 1 / 10),
    # Nothing shared; hull 1 x 5 of which 3 is free; centres 4 apart, diagonal 26.
    "apart": ([0, 0, 1, 1], [0, 4, 1, 5], 0, -3 / 5, -16 / 26, -16 / 26),
    # Shared 4 of 4 * 2 + 2 * 4 - 4 = 12; hull 4 x 4; one centre. Angles atan 1/2 and atan 2 differ by .6435:
    # v = 4 / pi^2 * .6435^2 = .16783, weight = v / (2/3 + v) = .20111, so CIoU = 1/3 - .033753.
    "crossed": ([0, 1, 4, 3], [1, 0, 3, 4], 1 / 3, 1 / 3 - 4 / 16, 1 / 3, 1 / 3 - 0.033753),
}


@pytest.mark.parametrize("name", PAIRS)
def test_iou_losses_on_literal_pairs(name):
    box, other, _, giou, diou, ciou = PAIRS[name]
    for measure, expected in ((losses.giou, giou), (losses.diou, diou), (losses.ciou, ciou)):
        for pair in ((box, other), (other, box)):
            assert float(
                measure(*(tf.constant([[b]], tf.float32) for b in pair))[0, 0]
            ) == pytest.approx(expected, abs=1e-5)


def test_the_weight_of_cious_aspect_ratio_has_no_gradient():
    # The pair "crossed" with the box's lower edge y = 4 moving. IoU = 4 / (2 y + 4), of slope -1/18; the centres coincide, so
    # their distance has none. Angle = atan(2 / y) - atan(2), slope -2 / (y^2 + 4) = -.1, so v has 8 / pi^2 * .6435 * .1 = .05216.
    # The weight of v stays .20111: -.05556 - .20111 * .05216.
    box = tf.Variable([0.0, 1.0, 4.0, 3.0])
    with tf.GradientTape() as tape:
        value = losses.ciou(box, tf.constant([1.0, 0.0, 3.0, 4.0]))
    assert float(tape.gradient(value, box)[2]) == pytest.approx(-0.06605, abs=1e-5)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_an_iou_loss_takes_decoded_boxes_and_only_positives(kind):
    default_boxes = np.array([[0, 0, 10, 20], [5, 5, 9, 9], [0, 0, 8, 8]], "float32")
    truth = np.array([[1, 2, 9, 20], [5, 5, 9, 9], [1, 1, 8, 8]], "float32")
    guess = np.array([[0, 0, 10, 18], [5, 5, 9, 9], [0, 0, 8, 8]], "float32")
    wanted, offsets = (np.array(coding.encode(b, default_boxes))[None] for b in (truth, guess))
    offsets[0, 1] = 1e4  # a negative whose decoded size overflows
    predicted = tf.Variable(offsets)
    with tf.GradientTape() as tape:
        found = losses.multibox_loss(
            {"logits": tf.zeros([1, 3, 3]), "offsets": predicted},
            make_targets([[1, 0, 2]], wanted),
            box_loss=kind,
            default_boxes=tf.constant(default_boxes),
        )
    measure = getattr(losses, kind)
    expected = sum(1 - float(measure(tf.constant(guess[i]), tf.constant(truth[i]))) for i in (0, 2))
    assert expected > 0.1
    assert float(found["localization"]) == pytest.approx(expected, rel=1e-4)
    gradient = np.array(tf.convert_to_tensor(tape.gradient(found["localization"], predicted)))
    assert np.isfinite(gradient).all() and gradient[0, 0].any() and not gradient[0, 1].any()


def normalized(
    name, classification=(6.0, 1.0, 8.0), localization=(3.0, 0.0, 4.0), positives=(3.0, 0.0, 1.0)
):
    found = losses.normalize(
        name, tf.constant(classification), tf.constant(localization), tf.constant(positives)
    )
    return {key: float(value) for key, value in found.items()}


def test_normalizers_by_hand():
    # Three images with 3, 0 and 1 positives.
    assert normalized("global") == {
        "classification": 15,
        "localization": 7,
        "positives": 4,
        "divisor": 4,
    }
    for name in ("caffe", "torchvision"):
        assert normalized(name) == {
            "classification": 15 / 4,
            "localization": 7 / 4,
            "positives": 4,
            "divisor": 1,
        }
    # 6 / 3 + 0 + 8 / 1 and 3 / 3 + 0 + 4 / 1, to be divided by three images.
    assert normalized("nvidia") == {
        "classification": 10,
        "localization": 5,
        "positives": 4,
        "divisor": 3,
    }


@pytest.mark.parametrize("name", ["global", "caffe", "torchvision", "nvidia"])
def test_normalizers_without_positives(name):
    found = normalized(name, (2.0,), (0.0,), (0.0,))
    assert found["classification"] == (0 if name == "nvidia" else 2)
    assert found["localization"] == 0
