"""The backbones and the neck: sizes, freezing, normalisation, and what is refused in one line."""

import keras
import numpy as np
import pytest

from ssd_tf.config import ConfigError, check_config
from ssd_tf.models import fpn, ssd

SMALL = {"input_hw": [64, 96], "levels": 3, "backbone": {"name": "plain"}}


def make_config(**values):
    return check_config({"boxes": {"preset": "caffe_voc"}, **values}, "test")


def small(backbone, input_hw=(64, 96), levels=3, **values):
    model = {"input_hw": list(input_hw), "levels": levels, "backbone": {"name": backbone, **values.pop("options", {})}, **values}
    return make_config(model=model, boxes={"levels": [{"size": 12, "aspect_ratios": [2]}] * levels})


BACKBONES = ["vgg16", "resnet18", "mobilenet", "mobilenet_v2", "mobilenet_v3_large", "plain"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_of_one_input_size_serve_another(backbone):
    model, larger = (ssd.build_model(small(backbone, hw), 2) for hw in ((64, 96), (97, 75)))
    assert [v.path for v in model.variables] == [v.path for v in larger.variables]
    larger.set_weights(model.get_weights())
    assert larger.output["offsets"].shape[1] > 0


@pytest.mark.parametrize("backbone", BACKBONES)
def test_freezing_by_stage(backbone):
    config = small(backbone, options={"frozen_stages": 2})
    model, free = ssd.build_model(config, 2), ssd.build_model(small(backbone), 2)
    frozen = {v.path for v in free.trainable_variables} - {v.path for v in model.trainable_variables}
    # The first convolution and everything up to stride 4; nothing of the heads, and nothing of the third stage.
    ends = {"vgg16": ("conv2_2", "conv3_1"), "mobilenet": ("conv_pw_3", "conv_dw_4"), "mobilenet_v2": ("block_2_", "block_3_")}
    ends |= {"mobilenet_v3_large": ("block3_", "block4_"), "plain": ("stage2_conv2", "stage3_conv1")}
    last, following = ends.get(backbone, ("layer1_1", "layer2_0"))
    assert any(path.startswith(last) for path in frozen)
    assert not any(path.startswith((following, "offsets", "logits")) for path in frozen)
    assert frozen | {v.path for v in model.trainable_variables} == {v.path for v in free.trainable_variables}


def test_frozen_batch_norm_keeps_its_statistics():
    model = ssd.build_model(small("resnet18", options={"frozen_stages": 1}), 2)
    image = np.random.default_rng(0).uniform(0, 255, (2, 64, 96, 3)).astype("float32")
    model(image, training=True)
    assert not model.get_layer("bn1").get_weights()[2].any()
    assert model.get_layer("layer1_0_bn1").get_weights()[2].any()


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "plain"])
def test_fpn_maps_halve_from_stride_8_on_whatever_the_size(backbone):
    for hw, maps in (((128, 192), [(16, 24), (8, 12), (4, 6), (2, 3)]), ((97, 131), None)):
        config = small(backbone, hw, levels=4, neck="fpn")
        found = ssd.feature_map_shapes(config)
        assert maps is None or found == maps
        model = ssd.build_model(config, 2)
        assert model.get_layer("fpn_output3").output.shape[-1] == model.get_layer("fpn_output6").output.shape[-1] == 256


def test_fpn_adds_the_enlarged_coarse_maps_to_the_finer_ones():
    inputs = [keras.Input((5, 7, 1)), keras.Input((3, 4, 1)), keras.Input((2, 2, 1))]
    model = keras.Model(inputs, fpn.neck(inputs, 5, channels=1))
    for layer in model.layers:
        if layer.weights:  # every convolution shows what it stands on
            kernel = np.zeros(layer.weights[0].shape, "float32")
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1.0
            layer.set_weights([kernel, np.zeros(1)])
    fine = np.arange(35.0).reshape(1, 5, 7, 1)
    middle = 100.0 * np.arange(12).reshape(1, 3, 4, 1)
    coarse = 10_000.0 * np.array([[-1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    p3, p4, p5, p6, p7 = (np.array(output)[0, :, :, 0] for output in model([fine, middle, coarse]))
    # Pixel (2, 5) of the finest lies in (1, 2) of the next, and that in (0, 1) of the coarsest.
    assert p3[2, 5] == 19 + 100 * 6 + 20_000
    # The last row and column: pixel (4, 6) in (2, 3) in (1, 1).
    assert p3[4, 6] == 34 + 100 * 11 + 40_000
    assert p4[2, 1] == 100 * 9 + 30_000
    assert p5.tolist() == [[-10_000, 20_000], [30_000, 40_000]]
    # Strides of 2 with one pixel around: the first position's centre is pixel (0, 0); an activation lies between the last two.
    assert (p6.tolist(), p7.tolist()) == ([[-10_000]], [[0]])


def test_the_input_is_normalised_by_the_configured_mean_and_deviation():
    options = {"mean_rgb": [10.0, 20.0, 30.0], "std_rgb": [1.0, 2.0, 5.0]}
    model = ssd.build_model(small("plain", options=options), 2)
    normalized = np.array(model.get_layer("normalize")(np.array([[[[12.0, 12.0, 40.0]]]], "float32")))
    np.testing.assert_allclose(normalized, [[[[2.0, -4.0, 2.0]]]], rtol=1e-6)


@pytest.mark.parametrize(
    ("scores", "probabilities"),
    # With the focal loss objects begin at .01: together with softmax, each with sigmoid.
    [("softmax", [0.99, 0.005, 0.005]), ("sigmoid", [0.5, 0.01, 0.01])],
)
def test_first_scores_with_the_focal_loss(scores, probabilities):
    config = make_config(model=SMALL, boxes={"preset": "paper"}, loss={"scores": scores, "focal_gamma": 2.0})
    bias = ssd.build_model(config, 2).get_layer("logits0_conv").get_weights()[1].reshape(-1, 3)
    assert len(bias) == 4
    expected = np.exp(bias) / np.exp(bias).sum(1, keepdims=True) if scores == "softmax" else 1 / (1 + np.exp(-bias))
    np.testing.assert_allclose(expected, [probabilities] * 4, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"backbone": {"name": "resnet20"}}}, r"backbone.name: unknown value 'resnet20'; did you mean 'resnet50'\?"),
        ({"boxes": {"preset": "torch_vision"}}, r"boxes.preset: unknown value 'torch_vision'; did you mean 'torchvision'\?"),
        ({"loss": {"focal_alpha": 0.25}}, r"loss: focal_alpha is part of the focal loss: give focal_gamma too"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(values, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**values)


@pytest.mark.parametrize(
    ("model", "boxes", "message"),
    [
        ({"levels": 8}, {"preset": "paper"}, r"vgg16 gives at most 7 maps, model.levels asks for 8"),
        ({"levels": 5}, {"preset": "caffe_voc"}, r"boxes.preset: caffe_voc has a table for 6 and 7 maps, model.levels is 5"),
        ({"levels": 7}, {"preset": "nvidia"}, r"boxes.preset: nvidia has a table for 6 maps, model.levels is 7"),
        ({"input_hw": [128, 200]}, {"preset": "paper"}, r"too small for conv8_2, on 2 x 4 pixels: .* \(input 128 x 200\)"),
        ({"input_hw": [100, 64], "backbone": {"name": "resnet18"}}, {"preset": "paper"}, r"too small for extra4_conv, on 2 x 1"),
        ({"input_hw": [64, 64], "backbone": {"name": "mobilenet"}}, {"preset": "paper"}, r"map 4: map 3 is 1 x 1 already"),
        ({"levels": 4, "neck": "fpn"}, {"preset": "paper"}, r"vgg16 has no map of stride 32 for the fpn neck"),
        ({"neck": "fpn", "backbone": {"name": "resnet18"}}, {"preset": "paper"}, r"the fpn neck gives 3 to 5 maps"),
    ],
)
def test_what_the_network_cannot_give_is_one_line(model, boxes, message):
    with pytest.raises(ConfigError, match=message) as error:
        ssd.build_model(make_config(model=model, boxes=boxes), 2)
    assert "\n" not in str(error.value)
