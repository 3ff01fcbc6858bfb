import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import check_config
from ssd_tf.training import checkpoints, losses, monitor, trainer

ONE = tf.distribute.get_strategy()


@pytest.fixture
def train(toy_model, toy_batches, tmp_path):
    """A function: one run of the toy model in tmp_path / name; gives its model."""

    def run(config, name="run", evaluate=None, make_dataset=toy_batches):
        model = toy_model()
        optimizer = trainer.make_optimizer(config, model)
        trainer.train(config, model, optimizer, ONE, make_dataset, tmp_path / name, evaluate)
        return model

    return run


@pytest.fixture
def one_step(toy_model):
    """A function: one update of the toy model, with every bias at 1; gives values before and after it by path."""

    def run(config, images, targets):
        model = toy_model()
        for variable in model.trainable_variables:
            if variable.name == "bias":
                variable.assign(tf.ones_like(variable.value))
        before = {variable.path: variable.numpy() for variable in model.variables}
        step = trainer.make_train_step(config, model, trainer.make_optimizer(config, model), ONE)
        values = step(
            tf.constant(images), {name: tf.constant(value) for name, value in targets.items()}
        )
        return before, {variable.path: variable.numpy() for variable in model.variables}, values

    return run


def last_weights(folder):
    return checkpoints.read_weights(
        tf.train.latest_checkpoint(str(folder / "checkpoints" / "last"))
    )


def steps_of(folder):
    return [int(row["step"]) for row in monitor.read_metrics(folder / "metrics.csv")]


def nothing_to_learn(size=2):
    """A batch in which every default box is ignored."""
    return np.full((size, 8, 12, 3), 90.0, np.float32), {
        "offsets": np.zeros((size, 6, 4), np.float32),
        "labels": np.full((size, 6), -1, np.int32),
    }


def hand_batch():
    """One picture: two positives of class 1 with offsets of 0.5, four negatives."""
    labels = np.array([[1, 0, 0, 1, 0, 0]], np.int32)
    offsets = 0.5 * (labels > 0)[..., None] * np.ones((1, 6, 4))
    return np.full((1, 8, 12, 3), 200.0, np.float32), {
        "offsets": offsets.astype(np.float32),
        "labels": labels,
    }


def test_iou_losses_measure_pixels_and_decode_by_the_configs_variances():
    values = {
        "model": {"input_hw": [64, 96], "num_levels": 2, "backbone": {"name": "plain"}},
        "boxes": {"levels": [{"size": 16}, {"size": 40}], "variances": [0.5, 0.1, 0.2, 0.2]},
        "loss": {"box_loss": "diou", "min_negatives": 0},
    }
    # 4 x 6 cells of 16 pixels, then 2 x 3 of 32; the object is the first box moved down by 1 * .5 of its 16 pixels.
    labels = np.zeros((1, 30), np.int32)
    offsets = np.zeros((1, 30, 4), np.float32)
    labels[0, 0], offsets[0, 0, 0] = 1, 1.0
    predictions = {"offsets": tf.zeros([1, 30, 4]), "logits": tf.zeros([1, 30, 3])}
    options = trainer._loss_options(check_config(values, "test"))
    found = losses.multibox_loss(predictions, {"offsets": offsets, "labels": labels}, **options)
    # IoU 1/3; the centres are 8 pixels apart, and the diagonal of the 24 x 16 around both is sqrt(832).
    assert float(found["localization"]) == pytest.approx(1 - (1 / 3 - 64 / 832), rel=1e-5)


def test_loss_parts_are_divided_by_the_positives(toy_model, toy_config):
    model = toy_model()
    for variable in model.trainable_variables:
        variable.assign(tf.zeros_like(variable.value))
    config = toy_config()
    step = trainer.make_train_step(config, model, trainer.make_optimizer(config, model), ONE)
    images, targets = hand_batch()
    values = step(
        tf.constant(images), {name: tf.constant(value) for name, value in targets.items()}
    )
    # All predictions are 0. Cross-entropy: log 3 for each of 2 positives and the 4 negatives there are (6 are wanted), / 2.
    # Distance: 4 coordinates of 0.5 * 0.5^2 = 0.125 for each of 2 positives, / 2.
    assert float(values["classification"]) == pytest.approx(3 * math.log(3), rel=1e-6)
    assert float(values["localization"]) == pytest.approx(0.5, rel=1e-6)
    assert float(values["loss"]) == pytest.approx(3 * math.log(3) + 0.5, rel=1e-6)
    assert float(values["positives"]) == 2


@pytest.mark.parametrize(
    ("normalizer", "classification", "localization"),
    # The picture above, of 6 log 3 and 1.0 over 2 positives, and one without objects, of 3 log 3 for its three negatives.
    [
        ("global", 4.5, 0.5),
        ("caffe", 4.5, 0.5),
        ("torchvision", 4.5, 0.5),
        ("nvidia", (6 / 2 + 0) / 2, (1 / 2 + 0) / 2),
    ],
)
def test_loss_parts_are_divided_by_what_the_normaliser_says(
    toy_model, toy_config, normalizer, classification, localization
):
    model, config = toy_model(), toy_config()
    for variable in model.trainable_variables:
        variable.assign(tf.zeros_like(variable.value))
    config = config.model_copy(
        update={"loss": config.loss.model_copy(update={"normalizer": normalizer})}
    )
    step = trainer.make_train_step(config, model, trainer.make_optimizer(config, model), ONE)
    images, targets = hand_batch()
    targets = {
        name: tf.constant(np.concatenate([value, np.zeros_like(value)]))
        for name, value in targets.items()
    }
    values = step(tf.constant(np.concatenate([images, images])), targets)
    assert float(values["classification"]) == pytest.approx(classification * math.log(3), rel=1e-6)
    assert float(values["localization"]) == pytest.approx(localization, rel=1e-6)


def test_nothing_to_learn_changes_nothing(toy_config, one_step):
    before, after, values = one_step(toy_config(bn="frozen"), *nothing_to_learn())
    assert float(values["loss"]) == 0
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value, path)


def test_weight_decay_shrinks_kernels_alone(toy_config, one_step):
    # L2 in the gradient: w - 0.5 * 0.1 * w = 0.95 w, where the loss itself has no gradient.
    config = toy_config(learning_rate=0.5, momentum=0.0, weight_decay=0.1, bn="frozen")
    before, after, _ = one_step(config, *nothing_to_learn())
    kernels = [path for path in before if path.endswith("kernel")]
    assert sorted(kernels) == ["conv/kernel", "logits/kernel", "offsets/kernel"]
    for path, value in before.items():
        np.testing.assert_allclose(
            after[path], value * (0.95 if path in kernels else 1.0), rtol=1e-6, err_msg=path
        )


def test_clip_norm_shortens_the_whole_gradient(toy_config, one_step):
    options = {"learning_rate": 1.0, "momentum": 0.0, "bn": "frozen"}

    def change(**more):
        before, after, _ = one_step(toy_config(**options, **more), *hand_batch())
        return np.concatenate([(after[path] - before[path]).ravel() for path in before])

    free, clipped = change(), change(clip_norm=0.25)
    assert np.linalg.norm(free) > 1
    np.testing.assert_allclose(np.linalg.norm(clipped), 0.25, rtol=1e-4)
    np.testing.assert_allclose(clipped, free * 0.25 / np.linalg.norm(free), atol=1e-6)
    np.testing.assert_allclose(change(clip_norm=1e6), free, atol=1e-6)


@pytest.mark.parametrize(("bn", "moves"), [("train", True), ("frozen", False)])
def test_batch_norm_statistics_move_only_where_they_train(toy_config, one_step, bn, moves):
    before, after, _ = one_step(toy_config(bn=bn), *hand_batch())
    assert (not np.array_equal(before["bn/moving_mean"], after["bn/moving_mean"])) == moves
    assert not np.array_equal(before["bn/gamma"], after["bn/gamma"])


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(train, toy_config, tmp_path):
    config = toy_config(checkpoint_every=2, eval_every=3, ema=0.5, weight_decay=0.01)

    def measure(_monitor, _step):
        return {"AP": 0.5, "AP50": 0.6}

    def stop(_monitor, _step):
        raise KeyboardInterrupt

    train(config, "straight", measure)
    with pytest.raises(KeyboardInterrupt):
        train(config, "stopped", stop)
    assert steps_of(tmp_path / "stopped") == [1, 2, 3]
    train(config, "stopped", measure)
    straight, stopped = last_weights(tmp_path / "straight"), last_weights(tmp_path / "stopped")
    assert straight.keys() == stopped.keys()
    for path, value in straight.items():
        np.testing.assert_array_equal(stopped[path], value, path)
    # A row for each step, and a row for each of the evaluations at steps 3 and 6.
    assert (
        steps_of(tmp_path / "stopped")
        == steps_of(tmp_path / "straight")
        == [1, 2, 3, 3, 4, 5, 6, 6]
    )
    losses = [
        [row["loss"] for row in monitor.read_metrics(tmp_path / n / "metrics.csv")]
        for n in ("straight", "stopped")
    ]
    assert losses[0] == losses[1]
    assert len(list((tmp_path / "stopped" / "checkpoints" / "last").glob("*.index"))) == 1


def test_a_run_that_is_over_does_nothing(train, toy_config, tmp_path):
    config = toy_config(steps=2)
    train(config)
    before = last_weights(tmp_path / "run")

    def refuse(*_):
        raise AssertionError("no batch is wanted")

    train(config, make_dataset=refuse)
    assert steps_of(tmp_path / "run") == [1, 2]
    for path, value in last_weights(tmp_path / "run").items():
        np.testing.assert_array_equal(before[path], value, path)


def test_the_learning_rate_is_the_schedules(train, toy_config, tmp_path):
    train(toy_config(steps=5, learning_rate=0.4, warmup_steps=2, warmup_from=0.5, decay_steps=(4,)))
    rates = [
        float(row["learning_rate"])
        for row in monitor.read_metrics(tmp_path / "run" / "metrics.csv")
    ]
    np.testing.assert_allclose(rates, [0.2, 0.3, 0.4, 0.4, 0.04], rtol=1e-5)


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_stops_the_run(
    train, toy_config, toy_batches, tmp_path, log_every
):
    def poisoned(start, *_):
        return (
            toy_batches(start)
            .enumerate()
            .map(lambda step, batch: (tf.where(step == 3, np.nan, batch[0]), batch[1]))
        )

    with pytest.raises(
        ValueError, match=r"no longer finite at step (4|6) \(.*classification nan.*learning_rate"
    ):
        train(toy_config(checkpoint_every=2, log_every=log_every), make_dataset=poisoned)
    # Nothing that is spoilt was kept.
    assert all(np.isfinite(value).all() for value in last_weights(tmp_path / "run").values())


def test_checkpoints_hand_out_the_averaged_weights(toy_model, toy_config, toy_batches, tmp_path):
    config, model = toy_config(ema=0.75), toy_model()
    optimizer = trainer.make_optimizer(config, model)
    step = trainer.make_train_step(config, model, optimizer, ONE)
    average = None
    for images, targets in toy_batches(0).take(3):
        step(images, targets)
        kernel = model.get_layer("conv").kernel.numpy()
        average = kernel if average is None else 0.75 * average + 0.25 * kernel
    checkpoints.Checkpoints(tmp_path, model, optimizer).save("last")
    weights = checkpoints.read_weights(checkpoints.find_checkpoint(tmp_path))
    np.testing.assert_allclose(weights["conv/kernel"], average, rtol=1e-5)
    assert np.abs(average - kernel).max() > 1e-4
    np.testing.assert_array_equal(
        weights["bn/moving_mean"], model.get_layer("bn").moving_mean.numpy()
    )


def test_evaluation_sees_the_averages_and_training_goes_on_with_the_raw_weights(
    train, toy_config, toy_model, toy_batches, tmp_path
):
    seen = []
    model = toy_model()
    config = toy_config(steps=4, eval_every=2, ema=0.5)
    optimizer = trainer.make_optimizer(config, model)

    def evaluate(_monitor, _step):
        seen.append(model.get_layer("conv").kernel.numpy())
        return {"AP": 0.5, "AP50": 0.5}

    trainer.train(config, model, optimizer, ONE, toy_batches, tmp_path / "evaluated", evaluate)
    train(config, "plain")
    np.testing.assert_array_equal(seen[1], last_weights(tmp_path / "plain")["conv/kernel"])
    np.testing.assert_array_equal(seen[1], last_weights(tmp_path / "evaluated")["conv/kernel"])
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], model.get_layer("conv").kernel.numpy())


def test_best_is_the_one_of_the_highest_ap(train, toy_config, tmp_path):
    scores = {2: 0.4, 4: 0.7, 6: 0.6}

    def evaluate(_monitor, step):
        return {"AP": scores[step], "AP50": scores[step]}

    train(toy_config(eval_every=2), evaluate=evaluate)
    assert checkpoints.find_checkpoint(tmp_path / "run").endswith("best/ckpt-4")
    rows = {
        int(row["step"]): row["AP"]
        for row in monitor.read_metrics(tmp_path / "run" / "metrics.csv")
        if row["AP"]
    }
    assert rows == {2: "0.4", 4: "0.7", 6: "0.6"}


def test_without_evaluation_there_is_no_best(train, toy_config, tmp_path):
    train(toy_config(steps=1))
    assert checkpoints.find_checkpoint(tmp_path / "run").endswith("last/ckpt-1")


def test_mixed_bfloat16_computes_in_bfloat16_and_keeps_weights_and_outputs_in_float32(tiny_config):
    train = tiny_config.train.model_copy(update={"precision": "mixed_bfloat16"})
    mixed = tiny_config.model_copy(update={"train": train})
    model, plain = trainer.make_network(mixed, 2).model, trainer.make_network(tiny_config, 2).model
    assert {layer.compute_dtype for layer in model.layers if layer.name.endswith("_conv")} == {
        "bfloat16"
    }
    assert {variable.dtype for variable in model.variables} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    image = (
        np.random.default_rng(0)
        .uniform(0, 255, (1, *tiny_config.model.input_hw, 3))
        .astype(np.float32)
    )
    found, wanted = model(image)["logits"], plain(image)["logits"]
    assert found.dtype == tf.float32
    difference = np.abs(found - wanted).max()
    assert 0 < difference < 0.05 * np.abs(wanted).max()  # bfloat16 keeps 8 bits
