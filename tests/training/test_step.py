"""One update of the toy network, by hand, op by op; test_loop.py has compiled steps."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import check_config
from ssd_tf.training.step import make_batch_loss, make_l2_penalty, make_loss, make_train_step


@pytest.fixture
def update(toy_state):
    """A function: one update with every bias at 1; returns the values before and after by path."""

    def run(config, images, targets):
        state = toy_state(config)
        model = state.network.model
        for variable in model.trainable_variables:
            if variable.name == "bias":
                variable.assign(tf.ones_like(variable.value))
        before = {variable.path: variable.numpy() for variable in model.variables}
        values = make_train_step(config, state)(tf.constant(images), tensors(targets))
        after = {variable.path: variable.numpy() for variable in model.variables}
        return before, after, values

    return run


@pytest.fixture
def values_of_zeros(toy_state):
    """A function: the StepValues of a batch for a network that predicts only zeros."""

    def run(config, images, targets):
        state = toy_state(config)
        for variable in state.network.model.trainable_variables:
            variable.assign(tf.zeros_like(variable.value))
        return make_train_step(config, state)(tf.constant(images), tensors(targets))

    return run


def tensors(targets):
    return {name: tf.constant(value) for name, value in targets.items()}


def all_ignored_batch(size=2):
    """A batch in which every default box is ignored."""
    targets = {
        "offsets": np.zeros((size, 6, 4), np.float32),
        "labels": np.full((size, 6), -1, np.int32),
    }
    return np.full((size, 8, 12, 3), 90.0, np.float32), targets


def hand_batch():
    """One image with two positives of class 1, with offsets of 0.5, and four negatives.

    Its six cells differ, so batch norm has a variance to divide by.
    """
    images = np.random.default_rng(0).uniform(0, 255, (1, 8, 12, 3)).astype(np.float32)
    labels = np.array([[1, 0, 0, 1, 0, 0]], np.int32)
    offsets = 0.5 * (labels > 0)[..., None] * np.ones((1, 6, 4))
    return images, {"offsets": offsets.astype(np.float32), "labels": labels}


def test_make_loss_takes_every_value_of_the_config():
    values = {
        "negatives_per_positive": 5.0,
        "min_negatives": 7,
        "localization_weight": 2.0,
        "box_loss": "giou",
        "normalizer": "nvidia",
    }
    boxes = {"preset": "paper", "variances": [0.3, 0.4, 0.5, 0.6]}
    model = {"score_activation": "sigmoid"}
    config = check_config({"boxes": boxes, "loss": values, "model": model}, "test")
    default_boxes = np.array([[0.1, 0.2, 0.5, 0.75]], np.float32)
    loss = make_loss(config, default_boxes)
    assert loss.loss is config.loss
    assert loss.score_activation == "sigmoid"
    assert loss.variances == (0.3, 0.4, 0.5, 0.6)
    assert loss.default_boxes is default_boxes


def test_the_focal_loss_takes_gamma_and_alpha_of_the_config():
    focal = {"focal_gamma": 2.0, "focal_alpha": 0.25}
    config = check_config({"boxes": {"preset": "paper"}, "loss": focal}, "test")
    loss = make_loss(config, np.array([[0.0, 0.0, 1.0, 1.0]], np.float32))
    zeros = {"offsets": tf.zeros([1, 1, 4]), "logits": tf.zeros([1, 1, 3])}
    targets = {"offsets": tf.zeros([1, 1, 4]), "labels": tf.constant([[2]])}
    # Three equal logits: p = 1/3, so .25 (1 - 1/3)^2 ln 3 = .25 * .44444 * 1.09861.
    assert float(loss(zeros, targets).classification[0]) == pytest.approx(0.122068, abs=1e-6)


def test_giou_decodes_with_the_configured_variances(tiny_default_boxes):
    values = {
        "boxes": {"levels": [{"size": 16}, {"size": 40}], "variances": [0.5, 0.1, 0.2, 0.2]},
        "model": {"input_hw": [64, 96], "num_levels": 2, "backbone": {"name": "plain"}},
        "loss": {"box_loss": "giou", "min_negatives": 0},
    }
    loss = make_loss(check_config(values, "test"), tiny_default_boxes)
    # The object is the first box, moved down by 1.5 * .5 of its 16 pixels.
    labels = np.array([[1, 0]], np.int32)
    offsets = np.zeros((1, 2, 4), np.float32)
    offsets[0, 0, 0] = 1.5
    predictions = {"offsets": tf.zeros([1, 2, 4]), "logits": tf.zeros([1, 2, 3])}
    sums = loss(predictions, {"offsets": offsets, "labels": labels})
    # 4 of 16 rows are shared: IoU 4 / 28; the two cover the 28 rows around them.
    assert float(sums.localization[0]) == pytest.approx(1 - 4 / 28, rel=1e-5)


@pytest.fixture
def tiny_default_boxes():
    """Two squares of 16 pixels in an image of 64 x 96 pixels, normalised."""
    boxes = np.array([[0, 0, 16, 16], [16, 32, 32, 48]], np.float32)
    return boxes / np.array([64, 96, 64, 96], np.float32)


def test_loss_parts_are_divided_by_the_positives(values_of_zeros, toy_config):
    values = values_of_zeros(toy_config(batch_size=1), *hand_batch())
    # All predictions are 0. Cross-entropy: log 3 for each of 2 positives and of the 4 negatives
    # that there are (6 are asked for), / 2. Distance: 4 coordinates of 0.5 * 0.5^2 = 0.125 for each
    # of 2 positives, / 2.
    assert float(values.classification) == pytest.approx(3 * math.log(3), rel=1e-6)
    assert float(values.localization) == pytest.approx(0.5, rel=1e-6)
    assert float(values.loss) == pytest.approx(3 * math.log(3) + 0.5, rel=1e-6)
    assert float(values.positives_per_image) == 2
    assert values.positives_per_level.numpy().tolist() == [2]


@pytest.mark.parametrize(
    ("normalizer", "classification", "localization"),
    # The image above, of 6 log 3 and 1.0 over 2 positives, and one without objects, of 3 log 3 for
    # its three negatives.
    [
        ("global", 4.5, 0.5),
        ("torchvision", 4.5, 0.5),
        ("nvidia", (6 / 2 + 0) / 2, (1 / 2 + 0) / 2),
    ],
)
def test_loss_parts_are_divided_as_the_normalizer_says(
    values_of_zeros, toy_config, normalizer, classification, localization
):
    config = toy_config()
    loss = config.loss.model_copy(update={"normalizer": normalizer})
    config = config.model_copy(update={"loss": loss})
    images, targets = hand_batch()
    images = np.concatenate([images, images])
    targets = {
        name: np.concatenate([value, np.zeros_like(value)]) for name, value in targets.items()
    }
    values = values_of_zeros(config, images, targets)
    assert float(values.classification) == pytest.approx(classification * math.log(3), rel=1e-6)
    assert float(values.localization) == pytest.approx(localization, rel=1e-6)
    assert float(values.positives_per_image) == 1
    assert values.positives_per_level.numpy().tolist() == [1]


def test_a_batch_that_is_all_ignored_changes_nothing(toy_config, update):
    before, after, values = update(toy_config(bn="frozen"), *all_ignored_batch())
    assert float(values.loss) == 0
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value, path)


def test_weight_decay_shrinks_kernels_only(toy_config, update):
    # L2 in the gradient: w - 0.5 * 0.1 * w = 0.95 w, as the loss itself has no gradient.
    config = toy_config(learning_rate=0.5, weight_decay=0.1, bn="frozen")
    before, after, _ = update(config, *all_ignored_batch())
    kernels = [path for path in before if path.endswith("kernel")]
    assert sorted(kernels) == ["conv/kernel", "logits/kernel", "offsets/kernel"]
    for path, value in before.items():
        expected = value * (0.95 if path in kernels else 1.0)
        np.testing.assert_allclose(after[path], expected, rtol=1e-6, err_msg=path)


def test_clip_norm_shortens_the_whole_gradient(toy_config, update):
    def change(**clip):
        config = toy_config(learning_rate=1.0, bn="frozen", **clip)
        before, after, _ = update(config, *hand_batch())
        return np.concatenate([(after[path] - before[path]).ravel() for path in before])

    free = change()
    clipped = change(clip_norm=0.25)
    assert np.linalg.norm(free) > 1
    np.testing.assert_allclose(np.linalg.norm(clipped), 0.25, rtol=1e-4)
    np.testing.assert_allclose(clipped, free * 0.25 / np.linalg.norm(free), atol=1e-6)
    np.testing.assert_allclose(change(clip_norm=1e6), free, atol=1e-6)


def test_the_values_of_a_step(toy_config, toy_state):
    config = toy_config(batch_size=1, weight_decay=0.5, clip_norm=1e-3, learning_rate=0.25)
    state = toy_state(config)
    model = state.network.model
    kernels = [v.numpy() for v in model.trainable_variables if v.name == "kernel"]
    # Half of the weight decay, times the sum of squares.
    penalty = 0.25 * sum((kernel**2).sum() for kernel in kernels)
    assert float(make_l2_penalty(config, state)()) == pytest.approx(penalty, rel=1e-5)
    images, targets = hand_batch()
    values = make_train_step(config, state)(tf.constant(images), tensors(targets))
    assert float(values.learning_rate) == 0.25
    assert float(values.gradient_norm) > 1  # not that of the clipped gradient
    assert int(state.step) == 1


def test_the_gradient_norm_is_without_weight_decay(toy_config, update):
    norms = []
    for decay in (0.0, 0.5):
        config = toy_config(batch_size=1, bn="frozen", weight_decay=decay)
        *_, values = update(config, *hand_batch())
        norms.append(float(values.gradient_norm))
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_the_loss_of_a_batch_changes_nothing(toy_config, toy_state):
    config = toy_config(batch_size=1)
    state = toy_state(config)
    variables = state.network.model.variables
    before = [variable.numpy() for variable in variables]
    images, targets = hand_batch()
    found = float(make_batch_loss(config, state)(tf.constant(images), tensors(targets)))
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, variable.path)
    frozen = toy_config(batch_size=1, bn="frozen")
    values = make_train_step(frozen, toy_state(frozen))(tf.constant(images), tensors(targets))
    assert found == pytest.approx(float(values.loss), rel=1e-5)


def test_averages_follow_the_update(toy_config, toy_state):
    config = toy_config(batch_size=1, ema=0.5, learning_rate=0.5)
    state = toy_state(config)
    kernel = state.network.model.get_layer("conv").kernel
    before = kernel.numpy()
    images, targets = hand_batch()
    make_train_step(config, state)(tf.constant(images), tensors(targets))
    after = kernel.numpy()
    assert np.abs(after - before).max() > 0.01
    # The decay of the first update is (1 + 0) / (10 + 0).
    average = state.averages.by_path["conv/kernel"].numpy()
    np.testing.assert_allclose(average, 0.1 * before + 0.9 * after, atol=1e-6)


def test_micro_batches_give_the_gradient_of_the_batch(toy_config, toy_state, make_toy_batch):
    def train(**accumulate):
        config = toy_config(
            batch_size=4, bn="frozen", clip_norm=0.5, weight_decay=0.01, ema=0.5, **accumulate
        )
        state = toy_state(config)
        step = make_train_step(config, state)
        for index in range(2):  # the second one's update depends on the first one's
            images, targets = make_toy_batch(index, size=4)
            values = step(tf.constant(images), tensors(targets))
        return values, {v.path: v.numpy() for v in state.network.model.variables}

    expected_values, expected = train()
    for count in (2, 4):
        values, weights = train(accumulate=count)
        for name, value in expected_values._asdict().items():
            np.testing.assert_allclose(getattr(values, name), value, rtol=1e-4, err_msg=name)
        for path, value in expected.items():
            np.testing.assert_allclose(weights[path], value, atol=1e-6, err_msg=path)


def test_micro_batches_share_the_divisor_of_the_whole_batch(values_of_zeros, toy_config):
    """The normalizer torchvision divides by the positives of the replica, not of a micro-batch."""
    images, targets = hand_batch()
    images = np.concatenate([images, images])
    targets = {
        name: np.concatenate([value, np.zeros_like(value)]) for name, value in targets.items()
    }
    config = toy_config(accumulate=2)
    loss = config.loss.model_copy(update={"normalizer": "torchvision"})
    values = values_of_zeros(config.model_copy(update={"loss": loss}), images, targets)
    # 6 log 3 of the first image and 3 log 3 of the second, / 2.
    assert float(values.classification) == pytest.approx(4.5 * math.log(3), rel=1e-6)


def test_xla_computes_the_same(toy_config, toy_state, make_toy_batch):
    losses = {}
    for xla in (False, True):
        config = toy_config(batch_size=2, xla=xla)
        state = toy_state(config)
        step = make_train_step(config, state)
        batches = [make_toy_batch(index) for index in range(3)]
        losses[xla] = [float(step(tf.constant(i), tensors(t)).loss) for i, t in batches]
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-4)


def test_mixed_float16_skips_a_step_that_overflows(toy_config, toy_state):
    config = toy_config(precision="mixed_float16", bn="frozen", batch_size=1)
    state = toy_state(config)
    kernel = state.network.model.get_layer("conv").kernel
    before = kernel.numpy()
    images, targets = hand_batch()
    step = make_train_step(config, state)
    state.optimizer.dynamic_scale.assign(3e38)  # the scaled loss overflows
    step(tf.constant(images), tensors(targets))
    np.testing.assert_array_equal(kernel.numpy(), before)
    assert float(state.optimizer.dynamic_scale) == pytest.approx(1.5e38)
    state.optimizer.dynamic_scale.assign(1024.0)
    values = step(tf.constant(images), tensors(targets))
    assert np.abs(kernel.numpy() - before).max() > 1e-5
    assert np.isfinite(float(values.gradient_norm))


@pytest.mark.parametrize("clip_norm", [0.5, 50.0])
def test_the_loss_scale_does_not_change_the_update(toy_config, update, clip_norm):
    """Clipping and L2 see the true gradient, of a norm between these, whatever the scale."""
    settings = {"bn": "frozen", "clip_norm": clip_norm, "weight_decay": 0.1, "batch_size": 1}
    _, expected, _ = update(toy_config(**settings), *hand_batch())
    _, after, _ = update(toy_config(precision="mixed_float16", **settings), *hand_batch())
    for path, value in expected.items():
        np.testing.assert_allclose(after[path], value, atol=1e-6, err_msg=path)


def test_batch_norm_in_training_averages_the_statistics_of_the_batch(toy_config, update):
    images, targets = hand_batch()
    before, after, _ = update(toy_config(bn="train"), images, targets)
    # The convolution takes each cell of 4 x 4 pixels once.
    cells = (images / 127.5 - 1).reshape(2, 4, 3, 4, 3).swapaxes(1, 2).reshape(6, 48)
    features = cells @ before["conv/kernel"].reshape(48, 5) + before["conv/bias"]
    assert features.var(0).min() > 0.01
    # Momentum .5, from a mean of 0 and a variance of 1.
    np.testing.assert_allclose(after["bn/moving_mean"], 0.5 * features.mean(0), atol=1e-4)
    np.testing.assert_allclose(after["bn/moving_variance"], 0.5 + 0.5 * features.var(0), rtol=1e-4)
    assert np.abs(after["bn/gamma"] - before["bn/gamma"]).max() > 1e-4


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale(toy_config, update):
    before, after, _ = update(toy_config(bn="frozen"), *hand_batch())
    for name in ("bn/moving_mean", "bn/moving_variance"):
        np.testing.assert_array_equal(after[name], before[name])
    assert np.abs(after["bn/gamma"] - before["bn/gamma"]).max() > 1e-4


def test_a_micro_batch_is_every_kth_image(toy_config, toy_state):
    """Batch norm averages the statistics of images 0 and 2, then those of 1 and 3."""
    config = toy_config(batch_size=4, accumulate=2)
    state = toy_state(config)
    model = state.network.model
    model.get_layer("conv").kernel.assign(np.ones((4, 4, 3, 5), np.float32) / 48)
    # An image of the value v is v / 127.5 - 1 everywhere, here -1, 0, 1, 3.
    images = np.ones((4, 8, 12, 3), np.float32)
    images *= np.reshape([0.0, 127.5, 255.0, 510.0], (4, 1, 1, 1))
    targets = {
        "offsets": np.zeros((4, 6, 4), np.float32),
        "labels": np.ones((4, 6), np.int32),
    }
    make_train_step(config, state)(tf.constant(images), tensors(targets))
    # The means are 0 and 1.5; momentum .5, from 0: (0 * .5 + 0 * .5) * .5 + 1.5 * .5.
    np.testing.assert_allclose(model.get_layer("bn").moving_mean, [0.75] * 5, rtol=1e-5)
