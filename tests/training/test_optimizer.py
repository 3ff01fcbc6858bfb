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


def test_the_rate_of_the_backbone(tiny_config):
    train = tiny_config.train.model_copy(update={"backbone_rate": 0.1, "learning_rate": 1.0})
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
