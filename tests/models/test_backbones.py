"""The backbones and the neck: sizes, freezing, normalisation, and what is refused in one line."""

import keras
import numpy as np
import pytest

from ssd_tf.config import ConfigError, check_config
from ssd_tf.models import fpn, ssd

SMALL = {"input_hw": [64, 96], "num_levels": 3, "backbone": {"name": "plain"}}


def make_config(**values):
    return check_config({"boxes": {"preset": "caffe_voc"}, **values}, "test")


def small(backbone, input_hw=(64, 96), levels=3, **values):
    model = {
        "input_hw": list(input_hw),
        "levels": levels,
        "backbone": {"name": backbone, **values.pop("options", {})},
        **values,
    }
    return make_config(model=model, boxes={"levels": [{"size": 12, "aspect_ratios": [2]}] * levels})


BACKBONES = ["vgg16", "resnet18", "mobilenet", "mobilenet_v2", "mobilenet_v3_large", "plain"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_of_one_input_size_serve_another(backbone):
    model, larger = (ssd.build_model(small(backbone, hw), 2).model for hw in ((64, 96), (97, 75)))
    assert [v.path for v in model.variables] == [v.path for v in larger.variables]
    larger.set_weights(model.get_weights())
    assert larger.output["offsets"].shape[1] > 0


# Of each stage, a layer that it trains and the one before leaves alone.
STAGES = {
    "vgg16": ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"),
    "resnet18": ("conv1", "layer1_1_conv2", "layer2_1_conv2", "layer3_1_conv2"),  # conv5 is cut off
    "resnet50": ("conv1", "layer1_2_conv3", "layer2_3_conv3", "layer3_5_conv3"),
    "mobilenet": ("conv_pw_1", "conv_pw_3", "conv_pw_5", "conv_pw_11", "conv_pw_13"),
    "mobilenet_v2": (
        "expanded_conv_project",
        "block_2_project",
        "block_5_project",
        "block_12_project",
        "Conv_1",
    ),
    "mobilenet_v3_large": (
        "block1_project",
        "block3_project",
        "block6_project",
        "block12_project",
        "last",
    ),
    "plain": ("stage1_conv1", "stage2_conv2", "stage3_conv2", "stage4_conv2", "stage5_conv2"),
}
# Of each stage but the first, its first layer.
BEGINNINGS = {
    "vgg16": ("conv2_1", "conv3_1", "conv4_1", "conv5_1"),
    "resnet18": ("layer1_0_conv1", "layer2_0_conv1", "layer3_0_conv1"),
    "resnet50": ("layer1_0_conv1", "layer2_0_conv1", "layer3_0_conv1"),
    "mobilenet": ("conv_dw_2", "conv_dw_4", "conv_dw_6", "conv_dw_12"),
    "mobilenet_v2": ("block_1_expand", "block_3_expand", "block_6_expand", "block_13_expand"),
    "mobilenet_v3_large": ("block2_expand", "block4_expand", "block7_expand", "block13_expand"),
    "plain": ("stage2_conv1", "stage3_conv1", "stage4_conv1", "stage5_conv1"),
}


@pytest.mark.parametrize("backbone", STAGES)
def test_freezing_by_stage(backbone):
    model = ssd.build_model(small(backbone, input_hw=(32, 64)), 2).model
    for number in range(1, len(STAGES[backbone]) + 1):
        for layer in model.layers:
            layer.trainable = True
        every = {variable.path for variable in model.trainable_variables}
        ssd._freeze(model, small(backbone, options={"frozen_stages": number}).model.backbone)
        trained = {variable.path for variable in model.trainable_variables}
        assert not {f"{name}/kernel" for name in STAGES[backbone][:number]} & trained
        assert {f"{name}/kernel" for name in BEGINNINGS[backbone][number - 1 :]} <= trained
        assert {
            path
            for path in every
            if path.startswith(("offsets", "logits", "conv4_3_norm", "extra", "fc"))
        } <= trained
        assert trained < every


def test_no_more_stages_can_be_frozen_than_there_are():
    ssd.build_model(small("resnet18", neck="fpn", options={"frozen_stages": 5}), 2)
    with pytest.raises(
        ConfigError, match=r"frozen_stages: resnet18 has 4 stages in this model, found 5"
    ):
        ssd.build_model(small("resnet18", options={"frozen_stages": 5}), 2)


def test_frozen_batch_norm_keeps_its_statistics():
    model = ssd.build_model(small("resnet18", options={"frozen_stages": 1}), 2).model
    image = np.random.default_rng(0).uniform(0, 255, (2, 64, 96, 3)).astype("float32")
    model(image, training=True)
    assert not model.get_layer("bn1").get_weights()[2].any()
    assert model.get_layer("layer1_0_bn1").get_weights()[2].any()


@pytest.mark.parametrize(
    ("model", "boxes", "advice"),
    [
        ({"num_levels": 3}, {"preset": "paper"}, "take a larger input or fewer model.num_levels"),
        ({"num_levels": 2}, {"preset": "paper"}, "take a larger input"),
        ({"num_levels": 3, "neck": "fpn"}, {"preset": "paper"}, "take a larger input"),
        (
            {"num_levels": 6},
            {"preset": "nvidia"},
            r"take .* model.num_levels with a boxes.preset for them \(nvidia is a table\)",
        ),
        (
            {"num_levels": 3},
            {"levels": [{"size": 9}] * 3},
            "take .* or fewer model.num_levels with as many rows of boxes.levels",
        ),
    ],
)
def test_advice_about_a_small_input_leads_into_no_other_refusal(model, boxes, advice):
    config = make_config(
        model={"input_hw": [8, 8], "backbone": {"name": "resnet18"}, **model}, boxes=boxes
    )
    with pytest.raises(ConfigError, match=rf"too small for .*: {advice} \(input 8 x 8\)"):
        ssd.build_model(config, 2)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet", "mobilenet_v2", "plain"])
def test_fpn_maps_halve_from_stride_8_on_whatever_the_size(backbone):
    down = (
        backbone == "mobilenet"
    )  # which alone rounds halves down: 75 and 37 pixels are halved to 37 and 18
    maps_300 = (
        [(37, 37), (18, 18), (9, 9), (5, 5)] if down else [(38, 38), (19, 19), (10, 10), (5, 5)]
    )
    maps_240 = [(30, 40), (15, 20), (7, 10) if down else (8, 10), (4, 5)]
    cases = {
        (128, 192): [(16, 24), (8, 12), (4, 6), (2, 3)],
        (240, 320): maps_240,
        (300, 300): maps_300,
        (97, 131): None,
    }
    for hw, maps in cases.items():
        config = small(backbone, hw, levels=4, neck="fpn")
        found = list(ssd.build_model(config, 2).map_shapes)
        assert maps is None or found == maps
        model = ssd.build_model(config, 2).model
        assert (
            model.get_layer("fpn_output3").output.shape[-1]
            == model.get_layer("fpn_output6").output.shape[-1]
            == 256
        )


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


def test_fpn_repeats_the_last_row_and_column_where_the_coarse_map_is_short():
    inputs = [keras.Input((5, 7, 1)), keras.Input((2, 3, 1)), keras.Input((1, 1, 1))]
    model = keras.Model(inputs, fpn.neck(inputs, 3, channels=1))
    for layer in model.layers:
        if layer.weights:
            kernel = np.zeros(layer.weights[0].shape, "float32")
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1.0
            layer.set_weights([kernel, np.zeros(1)])
    fine, middle = (
        np.zeros((1, 5, 7, 1)),
        np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).reshape(1, 2, 3, 1),
    )
    p3, p4, _ = (
        np.array(output)[0, :, :, 0] for output in model([fine, middle, 10 * np.ones((1, 1, 1, 1))])
    )
    assert p4.tolist() == [[11, 12, 13], [14, 15, 16]]
    top, bottom = [11, 11, 12, 12, 13, 13, 13], [14, 14, 15, 15, 16, 16, 16]
    assert p3.tolist() == [top, top, bottom, bottom, bottom]


@pytest.mark.parametrize("loss", [{}, {"focal_gamma": 2.0}])
def test_ssdlites_v3_starts_every_convolution_as_torchvision_does(loss):
    model = {
        "input_hw": [64, 96],
        "num_levels": 4,
        "backbone": {"name": "mobilenet_v3_large"},
        "head": "separable",
    }
    model = ssd.build_model(
        make_config(model=model, boxes={"preset": "paper"}, loss=loss), 20
    ).model
    kinds = (
        "stem",
        "block5_expand",
        "block6_depthwise",
        "block5_squeeze",
        "block5_excite",
        "block9_project",
        "last",
    )
    kinds += (
        "extra1_reduce",
        "extra1_depthwise",
        "extra1_expand",
        "offsets1_depthwise",
        "offsets1_conv",
        "logits0_conv",
    )
    for name in kinds:
        kernel, *biases = model.get_layer(name).get_weights()
        assert kernel.std() == pytest.approx(0.03, rel=0.15), name  # the smallest has 432 numbers
        assert abs(kernel.mean()) < 0.005, name
        assert (name == "logits0_conv" and loss) or not any(bias.any() for bias in biases), name
    kernels = [layer.get_weights()[0] for layer in model.layers if layer.name.endswith("_squeeze")]
    assert not np.array_equal(kernels[-1], kernels[-2])  # of one shape


def test_the_input_is_normalised_by_the_configured_mean_and_deviation():
    options = {"mean_rgb": [10.0, 20.0, 30.0], "std_rgb": [1.0, 2.0, 5.0]}
    model = ssd.build_model(small("plain", options=options), 2).model
    normalized = np.array(
        model.get_layer("normalize")(np.array([[[[12.0, 12.0, 40.0]]]], "float32"))
    )
    np.testing.assert_allclose(normalized, [[[[2.0, -4.0, 2.0]]]], rtol=1e-6)


@pytest.mark.parametrize(
    ("scores", "probabilities"),
    # With the focal loss objects begin at .01: together with softmax, each with sigmoid.
    [("softmax", [0.99, 0.005, 0.005]), ("sigmoid", [0.5, 0.01, 0.01])],
)
def test_first_scores_with_the_focal_loss(scores, probabilities):
    config = make_config(
        model=SMALL, boxes={"preset": "paper"}, loss={"scores": scores, "focal_gamma": 2.0}
    )
    bias = (
        ssd.build_model(config, 2).model.get_layer("logits0_conv").get_weights()[1].reshape(-1, 3)
    )
    assert len(bias) == 4
    expected = (
        np.exp(bias) / np.exp(bias).sum(1, keepdims=True)
        if scores == "softmax"
        else 1 / (1 + np.exp(-bias))
    )
    np.testing.assert_allclose(expected, [probabilities] * 4, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model": {"backbone": {"name": "resnet20"}}},
            r"backbone.name: unknown value 'resnet20'; did you mean 'resnet50'\?",
        ),
        (
            {"boxes": {"preset": "torch_vision"}},
            r"boxes.preset: unknown value 'torch_vision'; did you mean 'torchvision'\?",
        ),
        (
            {"loss": {"focal_alpha": 0.25}},
            r"loss: focal_alpha is part of the focal loss: give focal_gamma too",
        ),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(values, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**values)


@pytest.mark.parametrize(
    ("model", "boxes", "message"),
    [
        (
            {"num_levels": 8},
            {"preset": "paper"},
            r"vgg16 gives at most 7 maps, model.num_levels asks for 8",
        ),
        (
            {"num_levels": 5},
            {"preset": "caffe_voc"},
            r"boxes.preset: caffe_voc has a table for 6 and 7 maps, model.num_levels is 5",
        ),
        (
            {"num_levels": 7},
            {"preset": "nvidia"},
            r"boxes.preset: nvidia has a table for 6 maps, model.num_levels is 7",
        ),
        (
            {"input_hw": [128, 200]},
            {"preset": "paper"},
            r"too small for conv8_2, on 2 x 4 pixels: .* \(input 128 x 200\)",
        ),
        (
            {"input_hw": [100, 64], "backbone": {"name": "resnet18"}},
            {"preset": "paper"},
            r"too small for extra4_conv, on 2 x 1",
        ),
        (
            {"input_hw": [64, 64], "backbone": {"name": "mobilenet"}},
            {"preset": "paper"},
            r"map 4, as map 3 is 1 x 1 already",
        ),
        (
            {"input_hw": [31, 64], "backbone": {"name": "mobilenet_v2"}},
            {"preset": "paper"},
            r"at least 32 x 32 pixels \(input 31 x",
        ),
        (
            {"num_levels": 4, "neck": "fpn"},
            {"preset": "paper"},
            r"vgg16 has no map of stride 32 for the fpn neck",
        ),
        (
            {"neck": "fpn", "backbone": {"name": "resnet18"}},
            {"preset": "paper"},
            r"the fpn neck gives 3 to 5 maps",
        ),
    ],
)
def test_what_the_network_cannot_give_is_one_line(model, boxes, message):
    with pytest.raises(ConfigError, match=message) as error:
        ssd.build_model(make_config(model=model, boxes=boxes), 2)
    assert "\n" not in str(error.value)
