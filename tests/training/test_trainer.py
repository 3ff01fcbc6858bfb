"""The training loop: checkpoints, evaluations, reports, and resuming."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.training import trainer
from ssd_tf.training.checkpoints import Checkpoints
from ssd_tf.training.monitor import read_metrics
from ssd_tf.training.step import make_loss, make_train_step
from ssd_tf.weights import runs


@pytest.fixture
def train(toy_learner, toy_batches, tmp_path):
    """A function: one run of the toy network in tmp_path / name."""

    def run(config, name="run", evaluate=None, make_dataset=toy_batches):
        trainer.train(config, toy_learner(config), make_dataset, tmp_path / name, evaluate)

    return run


def last_weights(folder):
    return runs.read_weights(tf.train.latest_checkpoint(str(folder / "checkpoints" / "last")))


def metrics_of(folder, column):
    return [row[column] for row in read_metrics(folder / "metrics.csv")]


def assert_same_weights(weights, expected):
    assert weights.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(weights[path], value, path)


def test_a_stopped_run_resumes_as_if_it_had_not_been_stopped(train, toy_config, tmp_path):
    config = toy_config(checkpoint_every=2, eval_every=3, ema=0.5, weight_decay=0.01)

    def measure(_monitor, _step):
        return {"AP": 0.5, "AP50": 0.6}

    def stop(_monitor, _step):
        raise KeyboardInterrupt

    train(config, "straight", measure)
    with pytest.raises(KeyboardInterrupt):
        train(config, "stopped", stop)
    assert metrics_of(tmp_path / "stopped", "step") == ["1", "2", "3"]
    train(config, "stopped", measure)
    assert_same_weights(last_weights(tmp_path / "stopped"), last_weights(tmp_path / "straight"))
    # A row for each step, and one for each of the evaluations at steps 3 and 6.
    for name in ("stopped", "straight"):
        steps = metrics_of(tmp_path / name, "step")
        assert steps == ["1", "2", "3", "3", "4", "5", "6", "6"]
    assert metrics_of(tmp_path / "stopped", "loss") == metrics_of(tmp_path / "straight", "loss")
    assert len(list((tmp_path / "stopped" / "checkpoints" / "last").glob("*.index"))) == 1


def test_a_finished_run_does_nothing(train, toy_config, tmp_path):
    config = toy_config(steps=2)
    train(config)
    before = last_weights(tmp_path / "run")

    def refuse(_stream_slice):
        raise AssertionError("no batch is needed")

    train(config, make_dataset=refuse)
    assert metrics_of(tmp_path / "run", "step") == ["1", "2"]
    assert_same_weights(last_weights(tmp_path / "run"), before)


def test_the_learning_rate_follows_the_schedule(train, toy_config, tmp_path):
    train(toy_config(steps=5, learning_rate=0.4, warmup_steps=2, warmup_from=0.5, decay_steps=(4,)))
    rates = [float(rate) for rate in metrics_of(tmp_path / "run", "learning_rate")]
    np.testing.assert_allclose(rates, [0.2, 0.3, 0.4, 0.4, 0.04], rtol=1e-5)


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_stops_the_run(
    train, toy_config, toy_batches, tmp_path, log_every
):
    def poison(step, batch):
        images, targets = batch
        return tf.where(step == 3, np.nan, images), targets

    def make_poisoned(stream_slice):
        return toy_batches(stream_slice).enumerate().map(poison)

    message = r"no longer finite at step (4|6) \(.*classification nan.*learning_rate"
    with pytest.raises(ValueError, match=message):
        train(toy_config(checkpoint_every=2, log_every=log_every), make_dataset=make_poisoned)
    # No checkpoint has values that are not finite.
    assert all(np.isfinite(value).all() for value in last_weights(tmp_path / "run").values())


def test_checkpoints_give_the_averaged_weights(toy_learner, toy_config, toy_batches, tmp_path):
    config = toy_config(ema=0.75)
    network, optimizer, strategy = toy_learner(config)
    loss = make_loss(config, network.default_boxes)
    train_step = make_train_step(config.train, loss, network.model, optimizer, strategy)
    average = None
    for images, targets in toy_batches((0, 1, 0)).take(3):
        train_step(images, targets)
        kernel = network.model.get_layer("conv").kernel.numpy()
        average = kernel if average is None else 0.75 * average + 0.25 * kernel
    Checkpoints(tmp_path, network.model, optimizer).save("last")
    weights = runs.read_weights(runs.find_checkpoint(tmp_path))
    np.testing.assert_allclose(weights["conv/kernel"], average, rtol=1e-5)
    assert np.abs(average - kernel).max() > 1e-4
    moving_mean = network.model.get_layer("bn").moving_mean.numpy()
    np.testing.assert_array_equal(weights["bn/moving_mean"], moving_mean)


def test_evaluation_gets_averaged_weights_and_training_resumes_with_the_raw_ones(
    train, toy_config, toy_learner, toy_batches, tmp_path
):
    config = toy_config(steps=4, eval_every=2, ema=0.5)
    learner = toy_learner(config)
    kernel = learner.network.model.get_layer("conv").kernel
    evaluated = []

    def evaluate(_monitor, _step):
        evaluated.append(kernel.numpy())
        return {"AP": 0.5, "AP50": 0.5}

    trainer.train(config, learner, toy_batches, tmp_path / "evaluated", evaluate)
    train(config, "plain")
    np.testing.assert_array_equal(evaluated[1], last_weights(tmp_path / "plain")["conv/kernel"])
    np.testing.assert_array_equal(evaluated[1], last_weights(tmp_path / "evaluated")["conv/kernel"])
    assert not np.array_equal(evaluated[0], evaluated[1])
    assert not np.array_equal(evaluated[1], kernel.numpy())


def test_best_has_the_highest_ap(train, toy_config, tmp_path):
    ap = {2: 0.4, 4: 0.7, 6: 0.6}

    def evaluate(_monitor, step):
        return {"AP": ap[step], "AP50": ap[step]}

    train(toy_config(eval_every=2), evaluate=evaluate)
    assert runs.find_checkpoint(tmp_path / "run").endswith("best/ckpt-4")
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    reported = {row["step"]: row["AP"] for row in rows if row["AP"]}
    assert reported == {"2": "0.4", "4": "0.7", "6": "0.6"}


def test_without_evaluation_there_is_no_best(train, toy_config, tmp_path):
    train(toy_config(steps=1))
    assert runs.find_checkpoint(tmp_path / "run").endswith("last/ckpt-1")
