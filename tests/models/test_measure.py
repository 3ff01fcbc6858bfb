import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from ssd_tf.config import check_config
from ssd_tf.models import measure, ssd


@pytest.fixture(scope="module")
def small():
    """20 x 30 pixels: two paths, the second one longer, joined by an addition."""
    image = keras.Input((20, 30, 3))
    x = layers.Conv2D(8, 3, 2, padding="same", name="stride2")(image)
    short = layers.Conv2D(4, 1, name="short")(x)
    long = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    long = layers.BatchNormalization(name="norm")(long)
    long = layers.Conv2D(4, 3, dilation_rate=2, padding="same", name="dilated")(long)
    x = layers.MaxPooling2D(2, name="pool")(layers.Add(name="add")([short, long]))
    return keras.Model(image, layers.Conv2D(1, 3, padding="same", name="last")(x))


def test_multiply_adds_by_hand(small):
    costs = {cost.name: cost for cost in measure.layer_costs(small)}
    assert list(costs) == [layer.name for layer in small.layers if layer.weights]
    # Output 10 x 15; 3 * 3 * 3 * 8 products for each position.
    assert costs["stride2"].shape == (10, 15, 8)
    assert costs["stride2"].multiply_adds == 10 * 15 * 216
    assert costs["stride2"].parameters == 216 + 8
    assert costs["depthwise"].multiply_adds == 10 * 15 * 9 * 8
    assert costs["dilated"].multiply_adds == 10 * 15 * 9 * 8 * 4
    assert costs["last"].multiply_adds == 5 * 7 * 9 * 4
    assert costs["norm"].multiply_adds == 0
    assert costs["norm"].parameters == 32


def test_trainable_parameters_leave_statistics_out(small):
    total = (216 + 8) + (8 * 4 + 4) + 72 + 16 + (9 * 8 * 4 + 4) + (9 * 4 + 1)
    assert measure.trainable_parameters(small) == total
    assert small.count_params() == total + 16


def test_receptive_fields_by_hand(small):
    fields = measure.receptive_fields(small)
    # Positions are 2 pixels apart after the stride; a dilated 3x3 spans five of them.
    expected = {
        "stride2": 3,
        "short": 3,
        "depthwise": 7,
        "dilated": 7 + 4 * 2,
        "add": 15,
        "pool": 17,
        "last": 17 + 2 * 4,
    }
    assert {name: fields[name] for name in expected} == expected


def test_a_gradient_reaches_exactly_the_receptive_field(small):
    ones = keras.models.clone_model(small)
    ones.set_weights([np.abs(weight) + 0.01 for weight in small.get_weights()])
    image = tf.Variable(np.random.default_rng(0).uniform(0, 1, (1, 20, 30, 3)).astype("float32"))
    middle = keras.Model(ones.input, ones.get_layer("dilated").output)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(middle(image)[0, 5, 7])
    seen = np.abs(tf.convert_to_tensor(tape.gradient(value, image))).sum((0, 3)) > 0
    assert seen.any(1).sum() == 15
    assert seen.any(0).sum() == 15


def gigas(model):
    return sum(cost.multiply_adds for cost in measure.layer_costs(model)) / 1e9


def test_published_figures_of_torchvisions_ssd300():
    # Its model page: 34.86 G with 91 classes, including the background.
    config = check_config({"boxes": {"preset": "torchvision"}}, "test")
    model = ssd.build_model(config, 90).model
    assert gigas(model) == pytest.approx(34.86, rel=1e-3)
    assert measure.trainable_parameters(model) == 35_641_826
    fields = measure.receptive_fields(model)
    # conv4_3 of VGG16 sees 92 pixels.
    assert fields["conv4_3"] == 92
    assert fields["pool5"] == 228
    assert fields["fc7"] == 420
    assert fields["offsets0_conv"] == 108


def test_published_figures_of_torchvisions_ssdlite():
    # Its model page: 0.583 G.
    model = {
        "input_hw": [320, 320],
        "backbone": {"name": "mobilenet_v3_large"},
        "head": "separable",
    }
    config = check_config({"model": model, "boxes": {"preset": "torchvision_ssdlite"}}, "test")
    model = ssd.build_model(config, 90).model
    assert gigas(model) == pytest.approx(0.583, rel=1e-3)
    assert measure.trainable_parameters(model) == 3_440_060


def test_enlarging_halves_the_distance_of_positions():
    image = keras.Input((16, 16, 1))
    x = layers.Conv2D(1, 3, 4, padding="same", name="coarse")(image)
    x = layers.UpSampling2D(2, name="up")(x)
    model = keras.Model(image, layers.Conv2D(1, 3, padding="same", name="fine")(x))
    assert measure.receptive_fields(model)["fine"] == 3 + 2 * 2


def test_a_shared_layer_costs_what_all_its_calls_do():
    fine = keras.Input((6, 10, 8))
    coarse = layers.MaxPooling2D(2)(fine)
    shared = layers.SeparableConv2D(4, 3, padding="same", use_bias=False, name="shared")
    (cost,) = measure.layer_costs(keras.Model(fine, [shared(coarse), shared(fine)]))
    # 9 * 8 and 8 * 4 products for each of 60 and 15 positions.
    assert (cost.parameters, cost.multiply_adds) == (104, 104 * 75)
    assert cost.shape == (6, 10, 4)
