"""The detector against the paper's numbers, and the one order that its heads and its default boxes share."""

import pathlib
import re

import keras
import numpy as np
import pytest

from ssd_tf.config import ConfigError, check_config, load_config
from ssd_tf.models import ssd
from ssd_tf.models.vgg import L2Normalization


def make_config(**values):
    return check_config({"boxes": {"preset": "caffe_voc"}, **values}, "test")


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
    return ssd.build_model(make_config(), 20).model


def test_ssd300_has_the_papers_maps_boxes_and_parameters(ssd300):
    assert list(ssd.build_model(make_config(), 2).map_shapes) == [
        (38, 38),
        (19, 19),
        (10, 10),
        (5, 5),
        (3, 3),
        (1, 1),
    ]
    assert ssd.build_model(make_config(), 2).default_boxes.shape == (
        8732,
        4,
    )  # 38*38*4 + (19*19 + 10*10 + 5*5) * 6 + (3*3 + 1) * 4
    assert {name: output.shape for name, output in ssd300.output.items()} == {
        "offsets": (None, 8732, 4),
        "logits": (None, 8732, 21),
    }
    assert ssd300.count_params() == 26_285_486


def test_pool3_keeps_the_last_row_and_column_of_an_odd_map(ssd300):
    image = np.zeros((1, 75, 75, 1), "float32")
    image[0, 74, 3] = 7.0  # last row; column 3 lies in window 1
    image[0, 2, 74] = 5.0  # row 2 lies in window 1
    pooled = np.array(ssd300.get_layer("pool3")(image))
    assert pooled.shape == (1, 38, 38, 1)
    assert pooled[0, 37, 1] == 7.0
    assert pooled[0, 1, 37] == 5.0
    assert pooled.sum() == 12.0


def test_pool5_keeps_the_size_of_the_map(ssd300):
    image = np.zeros((1, 4, 5, 1), "float32")
    image[0, 0, 0] = 1.0
    pooled = np.array(ssd300.get_layer("pool5")(image))[0, :, :, 0]
    assert pooled.tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_conv6_2_pads_one_pixel_on_every_side_before_its_stride(ssd300):
    convolution, pad = ssd300.get_layer("conv6_2"), ssd300.get_layer("conv6_2_pad")
    kernel = np.zeros((3, 3, 256, 512), "float32")
    kernel[0, 0, 0, 0] = (
        1.0  # the upper left tap alone: output (y, x) shows input (2 y - 1, 2 x - 1)
    )
    convolution.set_weights([kernel, np.zeros(512)])
    image = np.zeros((1, 19, 19, 256), "float32")
    image[0, :, :, 0] = np.arange(361).reshape(19, 19)
    shown = np.array(convolution(pad(image)))[0, :, :, 0]
    assert shown.shape == (10, 10)
    assert shown[0].tolist() == [0.0] * 10
    assert shown[1, :3].tolist() == [0.0, 1 * 19 + 1, 1 * 19 + 3]


def test_fc6_looks_six_pixels_around(ssd300):
    assert ssd300.get_layer("fc6").dilation_rate == (6, 6)
    assert ssd300.get_layer("fc6").output.shape == (None, 19, 19, 1024)


def test_l2_normalization_divides_by_the_norm_over_channels():
    layer = L2Normalization(initial_scale=20.0)
    x = np.array([[[[3.0, 4.0], [0.0, 0.0]]]], "float32")  # norms 5 and 0
    np.testing.assert_allclose(np.array(layer(x)), [[[[12.0, 16.0], [0.0, 0.0]]]], rtol=1e-6)
    layer.scale.assign([1.0, 10.0])
    np.testing.assert_allclose(np.array(layer(x))[0, 0, 0], [0.6, 8.0], rtol=1e-6)


def run_heads(model, maps):
    """The heads alone, on one array for each map, finest first."""
    features = [_first_layer(model, f"offsets{index}").input for index in range(len(maps))]
    outputs = keras.Model(features, model.output)(maps)
    return np.array(outputs["offsets"]), np.array(outputs["logits"])


def _first_layer(model, name):
    names = {layer.name for layer in model.layers}
    return model.get_layer(f"{name}_depthwise" if f"{name}_depthwise" in names else f"{name}_conv")


def check_order(config, steps=None):
    """steps: of the reference, in pixels; without them, neighbouring centres are input / map apart.

    A model whose bias is the running index of level and shape, and whose kernels show a map of coordinates.

    Offsets then come out as (y, x) of the cell's centre and, by way of the index, the height and width of the default box.
    """
    model, shapes = ssd.build_model(config, 2).model, list(ssd.build_model(config, 2).map_shapes)
    hw, levels = config.model.input_hw, ssd.build_model(config, 2).levels
    maps, index, sizes = [], 0, []
    for number, (map_hw, level) in enumerate(zip(shapes, levels, strict=True)):
        channels = _first_layer(model, f"offsets{number}").input.shape[-1]
        coordinates = np.zeros((1, *map_hw, channels), "float32")
        step = [steps[number]] * 2 if steps else (hw[0] / map_hw[0], hw[1] / map_hw[1])
        coordinates[0, ..., 0] = ((np.arange(map_hw[0]) + 0.5) * step[0] / hw[0])[:, None]
        coordinates[0, ..., 1] = (np.arange(map_hw[1]) + 0.5) * step[1] / hw[1]
        maps.append(coordinates)
        for kind in ("offsets", "logits"):
            convolution = model.get_layer(f"{kind}{number}_conv")
            if _first_layer(model, f"{kind}{number}") is not convolution:
                _show_through(_first_layer(model, f"{kind}{number}"))
            kernel, bias = (np.zeros(weight.shape, "float32") for weight in convolution.weights)
            middle = kernel.shape[0] // 2
            per_box = len(bias) // len(level.shapes_hw)
            for k in range(len(level.shapes_hw)):
                if kind == "offsets":
                    kernel[middle, middle, 0, k * per_box] = kernel[
                        middle, middle, 1, k * per_box + 1
                    ] = 1.0
                bias[k * per_box + 2] = index + k
            convolution.set_weights([kernel, bias])
        index += len(level.shapes_hw)
        sizes += level.shapes_hw
    offsets, logits = run_heads(model, maps)
    running = offsets[0, :, 2].astype(int)
    boxes = ssd.build_model(config, 2).default_boxes
    assert sorted(set(running)) == list(range(index))
    np.testing.assert_array_equal(running, logits[0, :, 2])
    # Batch norm's epsilon of 1e-3 in the separable heads takes half of that from every number.
    centres = np.minimum(offsets[0, :, :2], 1.0 if config.boxes.preset == "nvidia" else np.inf)
    np.testing.assert_allclose(centres, (boxes[:, :2] + boxes[:, 2:]) / 2, rtol=1e-3, atol=1e-5)
    # Presets with a clip rule shorten what is larger than the picture.
    expected = np.array(sizes)[running] / hw
    found = boxes[:, 2:] - boxes[:, :2]
    inside = (expected < 1).all(1) & (found > 0).all(1)
    assert inside.any()
    return expected[inside], found[inside]


def _show_through(depthwise):
    kernel = np.zeros(depthwise.weights[0].shape, "float32")
    kernel[1, 1] = 1.0
    depthwise.set_weights([kernel])


@pytest.mark.parametrize("head", ["conv", "separable"])
def test_outputs_and_default_boxes_share_one_order(head):
    config = make_config(**{**SMALL, "model": {**SMALL["model"], "head": head}})
    np.testing.assert_allclose(*check_order(config), atol=1e-6)


def test_order_of_a_small_model_in_literals():
    config = make_config(**SMALL)
    boxes = ssd.build_model(config, 2).default_boxes
    assert list(ssd.build_model(config, 2).map_shapes) == [(8, 12), (4, 6), (2, 3)]
    assert len(boxes) == 8 * 12 * 3 + 4 * 6 * 6 + 2 * 3 * 2
    # Cell (0, 1) of the first map: its centre at (4, 12) px, its first shape 12 x 12.
    np.testing.assert_allclose(boxes[3], [-2 / 64, 6 / 96, 10 / 64, 18 / 96], atol=1e-6)
    # The last cell of the last map: its centre at (48, 80) px, the square of side sqrt(40 * 60) = 48.99.
    np.testing.assert_allclose(
        boxes[-1], [23.505 / 64, 55.505 / 96, 72.495 / 64, 104.495 / 96], atol=1e-5
    )


def test_the_same_seed_gives_the_same_weights():
    config = make_config(**SMALL)
    one, two = (ssd.build_model(config, 2).model.get_weights() for _ in range(2))
    other = ssd.build_model(make_config(**SMALL, train={"seed": 1}), 2).model.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# The maps, and the default boxes of all their cells, of every config of this repository.
EXPECTED = {
    "bccd_mobilenet": ([(30, 40), (15, 20), (7, 10)], 30 * 40 * 4 + 15 * 20 * 6 + 7 * 10 * 6),
    "shapes_plain": (
        [(24, 24), (12, 12), (6, 6), (3, 3)],
        24 * 24 * 4 + 12 * 12 * 6 + 6 * 6 * 4 + 3 * 3 * 4,
    ),
    **{
        f"ssd300_{name}": ([(n, n) for n in (38, 19, 10, 5, 3, 1)], 8732)
        for name in ("vgg16_voc", "vgg16_coco")
    },
    **{
        f"ssd300_resnet{depth}_coco": ([(n, n) for n in (38, 19, 10, 5, 3, 1)], 8732)
        for depth in (18, 34, 50)
    },
    **{
        f"ssd512_{name}": ([(n, n) for n in (64, 32, 16, 8, 4, 2, 1)], 24564)
        for name in ("vgg16_voc", "vgg16_coco")
    },
    # 20, 10, 5, 3, 2, 1: 400 + 100 + 25 + 9 + 4 + 1 = 539 cells of six.
    "ssdlite320_mobilenet_v2_coco": ([(n, n) for n in (20, 10, 5, 3, 2, 1)], 3234),
    "ssdlite320_mobilenet_v3_coco": ([(n, n) for n in (20, 10, 5, 3, 2, 1)], 3234),
    "ssdlite192_mobilenet_v2_035_coco": (
        [(n, n) for n in (12, 6, 3, 2, 1)],
        (144 + 36 + 9 + 4 + 1) * 6,
    ),
    "ssd640_resnet50_fpn_coco": (
        [(n, n) for n in (80, 40, 20, 10, 5)],
        (6400 + 1600 + 400 + 100 + 25) * 6,
    ),
}


# The references' own distances of centres, on VGG16 and on ResNets that have its maps.
STEPS = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}


def row(
    preset, first, normalizer="global", min_negatives=3, evaluation=(0.01, 0.45, 400, 200), **other
):
    return {
        "preset": preset,
        "first": first,
        "normalizer": normalizer,
        "min_negatives": min_negatives,
    } | {
        **{
            "eval": evaluation,
            "clip_first": False,
            "size_limit": None,
            "train_difficult": False,
            "focal": (None, None),
        },
        **{"bn_momentum": 0.9, "score_activation": "softmax", "learning_rate": None, **other},
    }


# What makes each config that of its source: preset, side of the first default box in pixels, normaliser, least negatives; score
# floor, IoU of the NMS, top-k before and detections after it; what else differs from the defaults.
VALUES = {
    "bccd_mobilenet": row(None, 17),
    "shapes_plain": row("paper", 0.07 * 192),
    "ssd300_vgg16_voc": row("caffe_voc", 30, min_negatives=0, train_difficult=True),
    "ssd300_vgg16_coco": row("caffe_coco", 21, min_negatives=0),
    "ssd512_vgg16_voc": row(
        "caffe_voc", 35, min_negatives=0, train_difficult=True
    ),  # cut to whole pixels: 35.84 in the text
    "ssd512_vgg16_coco": row("caffe_coco", 20, min_negatives=0),  # 20.48
    **{
        f"ssd300_resnet{depth}_coco": row(
            "nvidia", 21, "nvidia", 0, (0.05, 0.5, 200, 200), learning_rate=rate
        )
        for depth, rate in ((18, 0.0026), (34, 0.0025), (50, 0.0026))
    },
    "ssd640_resnet50_fpn_coco": row(
        "od_api_fpn",
        32,
        evaluation=(0.01, 0.6, 400, 100),
        focal=(2.0, 0.25),
        scores="sigmoid",
        learning_rate=0.04,
    ),
    "ssdlite320_mobilenet_v3_coco": row(
        *("torchvision_ssdlite", 64, "torchvision", 0, (0.001, 0.55, 300, 300)),
        **{"clip_first": True, "size_limit": 62.5, "bn_momentum": 0.97, "learning_rate": 0.15},
    ),
    "ssdlite320_mobilenet_v2_coco": row(
        None,
        48,
        "global",
        0,
        (0.02, 0.45, 1000, 200),
        size_limit=62.5,
        bn_momentum=0.97,
        learning_rate=0.015,
    ),
    "ssdlite192_mobilenet_v2_035_coco": row(
        *("torchvision_ssdlite", 0.2 * 192, "global", 0, (0.02, 0.45, 1000, 200)),
        **{"size_limit": 62.5, "bn_momentum": 0.97, "learning_rate": 0.02},
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_config_has_the_values_of_its_source(name):
    config, expected = load_config(CONFIGS / f"{name}.yaml"), VALUES[name]
    found = config.eval
    assert {
        "preset": config.boxes.preset,
        "first": pytest.approx(ssd.build_model(config, 2).levels[0].shapes_hw[0][0]),
        "normalizer": config.loss.normalizer,
        "min_negatives": config.loss.min_negatives,
        "eval": (found.score_floor, found.nms_iou, found.pre_nms_top_k, found.max_detections),
        **{"clip_first": found.clip_first, "size_limit": found.size_limit},
        "train_difficult": config.data.train_difficult,
        "focal": (config.loss.focal_gamma, config.loss.focal_alpha),
        **{"bn_momentum": config.train.bn_momentum, "scores": config.loss.score_activation},
        "learning_rate": expected["learning_rate"] and config.train.learning_rate,
    } == expected


def test_the_implausible_figures_are_called_so():
    for depth in (18, 50):
        header = (CONFIGS / f"ssd300_resnet{depth}_coco.yaml").read_text().replace("\n# ", " ")
        assert ".325 / .442 / .343" in header and ".182 / .271 / .204" in header
        assert re.search(r"is implausible\b", header)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnets_are_fed_as_nvidias(depth):
    augment = load_config(CONFIGS / f"ssd300_resnet{depth}_coco.yaml").data.augment
    assert (augment.color_probability, augment.hue_degrees) == (1, 0)
    assert (
        augment.zoom_out_probability,
        augment.channel_shuffle_probability,
        augment.crop_tries,
    ) == (0, 0, 1)
    assert (augment.brightness_factor, augment.contrast, augment.saturation) == (
        (0.875, 1.125),
        (0.5, 1.5),
        (0.5, 1.5),
    )
    assert (augment.crop_rule, augment.flip_probability) == ("torchvision", 0.5)


def test_every_config_says_what_it_is_what_to_expect_and_how_to_run_it():
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == sorted(EXPECTED)
    for path in CONFIGS.glob("*.yaml"):
        header = "".join(
            line for line in path.read_text().splitlines(keepends=True) if line.startswith("#")
        )
        assert f"--config configs/{path.name} --data" in header, path.name
        assert "# Expected" in header, path.name
        assert re.search(r"# Hardware: .*(GPU|A100|CPU)", header), path.name


@pytest.mark.parametrize("name", EXPECTED)
def test_every_config_gives_its_maps_and_boxes_in_the_order_of_its_heads(name):
    config = load_config(CONFIGS / f"{name}.yaml", ["model.backbone.weights=none"])
    maps, boxes = EXPECTED[name]
    assert list(ssd.build_model(config, 2).map_shapes) == maps
    assert ssd.build_model(config, 2).default_boxes.shape == (boxes, 4)
    tabled = config.model.backbone.name == "vgg16" or config.boxes.preset == "nvidia"
    np.testing.assert_allclose(
        *check_order(config, STEPS[config.model.input_hw[0]] if tabled else None), atol=1e-6
    )


@pytest.mark.parametrize(
    ("backbone", "preset", "maps"),
    [
        ({"name": "mobilenet_v2", "alpha": 0.35}, "caffe_voc", (19, 10, 5, 3, 2, 1)),
        ({"name": "mobilenet_v3_large"}, "torchvision", (19, 10, 5, 3, 2, 1)),
        # The first five maps are VGG16's, and so are their steps.
        ({"name": "plain", "first_stride": 8}, "caffe_coco", (38, 19, 10, 5, 3, 2)),
    ],
)
def test_a_table_on_another_networks_maps_covers_the_picture(backbone, preset, maps):
    config = make_config(model={"backbone": backbone}, boxes={"preset": preset})
    assert list(ssd.build_model(config, 2).map_shapes) == [(n, n) for n in maps]
    steps = (8, 16, 32, 64, 100, 150) if backbone["name"] == "plain" else [300 / n for n in maps]
    np.testing.assert_allclose(*check_order(config, steps), atol=1e-6)


def test_a_step_given_by_hand_stays():
    boxes = {"levels": [{"size": 20, "step": 12}, {"size": 30}]}
    model = {"input_hw": [64, 96], "num_levels": 2, "backbone": {"name": "plain"}}
    found = ssd.build_model(make_config(model=model, boxes=boxes), 2).default_boxes
    assert len(found) == 4 * 6 + 2 * 3
    np.testing.assert_allclose(
        found[7], [(18 - 10) / 64, (18 - 10) / 96, (18 + 10) / 64, (18 + 10) / 96], atol=1e-6
    )


def test_levels_that_do_not_fit_give_one_line():
    with pytest.raises(
        ConfigError, match=r"boxes give 3 levels, model.num_levels is 4: make them equal"
    ):
        ssd.build_model(make_config(**{**SMALL, "model": {**SMALL["model"], "num_levels": 4}}), 2)
