"""Precision, initial weights and the optimizer of a run."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import ConfigError, check_config
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


@pytest.fixture
def init_from_run(tiny_config, tiny_run):
    """A function: the tiny config with init_from and other values of model."""

    def build(**model):
        values = tiny_config.model_dump()
        values["init_from"] = str(tiny_run)
        values["model"] |= model
        return check_config(values, "test")

    return build


def test_init_from_reuses_all_but_the_class_head(init_from_run, tiny_run):
    config = init_from_run()
    model = ssd.build_model(config, 4).model
    fresh = ssd.build_model(config, 4).model
    learner.load_initial_weights(config, model)
    learnt = {v.path: v.numpy() for v in load_run(tiny_run).network.model.variables}
    for variable, initial in zip(model.variables, fresh.variables, strict=True):
        in_class_head = variable.path.startswith("logits") and "conv" in variable.path
        expected = initial.numpy() if in_class_head else learnt[variable.path]
        np.testing.assert_array_equal(variable.numpy(), expected, variable.path)


def test_init_from_another_network_is_refused(init_from_run):
    config = init_from_run(head="conv")
    model = ssd.build_model(config, 3).model
    message = r"init_from .*run: offsets0_conv/kernel: expected shape .*, got shape"
    with pytest.raises(ConfigError, match=message):
        learner.load_initial_weights(config, model)


def test_optimizers_of_two_runs_name_their_variables_alike(toy_network, toy_config):
    paths = []
    for _ in range(2):
        optimizer = learner.make_optimizer(toy_config(), toy_network().model)
        paths.append([variable.path for variable in optimizer.variables])
    assert paths[0] == paths[1]
