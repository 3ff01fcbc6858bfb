"""Averaged weights by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.training.optimizer import Averages


@pytest.fixture
def model(toy_network):
    return toy_network().model


def test_the_average_starts_at_the_initial_weights(model):
    averages = Averages(model, 0.9)
    assert sorted(averages.by_path) == sorted(variable.path for variable in model.variables)
    for variable in model.variables:
        np.testing.assert_array_equal(averages.by_path[variable.path], variable.numpy())


def test_the_decay_warms_up(model):
    averages = Averages(model, 0.3)
    mean = model.get_layer("bn").moving_mean
    expected = 0.0
    # Decays 1/10, 2/11 and 3/12, then .3 instead of 4/13 = .308.
    for count, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 0.3)):
        mean.assign(np.full(5, count + 1.0))
        averages.update(tf.distribute.get_strategy(), count)
        expected = decay * expected + (1 - decay) * (count + 1)
        average = averages.by_path["bn/moving_mean"]
        np.testing.assert_allclose(average, np.full(5, expected), rtol=1e-5)


def test_averaged_weights_are_in_place_inside_only(model):
    averages = Averages(model, 0.5)
    kernel = model.get_layer("conv").kernel
    variance = model.get_layer("bn").moving_variance
    averages.by_path["conv/kernel"].assign(np.full(kernel.shape, 3.0))
    averages.by_path["bn/moving_variance"].assign(np.full(5, 7.0))
    raw = kernel.numpy()
    with pytest.raises(ValueError, match="no images"), averages.in_place():
        assert (kernel.numpy() == 3).all()
        assert (variance.numpy() == 7).all()
        raise ValueError("no images")
    np.testing.assert_array_equal(kernel.numpy(), raw)
    assert (variance.numpy() == 1).all()
