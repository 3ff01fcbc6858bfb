import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from ssd_tf.errors import ConfigError
from ssd_tf.weights import run_files, runs
from ssd_tf.weights.assign import assign


def make_model(seed=0):
    random.seed(seed)  # from which initializers take theirs
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
    assert assign(other, runs.group_by_layer(weights, other), "the run") == {}
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
    """The arrays of `saved` with logits for another number of classes and without bn/gamma."""
    model, weights = saved
    del weights["bn/gamma"]
    arrays = runs.group_by_layer(weights, model)
    return arrays | {"logits": [np.zeros((1, 1, 5, 21), np.float32), np.zeros(21, np.float32)]}


def test_layers_that_do_not_fit_are_named(saved, misfits):
    model = make_model(seed=1)
    before = values_of(model)
    kept = assign(model, misfits, "the run", required=())
    assert list(kept) == ["bn", "logits"]
    assert "[(1, 1, 5, 3), (3,)]" in kept["logits"] and "[(1, 1, 5, 21), (21,)]" in kept["logits"]
    after = values_of(model)
    np.testing.assert_array_equal(after["conv/kernel"], values_of(saved[0])["conv/kernel"])
    np.testing.assert_array_equal(after["logits/kernel"], before["logits/kernel"])


@pytest.mark.parametrize(
    ("change", "policy", "words"),
    [
        ({}, {}, "the run: layer bn: "),
        ({}, {"required": {"logits"}}, "the run: layer logits: "),
        (
            {"conv": [np.full((4, 4, 3, 5), np.nan), np.zeros(5)]},
            {"required": ()},
            "the run: conv/kernel has values that are not finite",
        ),
        (
            {"conv": [np.zeros((4, 4, 3, 5)), np.full(5, np.inf)]},
            {"required": ()},
            "the run: conv/bias has values that are not finite",
        ),
        ({"other": [np.zeros(5)]}, {"required": (), "exact": True}, "other"),
    ],
)
def test_nothing_is_assigned_if_something_must_not_be(misfits, change, policy, words):
    model = make_model(seed=1)
    before = values_of(model)
    with pytest.raises(ConfigError, match=words):
        assign(model, misfits | change, "the run", **policy)
    for path, value in values_of(model).items():
        np.testing.assert_array_equal(value, before[path], path)


def test_arrays_of_other_layers_are_ignored_unless_all_must_be_used(saved):
    model, weights = saved
    arrays = runs.group_by_layer(weights, model) | {"other": [np.zeros(5)]}
    assert assign(model, arrays, "the run") == {}


def write_training(folder, best, *rows):
    """A run with this best step and the rows "step,AP" of metrics.csv."""
    (folder / "checkpoints" / "best").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints" / "best" / f"ckpt-{best}.index").touch()
    (folder / "metrics.csv").write_text("\n".join(["step,AP", *rows]) + "\n")
    return folder


def test_when_ap_was_best(tmp_path):
    run = write_training(tmp_path, 201, "0,0.1", "150,", "201,0.5", "335,0.4", "469,0.5", "480,")
    assert run_files.find_peak(run) == (201, 469, 2)
    with (run / "metrics.csv").open("a") as file:
        file.write("603,0.4")  # cut off
    assert run_files.find_peak(run) == (201, 469, 2)
    # The checkpoint of an earlier best AP, not yet removed when the run was stopped.
    (run / "checkpoints" / "best" / "ckpt-150.index").touch()
    assert run_files.find_peak(run) == (201, 469, 2)


def test_when_ap_was_best_is_unknown(tmp_path):
    assert run_files.find_peak(tmp_path) is None
    # COCO's -1 says that there was nothing to measure.
    for name, ap in (("zero", "0.0"), ("undefined", "-1"), ("unmeasured", "")):
        run = write_training(tmp_path / name, 10, f"10,{ap}", "20,0.0", "30,0.0")
        assert run_files.find_peak(run) is None, name
    imported = write_training(tmp_path / "imported", 0)
    assert run_files.find_peak(imported) is None
    (imported / "metrics.csv").write_text("epoch,AP\n0,0.5\n")  # of another program
    assert run_files.find_peak(imported) is None
    (imported / "metrics.csv").unlink()
    assert run_files.find_peak(imported) is None
