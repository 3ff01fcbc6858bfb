"""Batch norm folded: the same outputs, without the layers."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

from ssd_tf.config import load_config
from ssd_tf.models import ssd
from ssd_tf.models.batch_norm import BatchNormalization
from ssd_tf.models.folding import assign_folded, fold_batch_norm, scale_per_call
from ssd_tf.training.optimizer import Averages

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
FAST = ("bccd_mobilenet", "shapes_plain", "ssd300_resnet18_coco")
INTEGRATION = ("ssdlite192_mobilenet_v2_035_coco", "ssdlite320_mobilenet_v3_coco")


def mark(name):
    if name in FAST:
        return name
    is_small = name in INTEGRATION
    return pytest.param(name, marks=pytest.mark.integration if is_small else pytest.mark.slow)


def count_norms(model):
    return sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


def randomize(model, seed=0):
    """Give each variable values that a forgotten term would show in, the same in each run."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.path.endswith(("gamma", "variance")):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith(("beta", "mean", "bias")):
            variable.assign(random.normal(0, 0.5, variable.shape))
        elif variable.path.endswith("kernel"):
            variable.assign(random.normal(0, np.std(variable), variable.shape))


def assert_same(folded, model, num_images=2):
    shape = (num_images, *model.input_shape[1:])
    inputs = np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)
    found = folded(inputs, training=False)
    expected = model(inputs, training=False)
    pairs = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    for value, expected_value in pairs:
        scale = np.abs(expected_value).max()
        assert scale > 0
        np.testing.assert_allclose(value, expected_value, atol=1e-5 * scale)


def test_a_model_without_batch_norm_stays_as_it_is():
    image = keras.Input((4, 6, 3))
    model = keras.Model(image, layers.Conv2D(2, 1)(image))
    assert fold_batch_norm(model) is model
    assert scale_per_call(model) is model
    assign_folded(model, model)


def test_one_pixel_by_hand():
    # (2 x + 1 - 4) * 3 / sqrt(8.75 + .25) + .5 = 2 x - 2.5
    image = keras.Input((1, 2, 1))
    conv = layers.Conv2D(1, 1, name="conv")
    norm = BatchNormalization(epsilon=0.25, name="norm")
    model = keras.Model(image, norm(conv(image)))
    conv.set_weights([np.full((1, 1, 1, 1), 2.0), np.array([1.0])])
    norm.set_weights(np.array([[3.0], [0.5], [4.0], [8.75]]))
    folded = fold_batch_norm(model)
    kernel, bias = folded.get_layer("conv").get_weights()
    assert (kernel.item(), bias.item()) == (2.0, -2.5)
    assert [layer.name for layer in folded.layers[1:]] == ["conv"]
    assert (conv.use_bias, count_norms(model)) == (True, 1)


IMAGE = (9, 13, 4)
LINEAR = {
    "plain": (IMAGE, layers.Conv2D(6, 3)),
    "no bias": (IMAGE, layers.Conv2D(6, 3, padding="same", use_bias=False)),
    "strided": (IMAGE, layers.Conv2D(4, (3, 5), (2, 3), padding="same")),
    "dilated": (IMAGE, layers.Conv2D(6, 3, dilation_rate=(2, 3))),
    "groups": (IMAGE, layers.Conv2D(6, 3, groups=2)),
    "depthwise": (IMAGE, layers.DepthwiseConv2D(3, 2, use_bias=False)),
    "multiplied": (IMAGE, layers.DepthwiseConv2D(3, padding="same", depth_multiplier=3)),
    "separable": (IMAGE, layers.SeparableConv2D(5, 3, depth_multiplier=2)),
    "dense": ((7,), layers.Dense(5)),
    "one dimension": ((11, 4), layers.Conv1D(6, 3)),
    "rows": ((9, 4), layers.Dense(5, use_bias=False)),
}


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("name", LINEAR)
def test_kinds_of_layers(name, scale, center):
    shape, prototype = LINEAR[name]
    inputs = keras.Input(shape)
    x = type(prototype).from_config(prototype.get_config())(inputs)
    norm = BatchNormalization(scale=scale, center=center, epsilon=0.1)
    norm.trainable = center  # frozen layers are folded alike
    model = keras.Model(inputs, layers.ReLU()(norm(x)))
    randomize(model)
    folded = fold_batch_norm(model)
    assert count_norms(folded) == 0
    assert_same(folded, model)


def shared_convolution(x):
    """One of its calls is not followed by batch norm."""
    conv = layers.Conv2D(3, 1)
    return [BatchNormalization()(conv(x)), conv(layers.ReLU()(x))]


def seen_before(x):
    y = layers.Conv2D(4, 1)(x)
    return [BatchNormalization()(y), y]


def two_consumers(x):
    y = layers.Conv2D(4, 1)(x)
    return layers.Add()([BatchNormalization()(y), y])


def shared_norm(x):
    norm = BatchNormalization()
    return [norm(layers.Conv2D(3, 1)(x)), norm(layers.Conv2D(3, 2)(x))]


STAYING = {
    "activation in the layer": lambda x: BatchNormalization()(
        layers.Conv2D(3, 1, activation="relu")(x)
    ),
    "activation between": lambda x: BatchNormalization()(layers.ReLU()(layers.Conv2D(3, 1)(x))),
    "zeros between": lambda x: BatchNormalization()(
        layers.ZeroPadding2D(1)(layers.Conv2D(3, 1)(x))
    ),
    "nothing before": lambda x: layers.Conv2D(3, 3)(
        layers.ZeroPadding2D(1)(BatchNormalization()(x))
    ),
    "another axis": lambda x: layers.BatchNormalization(axis=1)(layers.Conv2D(3, 1)(x)),
    "statistics of the batch": lambda x: BatchNormalization()(
        layers.Conv2D(3, 1)(x), training=True
    ),
    "an output": seen_before,
    "two consumers": two_consumers,
    "shared convolution": shared_convolution,
    "shared batch norm": shared_norm,
}


@pytest.mark.parametrize("name", STAYING)
def test_what_cannot_be_folded_stays(name):
    image = keras.Input((5, 8, 4))
    # One that can be folded comes first.
    x = BatchNormalization()(layers.Conv2D(4, 1)(image))
    model = keras.Model(image, STAYING[name](layers.ReLU()(x)))
    randomize(model)
    folded = fold_batch_norm(model)
    assert count_norms(folded) == count_norms(model) - 1 > 0
    if name != "statistics of the batch":  # which that computation changes
        assert_same(folded, model)


@pytest.mark.parametrize("separable", [False, True])
def test_a_shared_convolution_is_folded_once_per_call(separable):
    image = keras.Input((5, 8, 4))
    kind = layers.SeparableConv2D if separable else layers.Conv2D
    conv = kind(4, 3, padding="same", use_bias=False, name="tower")
    x = image
    outputs = []
    for index in range(3):
        x = layers.ReLU()(BatchNormalization(name=f"norm{index}")(conv(x)))
        outputs.append(x)
    model = keras.Model(image, outputs)
    randomize(model)
    folded = fold_batch_norm(model)
    assert count_norms(folded) == 0
    assert [layer.name for layer in folded.layers if layer.weights] == ["norm0", "norm1", "norm2"]
    assert_same(folded, model)
    scaled = scale_per_call(model)
    assert count_norms(scaled) == 0
    with_weights = [layer.name for layer in scaled.layers if layer.weights]
    assert sorted(with_weights) == ["norm0", "norm1", "norm2", "tower"]
    assert_same(scaled, model)


@pytest.mark.parametrize(
    "name",
    [
        mark(path.stem)
        for path in sorted(CONFIGS.glob("*.yaml"))
        if path.stem != "finetune"  # its network is that of a run
    ],
)
def test_every_config(name):
    config = load_config(CONFIGS / f"{name}.yaml", ["init_from=null"])
    height, width = config.model.input_hw
    model_section = config.model.model_copy(update={"input_hw": (height, width + 32)})
    model = ssd.build_model(config.model_copy(update={"model": model_section}), 3).model
    randomize(model)
    folded = fold_batch_norm(model)
    assert ("vgg" in name) == (folded is model) == (count_norms(model) == 0)
    assert count_norms(folded) == 0
    assert folded.count_params() < model.count_params() or folded is model
    assert_same(folded, model, num_images=1)


def test_mixed_precision_computes_in_16_bits():
    image = keras.Input((4, 6, 3))
    conv = layers.Conv2D(4, 3, dtype="mixed_bfloat16", name="conv")
    model = keras.Model(image, BatchNormalization(dtype="mixed_bfloat16")(conv(image)))
    folded = fold_batch_norm(model)
    assert (folded.output.dtype, folded.get_layer("conv").kernel.dtype) == ("bfloat16", "float32")


@pytest.mark.parametrize("averaged", [False, True])
def test_weights_that_changed_are_assigned_again(averaged):
    image = keras.Input((4, 6, 3))
    x = BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(image))
    model = keras.Model(image, layers.Conv2D(2, 1)(layers.ReLU()(x)))
    folded = fold_batch_norm(model)
    variables = [variable.value for variable in folded.variables]
    randomize(model, seed=2)
    weights = model.get_weights()
    averages = Averages(model, 0.9)
    if averaged:
        randomize(model, seed=3)
        with averages.in_place():
            assign_folded(folded, model)
        model.set_weights(weights)
    else:
        assign_folded(folded, model)
    assert_same(folded, model)
    # In place, so that nothing has to be traced again.
    assert all(new.value is old for new, old in zip(folded.variables, variables, strict=True))
