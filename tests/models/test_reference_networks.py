"""The networks of the references in literals: widths, parameters, initial weights."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from small_networks import build, make_config

from ssd_tf.models import measure, ssd
from ssd_tf.models.vgg import L2Normalization

INTEGRATION = pytest.mark.integration
VGG512 = {"name": "vgg16", "input_hw": (512, 512), "num_levels": 7}
# A network takes a second, and several tests look at the same one.
build_once = functools.cache(build)


@functools.cache
def build_nvidias(name):
    """The SSD300 on a ResNet, with 91 classes."""
    config = make_config(model={"backbone": {"name": name}}, boxes={"preset": "nvidia"})
    return ssd.build_model(config, 90).model


def feature_maps(model, num_levels):
    """The inputs of the heads."""
    return [model.get_layer(f"logits{index}_conv").input for index in range(num_levels)]


def widths_of(maps):
    return [feature.shape[-1] for feature in maps]


@pytest.mark.parametrize(
    ("name", "parameters", "widths"),
    [
        # NVIDIA's SSD300 with 91 classes: torchvision's layers up to conv4, extra layers with batch
        # norm, heads.
        ("resnet18", 2_782_784 + 3_429_376 + 8_758_050, [256, 512, 512, 256, 256, 128]),
        pytest.param(
            *("resnet34", 8_170_304 + 3_577_088 + 9_195_810, [256, 512, 512, 256, 256, 256]),
            marks=INTEGRATION,
        ),
        ("resnet50", 8_543_296 + 3_773_696 + 11_822_370, [1024, 512, 512, 256, 256, 256]),
    ],
)
def test_ssd300_on_resnets_has_nvidias_widths(name, parameters, widths):
    model = build_nvidias(name)
    assert measure.trainable_parameters(model) == parameters
    assert widths_of(feature_maps(model, 6)) == widths
    reduced = [model.get_layer(f"extra{index}_reduce").output for index in range(1, 6)]
    assert widths_of(reduced) == [256, 256, 128, 128, 128]


@pytest.mark.parametrize(
    ("backbone", "input_hw", "num_levels", "widths"),
    [
        # v2: the expansions of blocks 6 and 13 (6 * 32 and 6 * 96), then the last convolution;
        # v3: 6 * 40, 6 * 112, 6 * 80.
        ({"name": "mobilenet", "first_stride": 8}, (160, 192), 5, [256, 512, 1024, 512, 256]),
        ({"name": "mobilenet_v2", "first_stride": 8}, (160, 192), 5, [192, 576, 1280, 512, 256]),
        (
            {"name": "mobilenet_v3_large", "first_stride": 8},
            (160, 192),
            5,
            [240, 672, 480, 512, 256],
        ),
        # Extra maps have 512, 256, 256, 128 channels times alpha, but at least 64.
        ({"name": "mobilenet", "alpha": 0.25}, (320, 320), 6, [128, 256, 128, 64, 64, 64]),
        ({"name": "plain", "first_stride": 8}, (160, 192), 5, [64, 96, 128, 128, 128]),
        ({"name": "vgg16"}, (512, 512), 7, [512, 1024, 512, 256, 256, 256, 256]),
    ],
)
def test_widths_of_the_maps(backbone, input_hw, num_levels, widths):
    model = build_once(**backbone, input_hw=input_hw, num_levels=num_levels).model
    assert widths_of(feature_maps(model, num_levels)) == widths


def test_ssd512_ends_in_a_4x4_convolution_of_128_channels():
    model = build_once(**VGG512).model
    kernels = [model.get_layer(f"conv{index}_2").weights[0].shape for index in range(6, 11)]
    assert kernels == [
        (3, 3, 256, 512),
        (3, 3, 128, 256),
        (3, 3, 128, 256),
        (3, 3, 128, 256),
        (4, 4, 128, 256),
    ]


@pytest.mark.parametrize("name", ["vgg16", "resnet18", pytest.param("resnet50", marks=INTEGRATION)])
def test_every_map_of_vgg_and_resnets_ends_in_a_relu(name):
    model = build(name, (128, 160), 4).model
    image = np.random.default_rng(0).uniform(0, 255, (1, 128, 160, 3))
    for feature in keras.Model(model.input, feature_maps(model, 4))(image):
        values = np.array(feature)
        assert (values >= 0).all() and (values == 0).any() and values.any()


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet",
        "plain",
        pytest.param("mobilenet_v2", marks=INTEGRATION),
        pytest.param("mobilenet_v3_large", marks=INTEGRATION),
    ],
)
def test_batch_norm_has_the_configured_momentum_everywhere(name):
    model = build(name, (96, 128), 4, head="separable", train={"bn_momentum": 0.7}).model
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    assert {layer.momentum for layer in norms} == {0.7}
    assert {"logits0_depthwise_bn", "offsets3_depthwise_bn"} <= {layer.name for layer in norms}
    # The heads have 1e-3, ResNets 1e-5 as torchvision's.
    assert {layer.epsilon for layer in norms} == ({1e-3, 1e-5} if name == "resnet18" else {1e-3})


@pytest.mark.parametrize(
    ("name", "deviations"),
    [
        # Xavier: sqrt(2 / (fan in + fan out)). The heads have 3 boxes of 91 logits.
        (
            "vgg16",
            {
                "conv3_1": (2 / (9 * (128 + 256))) ** 0.5,
                "fc7": (2 / 2048) ** 0.5,
                "conv6_2": (2 / (9 * 768)) ** 0.5,
                "logits0_conv": (2 / (9 * (512 + 273))) ** 0.5,
                "logits1_conv": (2 / (9 * (1024 + 273))) ** 0.5,
            },
        ),
        # He by fan out (torchvision); NVIDIA's extra layers and heads are Xavier's.
        (
            "resnet50",
            {
                "conv1": (2 / (49 * 64)) ** 0.5,
                "layer3_0_conv2": (2 / 2304) ** 0.5,
                "layer1_0_conv3": (2 / 256) ** 0.5,
                "extra1_reduce": (2 / 1280) ** 0.5,
                "extra1_conv": (2 / (9 * 768)) ** 0.5,
            },
        ),
        ("plain", {"stage4_conv1": (2 / (9 * 64)) ** 0.5}),
    ],
)
def test_initial_weights(name, deviations):
    model = build_nvidias(name) if name == "resnet50" else build(name, num_classes=90).model
    for layer, deviation in deviations.items():
        kernel, *biases = model.get_layer(layer).get_weights()
        assert kernel.std() == pytest.approx(deviation, rel=0.05), layer
        assert abs(kernel.mean()) < 0.1 * deviation, layer
        assert not any(bias.any() for bias in biases), layer


def test_the_scale_of_vggs_conv4_3_starts_at_20():
    (scale,) = build("vgg16", num_levels=2).model.get_layer("conv4_3_norm").get_weights()
    np.testing.assert_array_equal(scale, [20.0] * 512)


def test_the_norm_is_computed_in_float32_under_every_policy():
    layer = L2Normalization(dtype="mixed_float16")
    # 300^2 exceeds float16. 300 / (300 * sqrt(512)) * 20 = .8839.
    found = layer(np.full((1, 1, 1, 512), 300.0, "float16"))
    assert found.dtype == "float16"
    np.testing.assert_allclose(np.array(found, "float32"), 0.8839, rtol=1e-3)
