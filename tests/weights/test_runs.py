import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from ssd_tf.weights import runs


def make_model(seed=0):
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 12, 3))
    x = layers.Conv2D(5, 4, strides=4, name="conv")(image)
    x = layers.BatchNormalization(name="bn")(x)
    return keras.Model(image, layers.Conv2D(3, 1, name="logits")(x))


def save(model, folder, name, averages=None):
    """Save a checkpoint of step 3 with the keys of a run's; averages: {path: array}."""
    state = tf.train.Checkpoint(
        weights={variable.path: variable.value for variable in model.variables},
        averages={path: tf.Variable(value) for path, value in (averages or {}).items()},
    )
    state.write(str(folder / "checkpoints" / name / "ckpt-3"))


def values_of(model):
    return {variable.path: variable.numpy() for variable in model.variables}


@pytest.fixture
def saved(tmp_path):
    """A model, and its weights as read from its checkpoint."""
    model = make_model()
    save(model, tmp_path, "last")
    return model, runs.read_weights(runs.find_checkpoint(tmp_path))


def test_weights_come_back_by_path(saved):
    model, weights = saved
    expected = values_of(model)
    assert sorted(weights) == sorted(expected)
    other = make_model(seed=1)
    assert not np.array_equal(values_of(other)["conv/kernel"], expected["conv/kernel"])
    assert runs.assign_weights(other, weights) == []
    for path, value in values_of(other).items():
        np.testing.assert_array_equal(value, expected[path], path)


def test_averaged_weights_replace_the_raw_ones(tmp_path):
    model = make_model()
    save(model, tmp_path, "last", averages={"bn/moving_mean": np.arange(5.0)})
    prefix = runs.find_checkpoint(tmp_path)
    weights = runs.read_weights(prefix)
    assert weights["bn/moving_mean"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(weights["conv/kernel"], values_of(model)["conv/kernel"])
    assert runs.read_weights(prefix, averaged=False)["bn/moving_mean"].tolist() == [0] * 5


def test_best_comes_before_last(tmp_path):
    model = make_model()
    save(model, tmp_path, "last")
    assert runs.find_checkpoint(tmp_path).endswith("last/ckpt-3")
    save(model, tmp_path, "best")
    assert runs.find_checkpoint(tmp_path).endswith("best/ckpt-3")


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*checkpoints: train with"):
        runs.find_checkpoint(tmp_path)


@pytest.fixture
def misfits(saved):
    """The weights of `saved` with logits for another number of classes and without bn/gamma."""
    _, weights = saved
    weights["logits/kernel"] = np.zeros((1, 1, 5, 21), np.float32)
    del weights["bn/gamma"]
    return weights


def test_weights_that_do_not_fit_are_refused(misfits):
    model = make_model(seed=1)
    before = values_of(model)
    message = r"does not fit the model: bn/gamma: expected shape \(5,\), got nothing \(2 of 8"
    with pytest.raises(ValueError, match=message):
        runs.assign_weights(model, misfits)
    for path, value in values_of(model).items():
        np.testing.assert_array_equal(value, before[path], path)


def test_weights_that_do_not_fit_are_named(saved, misfits):
    model = make_model(seed=1)
    before = values_of(model)
    mismatches = runs.assign_weights(model, misfits, allow_partial=True)
    found = [(mismatch.variable.path, mismatch.found) for mismatch in mismatches]
    assert found == [("bn/gamma", None), ("logits/kernel", (1, 1, 5, 21))]
    after = values_of(model)
    np.testing.assert_array_equal(after["conv/kernel"], values_of(saved[0])["conv/kernel"])
    np.testing.assert_array_equal(after["logits/kernel"], before["logits/kernel"])


def test_a_mismatch_says_what_was_expected(misfits):
    mismatches = runs.assign_weights(make_model(), misfits, allow_partial=True)
    line = "logits/kernel: expected shape (1, 1, 5, 3), got shape (1, 1, 5, 21)"
    assert str(mismatches[1]) == line


def test_nothing_fits():
    with pytest.raises(ValueError, match="does not fit the model"):
        runs.assign_weights(make_model(), {"else": np.zeros(3)}, allow_partial=True)
