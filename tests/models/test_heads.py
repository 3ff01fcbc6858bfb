"""Heads shared over the feature maps, and the feature pyramid before them."""

import keras
import numpy as np
import pytest
from keras import layers

from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import folding, fpn, measure, ssd

TOWER = {"num_layers": 2, "channels": 16, "shared": True}
PYRAMID = {
    "input_hw": [96, 160],
    "num_levels": 5,
    "backbone": {"name": "plain", "alpha": 0.25},
    "neck": "fpn_lite",
    "neck_channels": 24,
    "head": "separable",
    "tower": TOWER,
}


def build(num_classes=3, **model):
    values = {"model": PYRAMID | model, "boxes": {"preset": "od_api_fpn"}}
    return ssd.build_model(check_config(values, "test"), num_classes)


@pytest.fixture(scope="module")
def pyramid():
    return build(backbone={"name": "mobilenet_v2", "alpha": 0.35}).model


def layer_names(model, kind):
    return [layer.name for layer in model.layers if isinstance(layer, kind)]


# The backbone of `pyramid` is mobilenet_v2, with fpn_lite.
@pytest.mark.parametrize(
    ("name", "neck"),
    [("mobilenet", "fpn"), ("mobilenet_v3_large", "fpn_lite"), ("resnet18", "fpn_lite")],
)
def test_every_backbone_has_a_pyramid(name, neck):
    network = build(backbone={"name": name, "alpha": 0.25}, neck=neck)
    assert network.map_shapes == ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2))
    shapes = {name: output.shape for name, output in network.model.output.items()}
    assert shapes == {"offsets": (None, 6 * 323, 4), "logits": (None, 6 * 323, 4)}
    assert network.default_boxes.shape == (6 * 323, 4)


@pytest.mark.parametrize("input_hw", [[97, 129], [300, 513]])
def test_odd_sizes(input_hw):
    network = build(input_hw=input_hw)
    sides = [tuple(-(-side // 2**level) for side in input_hw) for level in range(3, 8)]
    assert list(network.map_shapes) == sides
    outputs = network.model(np.zeros((1, *input_hw, 3), np.float32))
    assert outputs["offsets"].shape == (1, len(network.default_boxes), 4)


def test_a_shared_kernel_is_one_variable_and_each_map_has_its_own_batch_norm(pyramid):
    model = pyramid
    separable = set(layer_names(model, layers.SeparableConv2D))
    pyramid = {"fpn_smooth3", "fpn_smooth4", "fpn_coarse6", "fpn_coarse7"}
    assert separable == pyramid | {"tower0", "tower1", "offsets_conv", "logits_conv"}
    norms = [name for name in layer_names(model, layers.BatchNormalization) if "tower" in name]
    assert sorted(norms) == [
        f"tower{layer}_map{level}_bn" for layer in range(2) for level in range(5)
    ]
    # 3 * 3 * 24 + 24 * 16, then 3 * 3 * 16 + 16 * 16, without biases.
    assert model.get_layer("tower0").count_params() == 216 + 384
    assert model.get_layer("tower1").count_params() == 144 + 256
    assert model.get_layer("offsets_conv").count_params() == 144 + 16 * 24 + 24
    assert model.get_layer("logits_conv").count_params() == 144 + 16 * 24 + 24


@pytest.mark.parametrize("shared", [True, False])
def test_towers_and_heads_of_each_map(shared):
    tower = TOWER | {"shared": shared, "per_map": True, "num_layers": 1}
    model = build(num_levels=3, tower=tower).model
    names = set(layer_names(model, layers.SeparableConv2D))
    towers = ["tower0"] if shared else ["box_tower0", "class_tower0"]
    expected = {f"{name}_map{level}" for name in towers for level in range(3)}
    expected |= {f"{head}{level}_conv" for head in ("offsets", "logits") for level in range(3)}
    assert {name for name in names if not name.startswith("fpn_")} == expected
    # 3 * 3 * 16 + 16 * 24 weights and 24 biases of 6 boxes with 4 offsets, or 4 logits, per cell.
    assert {model.get_layer(f"{head}2_conv").count_params() for head in ("offsets", "logits")} == {
        144 + 16 * 24 + 24
    }


def test_two_towers_of_ordinary_convolutions():
    model = build(head="conv", tower=TOWER | {"shared": False}).model
    assert model.get_layer("box_tower0").kernel.shape == (3, 3, 24, 16)
    assert model.get_layer("class_tower1").kernel.shape == (3, 3, 16, 16)
    assert model.get_layer("logits_conv").kernel.shape == (3, 3, 16, 6 * 4)
    assert "tower0" not in {layer.name for layer in model.layers}


def test_objects_begin_at_a_hundredth_with_the_focal_loss():
    model = PYRAMID | {"score_activation": "sigmoid"}
    boxes = {"preset": "od_api_fpn"}
    values = {"model": model, "boxes": boxes, "loss": {"focal_gamma": 2.0}}
    model = ssd.build_model(check_config(values, "test"), 2).model
    bias = model.get_layer("logits_conv").bias.numpy().reshape(6, 3)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias[:, 1:])), 0.01, rtol=1e-5)


def test_shared_heads_need_equal_numbers_of_boxes():
    sizes = [{"size": 16}, {"size": 32}, {"size": 64, "next_size": 80}]
    values = {"model": PYRAMID | {"num_levels": 3}, "boxes": {"levels": sizes}}
    with pytest.raises(ConfigError, match=r"model\.tower.*\[1, 1, 2\]"):
        ssd.build_model(check_config(values, "test"), 2)


def set_plain_weights(model):
    """Let the laterals of a pyramid pass their pixels on, and its smoothing halve them."""
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            kernel = np.zeros(layer.kernel.shape)
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = (
                0.5 if "smooth" in layer.name else 1
            )
            layer.set_weights([kernel, *(np.zeros(1) for _ in layer.weights[1:])])
        elif isinstance(layer, layers.BatchNormalization):
            layer.set_weights([np.full(1, np.sqrt(1.001)), np.zeros(1), np.zeros(1), np.ones(1)])


def test_the_pyramid_by_hand():
    """Laterals are ones: P5 is 1, P4 is smoothed 2 and P3 smoothed (smoothed P4 + 1)."""
    inputs = [keras.Input((size, size, 1)) for size in (5, 3, 2)]
    model = keras.Model(inputs, fpn.neck(inputs, 5, 1, separable=False))
    set_plain_weights(model)
    outputs = model([np.ones((1, size, size, 1), np.float32) for size in (5, 3, 2)], training=False)
    values = [0.5 * (0.5 * 2 + 1), 0.5 * 2, 1, 1, 1]
    shapes = [(5, 5), (3, 3), (2, 2), (1, 1), (1, 1)]
    for output, value, shape in zip(outputs, values, shapes, strict=True):
        assert output.shape == (1, *shape, 1)
        np.testing.assert_allclose(output, value, rtol=1e-6)


def test_costs_count_each_call(pyramid):
    costs = {cost.name: cost for cost in measure.layer_costs(pyramid)}
    positions = 240 + 60 + 15 + 6 + 2
    assert costs["tower1"].multiply_adds == positions * (144 + 256)
    assert costs["tower1"].parameters == 400


def test_receptive_fields_of_all_maps(pyramid):
    fields = measure.level_fields(pyramid)
    assert len(fields) == 5
    assert fields == sorted(fields)


def test_a_bilinear_pyramid_by_hand():
    """P5 is 0, 8: P4 is halfway between the centres of its pixels, and P3 between those of P4."""
    inputs = [keras.Input((height, 2 * height, 1)) for height in (4, 2, 1)]
    model = keras.Model(inputs, fpn.neck(inputs, 3, 1, separable=False, interpolation="bilinear"))
    set_plain_weights(model)
    images = [np.zeros((1, height, 2 * height, 1), np.float32) for height in (4, 2)]
    images.append(np.array([0, 8], np.float32).reshape(1, 1, 2, 1))
    p3, p4, _ = model(images, training=False)
    np.testing.assert_allclose(p4[0, :, :, 0], [[0, 1, 3, 4]] * 2, atol=1e-6)
    row = [0, 0.125, 0.375, 0.75, 1.25, 1.625, 1.875, 2]
    np.testing.assert_allclose(p3[0, :, :, 0], [row] * 4, atol=1e-6)


@pytest.mark.parametrize("folded", [False, True])
def test_heads_that_move_corners(folded):
    """Every box is moved as the biases say: see the test of corners_to_offsets."""
    values = {
        "model": {
            "input_hw": [64, 96],
            "num_levels": 2,
            "backbone": {"name": "plain", "alpha": 0.25},
        },
        "boxes": {
            "levels": [{"size": 20}, {"size": 40}],
            "coding": "corners",
            "variances": [1.0, 0.5, 0.1, 1.0],
        },
    }
    network = ssd.build_model(check_config(values, "test"), 2)
    for level in range(2):
        layer = network.model.get_layer(f"offsets{level}_conv")
        kernel, _ = layer.get_weights()
        layer.set_weights([0 * kernel, np.array([0.25, -1.0, -0.25, 2.0])])
    model = folding.fold_batch_norm(network.model) if folded else network.model
    offsets = model(np.zeros((2, 64, 96, 3), np.float32), training=False)["offsets"]
    assert offsets.shape == (2, len(network.default_boxes), 4)
    expected = np.broadcast_to([0.0, 0.5, -6.931472, 0.916291], offsets.shape)
    np.testing.assert_allclose(offsets, expected, atol=1e-5)
