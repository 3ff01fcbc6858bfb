"""MobileNet v1 and v2: padding, widths and extra layers that the config chooses."""

import functools

import keras
import numpy as np
import pytest
import small_networks

from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd

# A network takes a second, and several tests look at the same one.
build = functools.cache(small_networks.build)
DEFAULT = {
    "mobilenet": {"padding": "keras"},
    "mobilenet_v2": {"padding": "keras"},
    "mobilenet_v3_large": {},
}
OTHER = {
    "mobilenet": {"padding": "torch"},
    "mobilenet_v2": {"padding": "torch"},
    "mobilenet_v3_large": {"reduced_tail": False},
}


def build_default(name):
    return build(name, num_levels=3, **DEFAULT[name])


def build_other(name):
    """With other values of those keys, and other extra layers."""
    return build(name, num_levels=3, extra_layers="conv", **OTHER[name])


def kernel_shapes(network, *layers):
    return [tuple(network.model.get_layer(name).weights[0].shape) for name in layers]


# Strides of 2 at the odd sizes 75 x 101 of the stem's output, then 38 x 51 and 19 x 26:
# half, rounded up, except that Keras' v1 pads nothing but the far side and rounds down.
@pytest.mark.parametrize(
    ("name", "padding", "map_shapes"),
    [
        ("mobilenet", "keras", ((18, 25), (9, 12))),
        ("mobilenet", "same", ((19, 26), (10, 13))),
        ("mobilenet", "torch", ((19, 26), (10, 13))),
        ("mobilenet_v2", "keras", ((19, 26), (10, 13))),
        ("mobilenet_v2", "same", ((19, 26), (10, 13))),
        ("mobilenet_v2", "torch", ((19, 26), (10, 13))),
    ],
)
def test_padding_at_odd_sizes(name, padding, map_shapes):
    network = build(name, (150, 202), 2, padding=padding, alpha=0.25, first_stride=8)
    assert network.map_shapes == map_shapes


@pytest.mark.parametrize(
    ("name", "layer"), [("mobilenet", "conv_dw_2"), ("mobilenet_v2", "block_1_depthwise")]
)
@pytest.mark.parametrize(("padding", "first_row"), [("keras", 0), ("same", 0), ("torch", -1)])
def test_padding_at_even_sizes(name, layer, padding, first_row):
    # The upper left tap alone: output (y, x) shows input (2 y + first_row, 2 x + first_row).
    if padding == "same":
        model = build(name, padding=padding).model
    else:
        model = (build_default if padding == "keras" else build_other)(name).model
    convolution = model.get_layer(layer)
    kernel = np.zeros(convolution.weights[0].shape, "float32")
    kernel[0, 0] = 1.0
    convolution.set_weights([kernel])
    height, width = 32, 48
    x = np.zeros((1, height, width, kernel.shape[2]), "float32")
    x[0] = (np.arange(height)[:, None] * 100 + np.arange(width) + 1)[..., None]
    if f"{layer}_pad" in [each.name for each in model.layers]:
        x = model.get_layer(f"{layer}_pad")(x)
    shown = np.array(convolution(x))[0, ..., 0]
    assert shown.shape == (16, 24)
    row = 2 * np.arange(16) + first_row
    column = 2 * np.arange(24) + first_row
    expected = np.where((row[:, None] < 0) | (column < 0), 0, row[:, None] * 100 + column + 1)
    np.testing.assert_array_equal(shown, expected)


def test_least_channels():
    # A quarter of 32, 64, ..., and of 32, 16, 24 in multiples of 8; extra layers have at least 64.
    v1 = ("conv1", "conv_pw_1", "extra1_reduce", "extra1_expand")
    assert kernel_shapes(build("mobilenet", num_levels=3, alpha=0.25), *v1) == [
        (3, 3, 3, 8),
        (1, 1, 8, 16),
        (1, 1, 256, 64),
        (1, 1, 64, 128),
    ]
    assert kernel_shapes(build("mobilenet", num_levels=3, alpha=0.05, min_channels=16), *v1) == [
        (3, 3, 3, 16),
        (1, 1, 16, 16),
        (1, 1, 51, 16),
        (1, 1, 16, 25),
    ]
    v2 = ("Conv1", "expanded_conv_project", "block_1_project", "extra2_expand")
    assert kernel_shapes(build("mobilenet_v2", num_levels=4, alpha=0.25), *v2) == [
        (3, 3, 3, 8),
        (1, 1, 8, 8),
        (1, 1, 48, 8),
        (1, 1, 32, 64),
    ]
    assert kernel_shapes(wide_v2(), *v2) == [
        (3, 3, 3, 16),
        (1, 1, 16, 16),
        (1, 1, 96, 16),
        (1, 1, 32, 64),
    ]


def wide_v2():
    return build("mobilenet_v2", num_levels=4, alpha=0.25, min_channels=16, last_channels=640)


def test_last_channels_of_v2():
    quarter = build("mobilenet_v2", num_levels=4, alpha=0.25)
    assert kernel_shapes(quarter, "Conv_1") == [(1, 1, 80, 1280)]
    assert kernel_shapes(build("mobilenet_v2", alpha=1.4), "Conv_1") == [(1, 1, 448, 1792)]
    assert kernel_shapes(wide_v2(), "Conv_1") == [(1, 1, 80, 640)]


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet_v2", "mobilenet_v3_large"])
def test_extra_layers(name):
    separable = build_default(name)
    assert kernel_shapes(separable, "extra1_depthwise", "extra1_expand") == [
        (3, 3, 256, 1),
        (1, 1, 256, 512),
    ]
    full = build_other(name)
    assert kernel_shapes(full, "extra1_conv") == [(3, 3, 256, 512)]
    assert full.map_shapes == separable.map_shapes == ((4, 6), (2, 3), (1, 2))


def test_pointwise_heads():
    network = build("mobilenet", head="pointwise")
    assert kernel_shapes(network, "offsets0_conv", "logits1_conv") == [
        (1, 1, 512, 12),
        (1, 1, 1024, 9),
    ]


def test_v3_without_its_reduced_tail():
    layers = ("block15_project", "last")
    assert kernel_shapes(build_default("mobilenet_v3_large"), *layers) == [
        (1, 1, 480, 80),
        (1, 1, 80, 480),
    ]
    assert kernel_shapes(build_other("mobilenet_v3_large"), *layers) == [
        (1, 1, 960, 160),
        (1, 1, 160, 960),
    ]


@pytest.mark.parametrize(
    ("network_of", "name", "mean"),
    [
        (build_default, "mobilenet_v2", 127.5),
        (build_other, "mobilenet_v2", 123.675),  # the padding of torchvision
        (build_default, "mobilenet_v3_large", 127.5),
        (build_other, "mobilenet_v3_large", 123.675),  # all of the tail
        (build_other, "mobilenet", 127.5),
    ],
)
def test_torchvisions_classifiers_have_its_normalisation(network_of, name, mean):
    model = network_of(name).model
    # The first layer after the input shows 0 where a pixel has the mean.
    first = keras.Model(model.input, model.layers[1].output)
    image = np.full((1, 64, 96, 3), mean, "float32")
    assert np.array(first(image))[..., 0] == pytest.approx(0, abs=1e-5)


def test_default_boxes_by_their_shapes():
    model = {"input_hw": [64, 96], "num_levels": 2, "backbone": {"name": "mobilenet"}}
    levels = [{"shapes": [[8, 16], [30, 10], [20, 20]]}, {"shapes": [[40, 60]], "step": 40}]
    config = small_networks.make_config(model=model, boxes={"levels": levels})
    network = ssd.build_model(config, 2)
    assert network.map_shapes == ((4, 6), (2, 3))
    assert network.default_boxes.shape == (24 * 3 + 6, 4)
    # Cell (0, 1) of the first map: its centre at (8, 24) px; its second shape is 30 x 10.
    expected = [(8 - 15) / 64, (24 - 5) / 96, (8 + 15) / 64, (24 + 5) / 96]
    np.testing.assert_allclose(network.default_boxes[4], expected, atol=1e-6)
    # Cell (1, 2) of the second: its centre at (60, 100) px.
    expected = [(60 - 20) / 64, (100 - 30) / 96, (60 + 20) / 64, (100 + 30) / 96]
    np.testing.assert_allclose(network.default_boxes[-1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model": {"backbone": {"name": "resnet18", "padding": "torch"}}},
            r"model\.backbone\.padding ",
        ),
        (
            {"model": {"backbone": {"name": "mobilenet_v3_large", "min_channels": 16}}},
            r"model\.backbone\.min_channels ",
        ),
        (
            {"model": {"backbone": {"name": "mobilenet", "last_channels": 640}}},
            r"model\.backbone\.last_channels ",
        ),
        (
            {"model": {"backbone": {"name": "mobilenet_v2", "reduced_tail": False}}},
            r"model\.backbone\.reduced_tail ",
        ),
        (
            {"model": {"backbone": {"name": "vgg16", "extra_layers": "conv"}}},
            r"model\.backbone\.extra_layers ",
        ),
        ({"boxes": {"levels": [{"step": 3}]}}, "give either size or shapes, and not both"),
        (
            {"boxes": {"levels": [{"size": 3, "shapes": [[1, 2]]}]}},
            "give either size or shapes, and not both",
        ),
        (
            {"boxes": {"levels": [{"shapes": [[1, 2]], "aspect_ratios": [2]}]}},
            "aspect_ratios has no effect with shapes",
        ),
    ],
)
def test_keys_without_an_effect_are_rejected(values, message):
    with pytest.raises(ConfigError, match=message):
        small_networks.make_config(**{"boxes": {"preset": "paper"}, **values})
