"""Precision, initial weights and the optimizer of a run."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import ConfigError
from ssd_tf.inference.run import load_run
from ssd_tf.models import ssd
from ssd_tf.models.batch_norm import BatchNormalization
from ssd_tf.training import learner


@pytest.fixture
def mixed_config(tiny_config):
    train = tiny_config.train.model_copy(update={"precision": "mixed_bfloat16"})
    return tiny_config.model_copy(update={"train": train})


def test_mixed_bfloat16_keeps_weights_and_outputs_in_float32(mixed_config):
    model = learner.make_network(mixed_config, 2).model
    convolutions = [layer for layer in model.layers if layer.name.endswith("_conv")]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
    assert {variable.dtype for variable in model.variables} == {"float32"}
    assert {output.dtype for output in model.outputs} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_mixed_bfloat16_computes_nearly_the_same(mixed_config, tiny_config):
    try:
        learner.check_precision("mixed_bfloat16")
    except ConfigError as error:
        pytest.skip(str(error))
    mixed = learner.make_network(mixed_config, 2).model
    plain = learner.make_network(tiny_config, 2).model
    random = np.random.default_rng(0)
    image = random.uniform(0, 255, (1, *tiny_config.model.input_hw, 3)).astype(np.float32)
    logits = mixed(image)["logits"]
    expected = plain(image)["logits"]
    assert logits.dtype == tf.float32
    difference = np.abs(logits - expected).max()
    assert 0 < difference < 0.05 * np.abs(expected).max()  # bfloat16 keeps 8 bits


def test_a_device_without_bfloat16_convolutions_is_one_line(monkeypatch):
    def fail(*_args, **_options):
        raise tf.errors.AbortedError(None, None, "could not create a primitive\nOperation received")

    monkeypatch.setattr(tf.nn, "conv2d", fail)
    learner.check_precision("float32")
    with pytest.raises(ConfigError) as caught:
        learner.check_precision("mixed_bfloat16")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("train.precision: mixed_bfloat16 needs bfloat16 convolutions")
    assert "train.precision=float32" in line


@pytest.mark.parametrize(("bn", "synchronized"), [("train", False), ("synchronized", True)])
def test_every_batch_norm_follows_the_config(tiny_config, bn, synchronized):
    train = tiny_config.train.model_copy(update={"bn": bn, "bn_momentum": 0.75})
    model = ssd.build_model(tiny_config.model_copy(update={"train": train}), 2).model
    found = [layer for layer in model.layers if isinstance(layer, BatchNormalization)]
    # MobileNet's 27 and one before each of the six heads.
    assert len(found) == 33
    assert {(layer.momentum, layer.synchronized) for layer in found} == {(0.75, synchronized)}


def test_init_from_logs_a_table(tiny_config, tiny_run, caplog):
    config = tiny_config.model_copy(update={"init_from": str(tiny_run)})
    network = ssd.build_model(config, 1)
    caplog.set_level("INFO", logger="absl")
    learner.load_initial_weights(config, network, ["red"])
    assert "  class heads     3 layers  rows kept: background, red; 0 new" in caplog.messages
    learnt = {v.path: v.numpy() for v in load_run(tiny_run).network.model.variables}
    found = {v.path: v.numpy() for v in network.model.variables}
    np.testing.assert_array_equal(found["conv1/kernel"], learnt["conv1/kernel"])


def test_optimizers_of_two_runs_name_their_variables_alike(toy_network, toy_config):
    paths = []
    for _ in range(2):
        optimizer = learner.make_optimizer(toy_config(), toy_network().model)
        paths.append([variable.path for variable in optimizer.variables])
    assert paths[0] == paths[1]
