"""Optimizers: rates and weight decay per variable, updates by hand."""

import numpy as np
import pytest

from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.training.optimizer import make_optimizer


@pytest.fixture
def update(toy_config, toy_network):
    """A function: updates by gradients of 2 everywhere -> {path: (before, after)}."""

    def run(num_updates=1, **train):
        config = toy_config(**train)
        model = toy_network().model
        optimizer = make_optimizer(config, model)
        variables = model.trainable_variables
        before = [variable.numpy() for variable in variables]
        gradients = [np.full(value.shape, 2.0, np.float32) for value in before]
        for _ in range(num_updates):
            optimizer.apply(gradients, variables)
        return {
            variable.path: (value, variable.numpy())
            for variable, value in zip(variables, before, strict=True)
        }

    return run


def test_the_rate_of_biases(update):
    changes = update(learning_rate=0.1, bias_rate=2.0)
    assert {"conv/kernel", "conv/bias", "bn/gamma", "bn/beta"} <= set(changes)
    for path, (before, after) in changes.items():
        step = 0.4 if path.endswith("bias") else 0.2
        np.testing.assert_allclose(after, before - step, atol=1e-6, err_msg=path)


def steps_of_layers(config, new_layers=()):
    """{path: how far the first update moves a variable} at a rate of 1, for gradients of 1."""
    train = config.train.model_copy(update={"learning_rate": 1.0, "pretrained_rate": 0.1})
    model = config.model.model_copy(update={"neck": "fpn", "neck_channels": 8})
    config = config.model_copy(update={"train": train, "model": model})
    model = ssd.build_model(config, 3).model
    optimizer = make_optimizer(config, model, new_layers=new_layers)
    variables = model.trainable_variables
    before = [variable.numpy() for variable in variables]
    optimizer.apply([np.ones(value.shape, np.float32) for value in before], variables)
    return {
        variable.path: float(np.mean(value - variable.numpy()))
        for variable, value in zip(variables, before, strict=True)
    }


@pytest.mark.parametrize(
    ("init_from", "backbone", "neck"),
    [("imagenet", 0.1, 1.0), ("backbone.h5", 0.1, 1.0), ("runs/other", 0.1, 0.1), (None, 1.0, 1.0)],
)
def test_the_rate_of_pretrained_layers(tiny_config, init_from, backbone, neck):
    steps = steps_of_layers(tiny_config.model_copy(update={"init_from": init_from}))
    assert steps["stage1_conv1/kernel"] == pytest.approx(backbone, rel=1e-4)
    assert steps["stage5_conv2_bn/beta"] == pytest.approx(backbone, rel=1e-4)
    assert steps["fpn_lateral4/kernel"] == pytest.approx(neck, rel=1e-4)
    assert steps["offsets2_conv/kernel"] == pytest.approx(1.0, rel=1e-4)
    assert steps["logits0_conv/bias"] == pytest.approx(1.0, rel=1e-4)


def test_the_rate_of_layers_that_a_run_does_not_fill(tiny_config):
    config = tiny_config.model_copy(update={"init_from": "runs/other"})
    steps = steps_of_layers(config, ["fpn_lateral4"])
    assert steps["fpn_lateral4/kernel"] == pytest.approx(1.0, rel=1e-4)
    assert steps["fpn_lateral5/kernel"] == pytest.approx(0.1, rel=1e-4)
    assert steps["stage1_conv1/kernel"] == pytest.approx(0.1, rel=1e-4)


def test_momentum(update):
    before, after = update(num_updates=3, learning_rate=0.1)["conv/kernel"]
    # Velocities of .2, .9 * .2 + .2 = .38 and .9 * .38 + .2 = .542.
    np.testing.assert_allclose(after, before - 1.122, atol=1e-6)


def test_adamw_decays_kernels_only(update):
    changes = update(optimizer="AdamW", learning_rate=0.01, weight_decay=0.5)
    for path, (before, after) in changes.items():
        kept = 0.995 if path.endswith("kernel") else 1.0  # 1 - .01 * .5
        # The first step is the sign of the gradient.
        np.testing.assert_allclose(after, kept * before - 0.01, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_rows_that_are_not_trained(toy_config, toy_network, optimizer, precision):
    config = toy_config(optimizer=optimizer, weight_decay=0.5, precision=precision)
    model = toy_network().model
    for layer in model.layers:
        layer.trainable = layer.name == "logits"
    optimizer = make_optimizer(config, model, trained_rows=np.array([2]))
    kernel, bias = model.trainable_variables
    before = [kernel.numpy(), bias.numpy()]
    for _ in range(3):
        gradients = [np.full(value.shape, 2.0, np.float32) for value in before]
        optimizer.apply(gradients, [kernel, bias])
    for old, new in zip(before, [kernel.numpy(), bias.numpy()], strict=True):
        np.testing.assert_array_equal(new[..., :2], old[..., :2])
        assert (new[..., 2] != old[..., 2]).all()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"optimizer": "adamw2"}, "unknown value 'adamw2'; did you mean 'AdamW'"),
        ({"steps": 30, "decay_steps": [20, 30]}, "the schedule is longer than the run"),
        ({"steps": 30, "warmup_steps": 30}, "the full learning rate would never be reached"),
        ({"batch_size": 6, "accumulate": 4}, "a batch_size that accumulate divides, got 6 and 4"),
        ({"xla": True, "bn": "synchronized"}, "xla cannot compile bn: synchronized"),
    ],
)
def test_settings_that_cannot_be_used(train, message):
    with pytest.raises(ConfigError, match=message):
        check_config({"boxes": {"preset": "paper"}, "train": train}, "test")
