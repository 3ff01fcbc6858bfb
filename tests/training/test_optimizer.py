"""Optimizers by Keras' names: rates and weight decay per variable, one update by hand."""

import numpy as np
import pytest

from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.training.optimizer import make_optimizer


@pytest.fixture
def update(toy_config, toy_network):
    """A function: one update by gradients of 2 everywhere -> {path: (before, after)}."""

    def run(**train):
        config = toy_config(**train)
        model = toy_network().model
        optimizer = make_optimizer(config, model)
        variables = model.trainable_variables
        before = [variable.numpy() for variable in variables]
        optimizer.apply([np.full(value.shape, 2.0, np.float32) for value in before], variables)
        return {
            variable.path: (value, variable.numpy())
            for variable, value in zip(variables, before, strict=True)
        }

    return run


def test_the_rate_of_biases(update):
    changes = update(learning_rate=0.1, momentum=0.0, bias_rate=2.0)
    assert {"conv/kernel", "conv/bias", "bn/gamma", "bn/beta"} <= set(changes)
    for path, (before, after) in changes.items():
        step = 0.4 if path.endswith("bias") else 0.2
        np.testing.assert_allclose(after, before - step, atol=1e-6, err_msg=path)


def test_the_rate_of_the_backbone(tiny_config):
    train = tiny_config.train.model_copy(
        update={"backbone_rate": 0.1, "learning_rate": 1.0, "momentum": 0.0}
    )
    config = tiny_config.model_copy(update={"train": train})
    model = ssd.build_model(config, 3).model
    optimizer = make_optimizer(config, model)
    variables = model.trainable_variables
    before = [variable.numpy() for variable in variables]
    optimizer.apply([np.ones(value.shape, np.float32) for value in before], variables)
    steps = {
        variable.path: float(np.mean(value - variable.numpy()))
        for variable, value in zip(variables, before, strict=True)
    }
    assert steps["stage1_conv1/kernel"] == pytest.approx(0.1, rel=1e-4)
    assert steps["stage5_conv2_bn/beta"] == pytest.approx(0.1, rel=1e-4)
    assert steps["offsets2_conv/kernel"] == pytest.approx(1.0, rel=1e-4)
    assert steps["logits0_conv/bias"] == pytest.approx(1.0, rel=1e-4)


def test_nesterov(update):
    before, after = update(learning_rate=0.1, nesterov=True)["conv/bias"]
    # Velocity -.1 * 2; the step looks ahead: .9 * -.2 - .2.
    np.testing.assert_allclose(after, before - 0.38, atol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "step"),
    # The first step of Adam and Lion is the sign of the gradient; RMSprop has 2 / sqrt(.1 * 4).
    [("Adam", 0.01), ("AdamW", 0.01), ("Lion", 0.01), ("RMSprop", 0.01 / 0.1**0.5)],
)
def test_the_first_step_of_other_optimizers(update, optimizer, step):
    settings = {} if optimizer == "RMSprop" else {"beta_1": 0.8}
    momentum = 0.0 if optimizer == "RMSprop" else 0.9
    changes = update(optimizer=optimizer, learning_rate=0.01, momentum=momentum, **settings)
    for path, (before, after) in changes.items():
        np.testing.assert_allclose(after, before - step, rtol=1e-4, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("optimizer", ["AdamW", "Lion"])
def test_decoupled_decay_is_for_kernels_only(update, optimizer):
    changes = update(optimizer=optimizer, learning_rate=0.01, weight_decay=0.5)
    for path, (before, after) in changes.items():
        kept = 0.995 if path.endswith("kernel") else 1.0  # 1 - .01 * .5
        np.testing.assert_allclose(after, kept * before - 0.01, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop", "AdamW", "Lamb", "Lion"])
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


def test_lamb(update):
    before, after = update(optimizer="Lamb", learning_rate=0.01, weight_decay=0.5)["conv/kernel"]
    decayed = 0.995 * before  # 1 - .01 * .5
    # Adam's first step is 1 everywhere; You et al. 2020 scale it to the norm of the kernel.
    step = 0.01 * np.linalg.norm(decayed) / before.size**0.5
    np.testing.assert_allclose(after, decayed - step, atol=1e-5)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"optimizer": "adamw2"}, "unknown value 'adamw2'; did you mean 'AdamW'"),
        ({"optimizer": "Adam", "momentum": 0.8}, r"train\.momentum"),
        ({"optimizer": "Adam", "nesterov": True}, r"train\.nesterov"),
        ({"beta_2": 0.9}, r"train\.beta_2"),
        ({"nesterov": True, "momentum": 0}, "nesterov needs a momentum above 0"),
        ({"base_batch_rule": "sqrt"}, r"train\.base_batch_rule .* train\.base_batch\b"),
        ({"steps": 30, "decay_steps": [20, 30]}, "the schedule is longer than the run"),
        ({"steps": 30, "warmup_steps": 30}, "the full learning rate would never be reached"),
        ({"schedule": "cosine", "decay_power": 2.0}, r"train\.decay_power .* train\.schedule"),
        ({"final_rate": 0.1}, r"train\.final_rate .* train\.schedule"),
        ({"batch_size": 6, "accumulate": 4}, "a batch_size that accumulate divides, got 6 and 4"),
        ({"xla": True, "bn": "synchronized"}, "xla cannot compile bn: synchronized"),
        ({"unfreeze_step": 5}, "no effect without model.backbone.frozen_stages"),
    ],
)
def test_settings_that_cannot_be_used(train, message):
    with pytest.raises(ConfigError, match=message):
        check_config({"boxes": {"preset": "paper"}, "train": train}, "test")
