"""The detector against the paper's numbers, and the one order of its heads and default boxes."""

import pathlib
import typing

import keras
import numpy as np
import pytest
from small_networks import make_config

from ssd_tf.boxes.default_boxes import BoxLevel
from ssd_tf.config import load_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import heads, ssd
from ssd_tf.models.vgg import L2Normalization

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"

# Not square, and every number of shapes, maps and steps different from its neighbours.
SMALL = {
    "model": {
        "input_hw": [64, 96],
        "backbone": {"name": "mobilenet", "alpha": 0.25, "first_stride": 8},
        "num_levels": 3,
    },
    "boxes": {
        "levels": [
            {"size": 12, "aspect_ratios": [2]},
            {"size": 24, "next_size": 40, "aspect_ratios": [2, 3]},
            {"size": 40, "next_size": 60},
        ]
    },
}


@pytest.fixture(scope="module")
def ssd300():
    return ssd.build_model(make_config(), 20)


def test_ssd300_has_the_papers_maps_boxes_and_parameters(ssd300):
    assert ssd300.map_shapes == ((38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1))
    # 38 * 38 * 4 + (19 * 19 + 10 * 10 + 5 * 5) * 6 + (3 * 3 + 1) * 4
    assert ssd300.default_boxes.shape == (8732, 4)
    assert ssd300.model.output["offsets"].shape == (None, 8732, 4)
    assert ssd300.model.output["logits"].shape == (None, 8732, 21)
    assert ssd300.model.count_params() == 26_285_486


def test_pool3_keeps_the_last_row_and_column_of_an_odd_map(ssd300):
    image = np.zeros((1, 75, 75, 1), "float32")
    image[0, 74, 3] = 7.0  # last row; column 3 lies in window 1
    image[0, 2, 74] = 5.0  # row 2 lies in window 1
    pooled = np.array(ssd300.model.get_layer("pool3")(image))
    assert pooled.shape == (1, 38, 38, 1)
    assert pooled[0, 37, 1] == 7.0
    assert pooled[0, 1, 37] == 5.0
    assert pooled.sum() == 12.0


def test_pool5_keeps_the_size_of_the_map(ssd300):
    image = np.zeros((1, 4, 5, 1), "float32")
    image[0, 0, 0] = 1.0
    pooled = np.array(ssd300.model.get_layer("pool5")(image))[0, :, :, 0]
    assert pooled.tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_conv6_2_pads_one_pixel_on_every_side_before_its_stride(ssd300):
    convolution = ssd300.model.get_layer("conv6_2")
    pad = ssd300.model.get_layer("conv6_2_pad")
    kernel = np.zeros((3, 3, 256, 512), "float32")
    kernel[0, 0, 0, 0] = 1.0  # the upper left tap: output (y, x) shows input (2 y - 1, 2 x - 1)
    convolution.set_weights([kernel, np.zeros(512)])
    image = np.zeros((1, 19, 19, 256), "float32")
    image[0, :, :, 0] = np.arange(361).reshape(19, 19)
    shown = np.array(convolution(pad(image)))[0, :, :, 0]
    assert shown.shape == (10, 10)
    assert shown[0].tolist() == [0.0] * 10
    assert shown[1, :3].tolist() == [0.0, 1 * 19 + 1, 1 * 19 + 3]


def test_fc6_has_a_dilation_of_six_pixels(ssd300):
    assert ssd300.model.get_layer("fc6").dilation_rate == (6, 6)
    assert ssd300.model.get_layer("fc6").output.shape == (None, 19, 19, 1024)


def test_l2_normalization_divides_by_the_norm_over_channels():
    layer = L2Normalization()
    x = np.array([[[[3.0, 4.0], [0.0, 0.0]]]], "float32")  # norms 5 and 0
    np.testing.assert_allclose(np.array(layer(x)), [[[[12.0, 16.0], [0.0, 0.0]]]], rtol=1e-6)
    layer.scale.assign([1.0, 10.0])
    np.testing.assert_allclose(np.array(layer(x))[0, 0, 0], [0.6, 8.0], rtol=1e-6)


class Order(typing.NamedTuple):
    """Sizes of default boxes [n, 2] as the order of the outputs implies them, and as they are."""

    expected: np.ndarray
    found: np.ndarray


def check_order(config, network, steps=None) -> Order:
    """Check that the centres of default boxes and outputs agree; returns their sizes.

    The heads get kernels that show a map of coordinates, and biases that are the running index of
    level and shape. Offsets then come out as (y, x) of the cell's centre and, through the index,
    the height and width of the default box.
    steps: of the reference, in pixels; without them, neighbouring centres are input / map apart.
    Boxes that a clip rule of the preset may change are left out of the result.
    """
    input_hw = config.model.input_hw
    maps = []
    sizes = []
    for index, (map_hw, level) in enumerate(zip(network.map_shapes, network.levels, strict=True)):
        step_hw = (input_hw[0] / map_hw[0], input_hw[1] / map_hw[1])
        if steps:
            step_hw = (steps[index], steps[index])
        num_channels = first_layer(network.model, f"offsets{index}").input.shape[-1]
        maps.append(coordinates(map_hw, step_hw, input_hw, num_channels))
        for head in ("offsets", "logits"):
            show_coordinates(network.model, f"{head}{index}", len(level.shapes_hw), len(sizes))
        sizes += level.shapes_hw
    offsets, logits = run_heads(network.model, maps)
    running_index = offsets[0, :, 2].astype(int)
    assert sorted(set(running_index)) == list(range(len(sizes)))
    np.testing.assert_array_equal(running_index, logits[0, :, 2])
    boxes = network.default_boxes
    # Batch norm's epsilon of 1e-3 in separable heads takes half of that off every number.
    centres = np.minimum(offsets[0, :, :2], 1.0 if config.boxes.preset == "nvidia" else np.inf)
    np.testing.assert_allclose(centres, (boxes[:, :2] + boxes[:, 2:]) / 2, rtol=1e-3, atol=1e-5)
    expected = np.array(sizes)[running_index] / input_hw
    found = boxes[:, 2:] - boxes[:, :2]
    inside = (expected < 1).all(1) & (found > 0).all(1)
    assert inside.any()
    return Order(expected[inside], found[inside])


def first_layer(model, head):
    """The depthwise convolution of a separable head, else its convolution."""
    names = {layer.name for layer in model.layers}
    depthwise = f"{head}_depthwise"
    return model.get_layer(depthwise if depthwise in names else f"{head}_conv")


def coordinates(map_hw, step_hw, input_hw, num_channels):
    """A map [1, H, W, channels] whose first channels are y and x of the cell's centre, in 0..1."""
    feature = np.zeros((1, *map_hw, num_channels), "float32")
    feature[0, ..., 0] = ((np.arange(map_hw[0]) + 0.5) * step_hw[0] / input_hw[0])[:, None]
    feature[0, ..., 1] = (np.arange(map_hw[1]) + 0.5) * step_hw[1] / input_hw[1]
    return feature


def show_coordinates(model, head, num_shapes, first_index):
    """Make a head show the first two channels and, as its third number, the index of the shape."""
    convolution = model.get_layer(f"{head}_conv")
    depthwise = first_layer(model, head)
    if depthwise is not convolution:
        kernel = np.zeros(depthwise.weights[0].shape, "float32")
        kernel[1, 1] = 1.0
        depthwise.set_weights([kernel])
    kernel, bias = (np.zeros(weight.shape, "float32") for weight in convolution.weights)
    middle = kernel.shape[0] // 2
    size = len(bias) // num_shapes
    for shape in range(num_shapes):
        if head.startswith("offsets"):
            kernel[middle, middle, 0, shape * size] = 1.0
            kernel[middle, middle, 1, shape * size + 1] = 1.0
        bias[shape * size + 2] = first_index + shape
    convolution.set_weights([kernel, bias])


def run_heads(model, maps):
    """Offsets and logits of the heads on one array per map, finest first."""
    features = [first_layer(model, f"offsets{index}").input for index in range(len(maps))]
    outputs = keras.Model(features, model.output)(maps)
    return np.array(outputs["offsets"]), np.array(outputs["logits"])


@pytest.mark.parametrize("head", ["conv", "separable", "pointwise"])
def test_outputs_and_default_boxes_share_one_order(head):
    config = make_config(**{**SMALL, "model": {**SMALL["model"], "head": head}})
    order = check_order(config, ssd.build_model(config, 2))
    np.testing.assert_allclose(order.found, order.expected, atol=1e-6)


def test_order_of_a_small_model_in_literals():
    network = ssd.build_model(make_config(**SMALL), 2)
    boxes = network.default_boxes
    assert network.map_shapes == ((8, 12), (4, 6), (2, 3))
    assert len(boxes) == 8 * 12 * 3 + 4 * 6 * 6 + 2 * 3 * 2
    # Cell (0, 1) of the first map: its centre at (4, 12) px, its first shape 12 x 12.
    np.testing.assert_allclose(boxes[3], [-2 / 64, 6 / 96, 10 / 64, 18 / 96], atol=1e-6)
    # The last cell of the last map: its centre at (48, 80) px, the square of side
    # sqrt(40 * 60) = 48.99.
    np.testing.assert_allclose(
        boxes[-1], [23.505 / 64, 55.505 / 96, 72.495 / 64, 104.495 / 96], atol=1e-5
    )


def test_the_same_seed_gives_the_same_weights():
    config = make_config(**SMALL)
    one = ssd.build_model(config, 2).model.get_weights()
    two = ssd.build_model(config, 2).model.get_weights()
    other = ssd.build_model(make_config(**SMALL, train={"seed": 1}), 2).model.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


class Boxes(typing.NamedTuple):
    """What a config builds: its maps, the number of default boxes and the side of the first."""

    map_shapes: tuple
    num_boxes: int
    first_side: float  # in pixels
    steps: tuple | None = None  # of the reference, if they are not input / map


def squares(*sides):
    return tuple((side, side) for side in sides)


SSD300_MAPS = squares(38, 19, 10, 5, 3, 1)
SSD512_MAPS = squares(64, 32, 16, 8, 4, 2, 1)
# The references' own distances of centres, on VGG16 and on ResNets that have its maps.
SSD300_STEPS = (8, 16, 32, 64, 100, 300)
SSD512_STEPS = (8, 16, 32, 64, 128, 256, 512)

# Every config of this repository that is a network; finetune.yaml takes over that of a run.
BOXES = {
    "bccd_mobilenet": Boxes(
        ((30, 40), (15, 20), (7, 10)), 30 * 40 * 4 + 15 * 20 * 6 + 7 * 10 * 6, 17
    ),
    # 361 cells of three, and 100 + 25 + 9 + 4 + 1 = 139 of six. The first default box is the small
    # one of scale .1.
    "finetune_imagenet": Boxes(squares(19, 10, 5, 3, 2, 1), 1917, 30),
    "shapes_plain": Boxes(
        squares(24, 12, 6, 3),
        24 * 24 * 4 + 12 * 12 * 6 + 6 * 6 * 4 + 3 * 3 * 4,
        0.07 * 192,
    ),
    "ssd300_vgg16_voc": Boxes(SSD300_MAPS, 8732, 30, SSD300_STEPS),
    "ssd300_vgg16_coco": Boxes(SSD300_MAPS, 8732, 21, SSD300_STEPS),
    "ssd300_resnet18_coco": Boxes(SSD300_MAPS, 8732, 21, SSD300_STEPS),
    "ssd300_resnet34_coco": Boxes(SSD300_MAPS, 8732, 21, SSD300_STEPS),
    "ssd300_resnet50_coco": Boxes(SSD300_MAPS, 8732, 21, SSD300_STEPS),
    # Truncated to whole pixels; the tables say 35.84 and 20.48.
    "ssd512_vgg16_voc": Boxes(SSD512_MAPS, 24564, 35, SSD512_STEPS),
    "ssd512_vgg16_coco": Boxes(SSD512_MAPS, 24564, 20, SSD512_STEPS),
    # 400 + 100 + 25 + 9 + 4 + 1 = 539 cells of six.
    "ssdlite320_mobilenet_v2_coco": Boxes(squares(20, 10, 5, 3, 2, 1), 3234, 48),
    "ssdlite320_mobilenet_v3_coco": Boxes(squares(20, 10, 5, 3, 2, 1), 3234, 64),
    "ssdlite192_mobilenet_v2_035_coco": Boxes(
        squares(12, 6, 3, 2, 1), (144 + 36 + 9 + 4 + 1) * 6, 0.2 * 192
    ),
    "ssd640_resnet50_fpn_coco": Boxes(
        squares(80, 40, 20, 10, 5), (6400 + 1600 + 400 + 100 + 25) * 6, 32
    ),
    "ssd640_mobilenet_v2_fpnlite_coco": Boxes(
        squares(80, 40, 20, 10, 5), (6400 + 1600 + 400 + 100 + 25) * 6, 32
    ),
    "ssd320_mobilenet_v2_fpnlite_coco": Boxes(
        squares(40, 20, 10, 5, 3), (1600 + 400 + 100 + 25 + 9) * 6, 32
    ),
}


def test_every_config_is_checked():
    networks = {path.stem for path in CONFIGS.glob("*.yaml")} - {"finetune"}
    assert networks == set(BOXES)
    assert sorted(VALUES) == sorted(BOXES)


# One of each family; the others are larger networks of the same code.
FAST = ("bccd_mobilenet", "shapes_plain", "ssd300_vgg16_voc", "ssd300_resnet18_coco")
FAST += ("ssdlite192_mobilenet_v2_035_coco", "ssdlite320_mobilenet_v3_coco")


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.integration) for name in BOXES],
)
def test_every_config_builds_its_maps_and_boxes_in_the_order_of_its_heads(name):
    config = load_config(CONFIGS / f"{name}.yaml", ["init_from=null"])
    expected = BOXES[name]
    network = ssd.build_model(config, 2)
    assert network.map_shapes == expected.map_shapes
    assert network.default_boxes.shape == (expected.num_boxes, 4)
    assert network.levels[0].shapes_hw[0][0] == pytest.approx(expected.first_side)
    if config.model.tower is None:  # test_od_tf2 compares shared heads with the API's
        order = check_order(config, network, expected.steps)
        np.testing.assert_allclose(order.found, order.expected, atol=1e-6)


COMMON_VALUES = {
    "boxes.preset": None,
    "loss.normalizer": "global",
    "loss.min_negatives": 3,
    "model.score_activation": "softmax",
    "loss.focal_gamma": None,
    "loss.focal_alpha": None,
    "data.train_difficult": False,
    "train.bn_momentum": 0.9,
    "eval.score_floor": 0.01,
    "eval.nms_iou": 0.45,
    "eval.pre_nms_top_k": 400,
    "eval.max_detections": 200,
    "eval.clip_first": False,
    "eval.size_limit": None,
    "data.repeat_threshold": None,
    "train.pretrained_rate": 1,
}
CAFFE_VALUES = {**COMMON_VALUES, "loss.min_negatives": 0}
NVIDIA_VALUES = {
    **COMMON_VALUES,
    "boxes.preset": "nvidia",
    "loss.normalizer": "nvidia",
    "loss.min_negatives": 0,
    "eval.score_floor": 0.05,
    "eval.nms_iou": 0.5,
    "eval.pre_nms_top_k": 200,
}
SSDLITE_V2_VALUES = {
    **COMMON_VALUES,
    "loss.min_negatives": 0,
    "train.bn_momentum": 0.97,
    "eval.score_floor": 0.02,
    "eval.pre_nms_top_k": 1000,
    "eval.size_limit": 62.5,
}
# The values that make each config that of its source.
PYRAMID_VALUES = {
    **COMMON_VALUES,
    "boxes.preset": "od_api_fpn",
    "model.score_activation": "sigmoid",
    "loss.focal_gamma": 2.0,
    "loss.focal_alpha": 0.25,
    "eval.nms_iou": 0.6,
    "eval.max_detections": 100,
}
VALUES = {
    "bccd_mobilenet": COMMON_VALUES,
    "finetune_imagenet": {
        **COMMON_VALUES,
        "boxes.preset": "od_api",
        "data.repeat_threshold": 0.1,
        "train.optimizer": "AdamW",
        "train.learning_rate": 0.01,
        "train.pretrained_rate": 0.25,
        "train.bn": "train",
        "train.ema": 0.995,
        "eval.patience": 4,
        "eval.pre_nms_top_k": 1000,
    },
    "shapes_plain": {**COMMON_VALUES, "boxes.preset": "paper"},
    "ssd300_vgg16_voc": {
        **CAFFE_VALUES,
        "boxes.preset": "caffe_voc",
        "data.train_difficult": True,
    },
    "ssd300_vgg16_coco": {**CAFFE_VALUES, "boxes.preset": "caffe_coco"},
    "ssd512_vgg16_voc": {
        **CAFFE_VALUES,
        "boxes.preset": "caffe_voc",
        "data.train_difficult": True,
    },
    "ssd512_vgg16_coco": {**CAFFE_VALUES, "boxes.preset": "caffe_coco"},
    "ssd300_resnet18_coco": {**NVIDIA_VALUES, "train.learning_rate": 0.0026},
    "ssd300_resnet34_coco": {**NVIDIA_VALUES, "train.learning_rate": 0.0025},
    "ssd300_resnet50_coco": {**NVIDIA_VALUES, "train.learning_rate": 0.0026},
    "ssd640_resnet50_fpn_coco": {**PYRAMID_VALUES, "train.learning_rate": 0.04},
    "ssd320_mobilenet_v2_fpnlite_coco": {**PYRAMID_VALUES, "train.learning_rate": 0.08},
    "ssd640_mobilenet_v2_fpnlite_coco": {**PYRAMID_VALUES, "train.learning_rate": 0.08},
    "ssdlite320_mobilenet_v3_coco": {
        **COMMON_VALUES,
        "boxes.preset": "torchvision_ssdlite",
        "loss.normalizer": "torchvision",
        "loss.min_negatives": 0,
        "train.bn_momentum": 0.97,
        "train.learning_rate": 0.15,
        "eval.score_floor": 0.001,
        "eval.nms_iou": 0.55,
        "eval.pre_nms_top_k": 300,
        "eval.max_detections": 300,
        "eval.clip_first": True,
        "eval.size_limit": 62.5,
    },
    "ssdlite320_mobilenet_v2_coco": {**SSDLITE_V2_VALUES, "train.learning_rate": 0.015},
    "ssdlite192_mobilenet_v2_035_coco": {
        **SSDLITE_V2_VALUES,
        "boxes.preset": "torchvision_ssdlite",
        "train.learning_rate": 0.02,
    },
}


@pytest.mark.parametrize("name", VALUES)
def test_every_config_has_the_values_of_its_source(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    found = {}
    for path in VALUES[name]:
        section, key = path.split(".")
        found[path] = getattr(getattr(config, section), key)
    assert found == VALUES[name]


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnets_use_nvidias_augmentation(depth):
    augment = load_config(CONFIGS / f"ssd300_resnet{depth}_coco.yaml").data.augment
    assert augment.color.probability == 1
    assert augment.color.hue_degrees == 0
    assert augment.zoom_out_probability == 0
    assert augment.color.channel_shuffle_probability == 0
    assert augment.crop.tries == 1
    assert augment.color.brightness_factor == (0.875, 1.125)
    assert augment.color.contrast == (0.5, 1.5)
    assert augment.color.saturation == (0.5, 1.5)
    assert augment.crop.sampler == "torchvision"
    assert augment.flip_probability == 0.5


@pytest.mark.parametrize(
    ("backbone", "preset", "map_sides", "steps"),
    [
        ({"name": "mobilenet_v2", "alpha": 0.35}, "caffe_voc", (19, 10, 5, 3, 2, 1), None),
        ({"name": "mobilenet_v3_large"}, "torchvision", (19, 10, 5, 3, 2, 1), None),
        # The first five maps are VGG16's, and so are their steps; 300 / 2 = 150.
        (
            {"name": "plain", "first_stride": 8},
            "caffe_coco",
            (38, 19, 10, 5, 3, 2),
            (8, 16, 32, 64, 100, 150),
        ),
    ],
)
def test_a_table_on_another_networks_maps_covers_the_image(backbone, preset, map_sides, steps):
    config = make_config(model={"backbone": backbone}, boxes={"preset": preset})
    network = ssd.build_model(config, 2)
    assert network.map_shapes == squares(*map_sides)
    order = check_order(config, network, steps)
    np.testing.assert_allclose(order.found, order.expected, atol=1e-6)


def test_an_explicit_step_is_kept():
    boxes = {"levels": [{"size": 20, "step": 12}, {"size": 30}]}
    model = {"input_hw": [64, 96], "num_levels": 2, "backbone": {"name": "plain"}}
    found = ssd.build_model(make_config(model=model, boxes=boxes), 2).default_boxes
    assert len(found) == 4 * 6 + 2 * 3
    # Cell (1, 1): centre (18, 18).
    expected = [(18 - 10) / 64, (18 - 10) / 96, (18 + 10) / 64, (18 + 10) / 96]
    np.testing.assert_allclose(found[7], expected, atol=1e-6)


def test_a_wrong_number_of_levels_is_rejected_in_one_line():
    message = r"boxes gives 3 levels, model.num_levels is 4: make them equal"
    config = make_config(**{**SMALL, "model": {**SMALL["model"], "num_levels": 4}})
    with pytest.raises(ConfigError, match=message):
        ssd.build_model(config, 2)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ("sigmoid", [0.0, -4.59512, -4.59512]),  # 1 / (1 + e^4.595) = .01
        ("softmax", [5.28827, 0.0, 0.0]),  # 1 / (e^5.288 + 2) = .005, and two classes
    ],
)
def test_with_the_focal_loss_objects_start_rare(scores, expected):
    values = {
        "model": {
            "input_hw": [32, 48],
            "backbone": {"name": "plain"},
            "num_levels": 2,
            "score_activation": scores,
        },
        "boxes": {"preset": "paper"},
        "loss": {"focal_gamma": 2},
    }
    model = ssd.build_model(make_config(**values), 2).model
    biases = [
        weight.numpy()
        for weight in model.weights
        if weight.path.startswith(heads.CLASS_HEAD_PREFIX) and weight.path.endswith("bias")
    ]
    assert len(biases) == 2
    for bias in biases:
        np.testing.assert_allclose(bias.reshape(-1, 3), [expected] * (len(bias) // 3), atol=1e-5)


def test_the_level_of_each_default_box():
    # Two boxes in each of 1 x 2 cells, then one box in one cell.
    levels = (BoxLevel(((8.0, 8.0), (9.0, 4.0))), BoxLevel(((20.0, 20.0),)))
    network = ssd.SSD(None, None, levels, map_shapes=((1, 2), (1, 1)))
    assert network.level_of_box.tolist() == [0, 0, 0, 0, 1]
