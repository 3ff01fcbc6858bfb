"""Precision, initial weights and the optimizer of a run."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.inference.loading import load_run
from ssd_tf.models import ssd
from ssd_tf.models.batch_norm import BatchNormalization
from ssd_tf.training import state


@pytest.fixture
def mixed_config(tiny_config):
    train = tiny_config.train.model_copy(update={"precision": "mixed_bfloat16"})
    return tiny_config.model_copy(update={"train": train})


def test_mixed_bfloat16_keeps_weights_and_outputs_in_float32(mixed_config):
    model = state.make_network(mixed_config, 2).model
    convolutions = [layer for layer in model.layers if layer.name.endswith("_conv")]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
    assert {variable.dtype for variable in model.variables} == {"float32"}
    assert {output.dtype for output in model.outputs} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_mixed_bfloat16_computes_nearly_the_same(mixed_config, tiny_config):
    try:
        state.check_precision("mixed_bfloat16")
    except ConfigError as error:
        pytest.skip(str(error))
    mixed = state.make_network(mixed_config, 2).model
    plain = state.make_network(tiny_config, 2).model
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
    state.check_precision("float32")
    with pytest.raises(ConfigError) as caught:
        state.check_precision("mixed_bfloat16")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("train.precision: mixed_bfloat16 needs bfloat16 convolutions")
    assert "train.precision=float32" in line


@pytest.mark.parametrize(("bn", "synchronized"), [("train", False), ("synchronized", True)])
def test_every_batch_norm_follows_the_config(tiny_config, bn, synchronized):
    train = tiny_config.train.model_copy(update={"bn": bn, "bn_momentum": 0.75})
    model = ssd.build_model(tiny_config.model_copy(update={"train": train}), 2).model
    found = [layer for layer in model.layers if isinstance(layer, BatchNormalization)]
    # The backbone's 9 and one before each of the six heads.
    assert len(found) == 15
    assert {(layer.momentum, layer.synchronized) for layer in found} == {(0.75, synchronized)}


def test_init_from_logs_a_table(tiny_config, tiny_run, caplog):
    config = tiny_config.model_copy(update={"init_from": str(tiny_run)})
    network = ssd.build_model(config, 1)
    caplog.set_level("INFO", logger="absl")
    state.load_initial_weights(config, network, ["red"])
    assert "  class heads     3 layers  rows kept: background, red; 0 new" in caplog.messages
    learnt = {v.path: v.numpy() for v in load_run(tiny_run).network.model.variables}
    found = {v.path: v.numpy() for v in network.model.variables}
    np.testing.assert_array_equal(found["stage1_conv1/kernel"], learnt["stage1_conv1/kernel"])


def test_optimizers_of_two_runs_name_their_variables_alike(toy_network, toy_config):
    paths = []
    for _ in range(2):
        optimizer = state.make_optimizer(toy_config(), toy_network().model)
        paths.append([variable.path for variable in optimizer.variables])
    assert paths[0] == paths[1]


def changed(config, frozen_stages=0, init_from=None, name=None, **train):
    backbone = config.model.backbone.model_dump(mode="json") | {"frozen_stages": frozen_stages}
    if name is not None:
        backbone = {"name": name, "frozen_stages": frozen_stages}
    values = config.model_dump(mode="json")
    values["model"] |= {"backbone": backbone, "head": "conv"}
    values["train"] |= train
    return check_config(values | {"init_from": init_from}, "changed")


def make(config, **arguments):
    names = ("red", "green", "blue")
    return state.make_train_state(config, names, tf.distribute.get_strategy(), **arguments)


@pytest.fixture
def built_by_name(monkeypatch):
    """The network of a backbone is built once, whatever is frozen and how it is trained."""
    networks = {}
    build = state.make_network

    def make_network(config, num_classes):
        name = config.model.backbone.name
        if name not in networks:
            networks[name] = build(config, num_classes)
        for layer in networks[name].model.layers:
            layer.trainable = True
        ssd.freeze_stages(networks[name].model, config.model.backbone)
        return networks[name]

    monkeypatch.setattr(state, "make_network", make_network)


@pytest.mark.usefixtures("built_by_name")
def test_random_layers_may_not_be_frozen(tiny_config):
    config = changed(tiny_config, frozen_stages=2)
    with pytest.raises(ConfigError, match=r"frozen_stages: 2 would freeze layers with random"):
        make(config)
    make(config, new_layers=())  # a run that resumes


@pytest.mark.parametrize(
    ("result", "is_rejected"),
    [("loaded", False), ("from scratch: found no weights", True)],
)
@pytest.mark.usefixtures("built_by_name")
def test_frozen_layers_want_weights_of_the_other_run(tiny_config, monkeypatch, result, is_rejected):
    def transfer(_source, network, _config, _names):
        layers = [layer.name for layer in network.model.layers if layer.weights]
        return [state.transfer.Outcome(name, "backbone", result) for name in layers]

    monkeypatch.setattr(state.transfer, "read_source", lambda _config, _model: None)
    monkeypatch.setattr(state.transfer, "transfer", transfer)
    config = changed(tiny_config, frozen_stages=2, init_from="runs/other")
    if is_rejected:
        with pytest.raises(ConfigError, match="would freeze layers with random weights"):
            make(config)
    else:
        make(config)
    # What is trained may start from scratch.
    make(changed(tiny_config, init_from="runs/other"))


@pytest.mark.usefixtures("built_by_name")
def test_batch_norm_where_there_is_none(tiny_config):
    for key, value in (("bn", "frozen"), ("bn_momentum", 0.5)):
        config = changed(tiny_config, name="vgg16", **{key: value})
        with pytest.raises(ConfigError, match=rf"train\.{key} has no effect on vgg16"):
            make(config)
    make(config, new_layers=())  # a run of an earlier version that resumes


@pytest.mark.usefixtures("built_by_name")
@pytest.mark.parametrize(("init_from", "frozen_stages"), [(None, 0), ("imagenet", 5)])
def test_the_rate_of_pretrained_layers_without_effect(tiny_config, init_from, frozen_stages):
    config = changed(
        tiny_config, init_from=init_from, frozen_stages=frozen_stages, pretrained_rate=0.1
    )
    with pytest.raises(ConfigError, match=r"train\.pretrained_rate has no effect"):
        make(config)
    make(config, new_layers=())
