"""The backbones and the neck: sizes, freezing, normalisation, and rejections in one line."""

import inspect

import keras
import numpy as np
import pytest
from small_networks import build, make_config, small_config

from ssd_tf.errors import ConfigError
from ssd_tf.models import fpn, mobilenet, mobilenet_v3, plain, resnet, ssd, vgg

SMALL = {"input_hw": [64, 96], "num_levels": 3, "backbone": {"name": "plain"}}


def narrow(backbone):
    """Keys that give a backbone a quarter of its channels, if it can have them."""
    return {} if backbone == "vgg16" else {"alpha": 0.25}


@pytest.mark.parametrize("module", [vgg, resnet, mobilenet, mobilenet_v3, plain])
def test_backbone_modules_offer_the_same_names(module):
    assert len(module.MEAN_RGB) == len(module.STD_RGB) == 3
    assert keras.initializers.get(module.INITIALIZER) is not None
    parameters = {
        name: list(inspect.signature(getattr(module, name)).parameters)
        for name in ("features", "pyramid", "stage_ends")
    }
    assert parameters == {
        "features": ["image", "backbone", "num_levels"],
        "pyramid": ["image", "backbone"],
        "stage_ends": ["backbone"],
    }


@pytest.mark.parametrize(
    "backbone",
    [
        "plain",
        "resnet18",
        "mobilenet",
        *(
            pytest.param(name, marks=pytest.mark.integration)
            for name in ("vgg16", "mobilenet_v2", "mobilenet_v3_large")
        ),
    ],
)
def test_weights_do_not_depend_on_the_input_size(backbone):
    model = build(backbone, (64, 96), **narrow(backbone)).model
    larger = build(backbone, (97, 75), **narrow(backbone)).model
    assert [v.path for v in model.variables] == [v.path for v in larger.variables]
    larger.set_weights(model.get_weights())
    assert larger.output["offsets"].shape[1] > 0


# The last layer with a kernel of each stage.
LAST_OF_STAGE = {
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
# The first layer of each stage from the second on.
FIRST_OF_STAGE = {
    "vgg16": ("conv2_1", "conv3_1", "conv4_1", "conv5_1"),
    "resnet18": ("layer1_0_conv1", "layer2_0_conv1", "layer3_0_conv1"),
    "resnet50": ("layer1_0_conv1", "layer2_0_conv1", "layer3_0_conv1"),
    "mobilenet": ("conv_dw_2", "conv_dw_4", "conv_dw_6", "conv_dw_12"),
    "mobilenet_v2": ("block_1_expand", "block_3_expand", "block_6_expand", "block_13_expand"),
    "mobilenet_v3_large": ("block2_expand", "block4_expand", "block7_expand", "block13_expand"),
    "plain": ("stage2_conv1", "stage3_conv1", "stage4_conv1", "stage5_conv1"),
}
NEVER_FROZEN = ("offsets", "logits", "conv4_3_norm", "extra", "fc")


@pytest.mark.parametrize("backbone", LAST_OF_STAGE)
def test_freezing_by_stage(backbone):
    model = build(backbone, input_hw=(32, 64), **narrow(backbone)).model
    for num_frozen in range(1, len(LAST_OF_STAGE[backbone]) + 1):
        for layer in model.layers:
            layer.trainable = True
        all_paths = {variable.path for variable in model.trainable_variables}
        config = small_config(backbone, frozen_stages=num_frozen)
        ssd.freeze_stages(model, config.model.backbone)
        trained = {variable.path for variable in model.trainable_variables}
        frozen_kernels = {f"{name}/kernel" for name in LAST_OF_STAGE[backbone][:num_frozen]}
        assert frozen_kernels <= all_paths and not frozen_kernels & trained
        assert {f"{name}/kernel" for name in FIRST_OF_STAGE[backbone][num_frozen - 1 :]} <= trained
        assert {path for path in all_paths if path.startswith(NEVER_FROZEN)} <= trained


def test_no_more_stages_can_be_frozen_than_there_are():
    build("resnet18", neck="fpn", frozen_stages=5, alpha=0.25)
    message = r"frozen_stages: resnet18 has 4 stages in this model, got 5"
    with pytest.raises(ConfigError, match=message):
        build("resnet18", frozen_stages=5, alpha=0.25)


def test_frozen_batch_norm_keeps_its_statistics():
    model = build("resnet18", frozen_stages=1, alpha=0.25).model
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
def test_advice_about_a_small_input_does_not_lead_to_another_rejection(model, boxes, advice):
    config = make_config(
        model={"input_hw": [8, 8], "backbone": {"name": "resnet18", "alpha": 0.25}, **model},
        boxes=boxes,
    )
    with pytest.raises(ConfigError, match=rf"too small for .*: {advice} \(input 8 x 8\)"):
        ssd.build_model(config, 2)


# MobileNet v1 alone rounds halves down: 75 and 37 pixels become 37 and 18.
@pytest.mark.parametrize(
    "backbone",
    [
        "plain",
        "mobilenet",
        pytest.param("resnet18", marks=pytest.mark.integration),
        pytest.param("mobilenet_v2", marks=pytest.mark.integration),
    ],
)
# Even and odd maps are halved at each stride.
@pytest.mark.parametrize(
    ("input_hw", "maps", "mobilenet_maps"),
    [
        ((240, 320), [(30, 40), (15, 20), (8, 10), (4, 5)], [(30, 40), (15, 20), (7, 10), (4, 5)]),
        ((97, 131), [(13, 17), (7, 9), (4, 5), (2, 3)], [(12, 16), (6, 8), (3, 4), (2, 2)]),
    ],
)
def test_fpn_maps_halve_from_stride_8_on(backbone, input_hw, maps, mobilenet_maps):
    network = build(backbone, input_hw, num_levels=4, neck="fpn")
    expected = mobilenet_maps if backbone == "mobilenet" else maps
    assert list(network.map_shapes) == expected
    for name in ("fpn_smooth3", "fpn_smooth4", "fpn_lateral5", "fpn_coarse6"):
        assert network.model.get_layer(name).output.shape[-1] == 256


def pyramid_of(maps, num_levels):
    """The outputs [H, W] of a pyramid whose convolutions return their inputs."""
    inputs = [keras.Input((*np.shape(values), 1)) for values in maps]
    model = keras.Model(inputs, fpn.neck(inputs, num_levels, channels=1, separable=False))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.zeros(layer.kernel.shape, "float32")
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1.0
            layer.set_weights([kernel, *(np.zeros(1) for _ in layer.weights[1:])])
        elif layer.weights:  # batch norm with an epsilon of .001
            layer.set_weights([np.full(1, 1.001**0.5), np.zeros(1), np.zeros(1), np.ones(1)])
    arrays = [np.array(values, "float32")[None, ..., None] for values in maps]
    return [np.array(output)[0, :, :, 0] for output in model(arrays, training=False)]


def test_fpn_adds_the_enlarged_coarse_maps_to_the_finer_ones():
    fine = np.arange(35.0).reshape(5, 7) / 100
    middle = np.arange(12.0).reshape(3, 4) / 10
    p3, p4, p5, p6, p7 = pyramid_of([fine, middle, [[1.0, 2.0], [3.0, 4.0]]], 5)
    # Pixel (2, 5) of the finest lies in (1, 2) of the next, and that in (0, 1) of the coarsest.
    assert p3[2, 5] == pytest.approx(0.19 + 0.6 + 2)
    # The last row and column: pixel (4, 6) in (2, 3) in (1, 1).
    assert p3[4, 6] == pytest.approx(0.34 + 1.1 + 4)
    assert p4[2, 1] == pytest.approx(0.9 + 3)
    assert p5.tolist() == [[1, 2], [3, 4]]
    # TensorFlow's SAME pads an even map at the far side only: the centre is pixel (1, 1).
    np.testing.assert_allclose([p6, p7], [[[4]], [[4]]], rtol=1e-6)


def test_fpn_repeats_the_last_row_and_column_if_the_coarse_map_is_short():
    middle = [[1.0, 2.0, 3.0], [2.5, 3.5, 4.5]]
    p3, p4, _ = pyramid_of([np.zeros((5, 7)), middle, [[1.0]]], 3)
    np.testing.assert_allclose(p4, [[2, 3, 4], [3.5, 4.5, 5.5]], rtol=1e-6)
    top = [2, 2, 3, 3, 4, 4, 4]
    bottom = [3.5, 3.5, 4.5, 4.5, 5.5, 5.5, 5.5]
    np.testing.assert_allclose(p3, [top, top, bottom, bottom, bottom], rtol=1e-6)


V3_CONVOLUTIONS = (
    "stem",
    "block5_expand",
    "block6_depthwise",
    "block5_squeeze",
    "block5_excite",
    "block9_project",
    "last",
    "extra1_reduce",
    "extra1_depthwise",
    "extra1_expand",
    "offsets1_depthwise",
    "offsets1_conv",
    "logits0_conv",
)


def test_mobilenet_v3_initializes_every_convolution_as_torchvision_does():
    model = {
        "input_hw": [64, 96],
        "num_levels": 4,
        "backbone": {"name": "mobilenet_v3_large"},
        "head": "separable",
    }
    config = make_config(model=model, boxes={"preset": "paper"}, loss={"focal_gamma": 2.0})
    model = ssd.build_model(config, 20).model
    for name in V3_CONVOLUTIONS:
        kernel, *biases = model.get_layer(name).get_weights()
        assert kernel.std() == pytest.approx(0.03, rel=0.15), name  # the smallest has 432 numbers
        assert abs(kernel.mean()) < 0.005, name
        # The focal loss gives the class heads another bias.
        assert name == "logits0_conv" or not any(bias.any() for bias in biases), name
    kernels = [layer.get_weights()[0] for layer in model.layers if layer.name.endswith("_squeeze")]
    assert kernels[-1].shape == kernels[-2].shape
    assert not np.array_equal(kernels[-1], kernels[-2])


def test_the_input_is_normalised_by_the_configured_mean_and_deviation():
    config = small_config("plain", mean_rgb=[10.0, 20.0, 30.0], std_rgb=[1.0, 2.0, 5.0])
    normalize = ssd.build_model(config, 2).model.get_layer("normalize")
    normalized = np.array(normalize(np.array([[[[12.0, 12.0, 40.0]]]], "float32")))
    np.testing.assert_allclose(normalized, [[[[2.0, -4.0, 2.0]]]], rtol=1e-6)


def initial_biases(score_activation):
    """Biases of the logits of each default box of a cell [k, 3] with the focal loss."""
    model = SMALL | {"score_activation": score_activation}
    config = make_config(model=model, boxes={"preset": "paper"}, loss={"focal_gamma": 2.0})
    layer = ssd.build_model(config, 2).model.get_layer("logits0_conv")
    biases = layer.get_weights()[1].reshape(-1, 3)
    assert len(biases) == 4
    return biases


def test_objects_start_at_a_hundredth_together_with_focal_loss_and_softmax():
    exponentials = np.exp(initial_biases("softmax"))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, [[0.99, 0.005, 0.005]] * 4, rtol=1e-5)


def test_objects_start_at_a_hundredth_each_with_focal_loss_and_sigmoid():
    biases = initial_biases("sigmoid")
    probabilities = 1 / (1 + np.exp(-biases))
    np.testing.assert_allclose(probabilities, [[0.5, 0.01, 0.01]] * 4, rtol=1e-5)


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
            r"loss\.focal_alpha.*loss\.focal_gamma",
        ),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(values, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**values)


@pytest.mark.parametrize(
    ("model", "preset", "message"),
    [
        ({"num_levels": 8}, "paper", r"vgg16 gives at most 7 maps, model.num_levels asks for 8"),
        (
            {"num_levels": 5},
            "caffe_voc",
            r"boxes.preset: caffe_voc has a table for 6 and 7 maps, model.num_levels is 5",
        ),
        (
            {"num_levels": 7},
            "nvidia",
            r"boxes.preset: nvidia has a table for 6 maps, model.num_levels is 7",
        ),
        (
            {"input_hw": [128, 200]},
            "paper",
            r"too small for conv8_2, on 2 x 4 pixels: .* \(input 128 x 200\)",
        ),
        (
            {"input_hw": [100, 64], "backbone": {"name": "resnet18", "alpha": 0.25}},
            "paper",
            r"too small for extra4_conv, on 2 x 1",
        ),
        (
            {"input_hw": [64, 64], "backbone": {"name": "mobilenet", "alpha": 0.25}},
            "paper",
            r"map 4, as map 3 is 1 x 1 already",
        ),
        (
            {"input_hw": [31, 64], "backbone": {"name": "mobilenet_v2"}},
            "paper",
            r"at least 32 x 32 pixels \(input 31 x",
        ),
        (
            {"num_levels": 4, "neck": "fpn"},
            "paper",
            r"vgg16 has no map of stride 32 for the fpn neck",
        ),
        (
            {"num_levels": 7, "backbone": {"name": "resnet34"}},
            "paper",
            r"resnet34 gives at most 6 maps, model.num_levels asks for 7",
        ),
        (
            {"num_levels": 8, "input_hw": [320, 320], "backbone": {"name": "plain"}},
            "paper",
            r"plain gives at most 5 maps, model.num_levels asks for 8",
        ),
        ({"neck": "fpn", "backbone": {"name": "resnet18"}}, "paper", r"the fpn neck gives 3 to 5"),
    ],
)
def test_impossible_networks_are_rejected_in_one_line(model, preset, message):
    with pytest.raises(ConfigError, match=message) as error:
        ssd.build_model(make_config(model=model, boxes={"preset": preset}), 2)
    assert "\n" not in str(error.value)
