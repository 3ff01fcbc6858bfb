"""Every key of the network and the default boxes: what a change of it does to weights."""

import copy

import numpy as np
import pytest

from ssd_tf.config import Backbone, Boxes, Level, Model, check_config
from ssd_tf.models import ssd
from ssd_tf.weights import meaning
from ssd_tf.weights.importers import backbones, torchvision

PLAIN = {
    "model": {
        "input_hw": [64, 96],
        "num_levels": 2,
        "backbone": {"name": "plain", "alpha": 0.25},
    },
    "boxes": {"levels": [{"size": 20}, {"size": 40}, {"size": 60}]},
}
V1 = {"name": "mobilenet", "alpha": 0.25}
V2 = {"name": "mobilenet_v2", "alpha": 0.35}
# Keys that change shapes or names of variables: the changes that show it.
SHAPES_OR_NAMES = {
    "model.backbone.alpha": ({}, 0.5),
    "model.backbone.min_channels": ({"model.backbone": V1}, 16),
    "model.backbone.last_channels": ({"model.backbone": V2}, 64),
    "model.backbone.reduced_tail": ({"model.backbone": {"name": "mobilenet_v3_large"}}, False),
    "model.neck_channels": ({"model.neck": "fpn", "model.num_levels": 3}, 64),
    "model.backbone.extra_layers": ({"model.backbone": V1, "model.num_levels": 3}, "conv"),
}
# Keys that change neither shapes nor what weights mean.
NEITHER = {
    "model.input_hw": ({}, [96, 64]),
    "model.backbone.frozen_stages": ({}, 2),
    "boxes.assigner": ({}, "atss"),
}
# Keys of SETTINGS that affect the whole network.
WHOLE = {
    "model.backbone.padding": ({"model.backbone": V1}, "torch"),
    "model.backbone.variant": (
        {
            "model.backbone": {"name": "resnet50", "alpha": 0.25},
            "model.neck": "fpn",
            "model.num_levels": 3,
            "model.neck_channels": 16,
            "boxes": {"preset": "od_api_fpn"},
        },
        "od_api",
    ),
    "model.backbone.mean_rgb": ({}, [100, 127.5, 127.5]),
    "model.backbone.std_rgb": ({}, [1, 1, 1]),
}
# Keys of SETTINGS that affect a part.
PARTS = {
    "model.num_levels": ({"model.backbone": {"name": "vgg16"}}, 7),
    "model.backbone.first_stride": ({}, 8),
    "model.neck": ({"model.num_levels": 3}, "fpn"),
    "model.neck_upsampling": ({"model.neck": "fpn", "model.num_levels": 3}, "bilinear"),
    "model.tower": ({"boxes": {"preset": "od_api_fpn"}}, {"num_layers": 1, "channels": 8}),
    "model.head": ({}, "pointwise"),
    "boxes.variances": ({}, [0.1, 0.1, 0.2, 0.3]),
    "boxes.coding": ({}, "corners"),
    "boxes.rounding": ({}, 0.01),
    "model.score_activation": ({}, "sigmoid"),
}
PAPER = {"boxes": {"preset": "paper"}, "model.num_levels": 6, "model.input_hw": [300, 300]}
CAFFE = {"boxes": {"preset": "caffe_voc"}, "model.num_levels": 7, "model.input_hw": [512, 512]}
TABLE = {"boxes": {"preset": "torchvision"}, "model.num_levels": 6, "model.input_hw": [300, 300]}
# Keys of the default boxes, which are compared level by level.
SHAPES_OF_BOXES = {
    "boxes.preset": (TABLE, "nvidia"),
    "boxes.s_min": (PAPER, 0.3),
    "boxes.s_max": (PAPER, 0.8),
    "boxes.aspect_ratios": (PAPER, [2.5]),
    "boxes.integer_sizes": (CAFFE, True),
    "boxes.levels": ({}, [{"size": 20}, {"size": 41}]),
}
SIZED = {"size": 20, "next_size": 30, "aspect_ratios": [2.0]}
KEYS_OF_A_LEVEL = {
    "size": (SIZED, 21),
    "next_size": (SIZED, 31),
    "aspect_ratios": (SIZED, [3.0]),
    "shapes": ({"shapes": [[8, 9]]}, [[8, 10]]),
    "step": (SIZED, 7),
}


def set_key(values, key, value):
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[name] = value


def configs(changes, key, value):
    """The config with the changes, and the same with one key more."""
    values = copy.deepcopy(PLAIN)
    for path, change in changes.items():
        set_key(values, path, change)
    if "levels" in values["boxes"]:
        del values["boxes"]["levels"][values["model"]["num_levels"] :]
    old = check_config(values, "old")
    values = copy.deepcopy(values)
    set_key(values, key, value)
    if (key, value) == ("model.num_levels", 7):
        values["boxes"] = {"levels": [{"size": 20}] * 7}
    return old, check_config(values, "new")


def variables(config):
    model = ssd.build_model(config, 2).model
    return {variable.path: tuple(variable.shape) for variable in model.variables}


def test_every_key_is_in_one_list():
    keys = [f"model.{key}" for key in Model.model_fields if key != "backbone"]
    keys += [f"model.backbone.{key}" for key in Backbone.model_fields]
    keys += [f"boxes.{key}" for key in Boxes.model_fields]
    listed = [*SHAPES_OR_NAMES, *NEITHER, *SHAPES_OF_BOXES]
    listed += [setting.key for setting in meaning.SETTINGS]
    assert sorted(keys) == sorted(listed)
    assert set(Level.model_fields) == set(KEYS_OF_A_LEVEL)
    parts = {setting.key for setting in meaning.SETTINGS if setting.affects != meaning.NETWORK}
    assert parts == set(PARTS)
    assert {setting.key for setting in meaning.SETTINGS} - parts == {
        *WHOLE,
        "model.backbone.name",
    }


@pytest.mark.parametrize("key", SHAPES_OR_NAMES)
def test_keys_that_change_shapes_or_names(key):
    old, new = configs(*SHAPES_OR_NAMES[key][:1], key, SHAPES_OR_NAMES[key][1])
    assert variables(old) != variables(new)


@pytest.mark.parametrize("key", NEITHER)
def test_keys_that_change_neither(key):
    old, new = configs(NEITHER[key][0], key, NEITHER[key][1])
    assert variables(old) == variables(new)
    assert meaning.differences(old, new) == []


@pytest.mark.parametrize("key", WHOLE)
def test_keys_that_change_the_meaning(key):
    """The same weights in two networks that differ in this key give other numbers."""
    old, new = configs(WHOLE[key][0], key, WHOLE[key][1])
    models = [ssd.build_model(config, 2).model for config in (old, new)]
    models[1].set_weights(models[0].get_weights())
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype("float32")
    logits = [np.array(model(image)["logits"]) for model in models]
    assert np.abs(logits[0] - logits[1]).max() > 0.01 * np.abs(logits[0]).max()
    (found,) = meaning.differences(old, new)
    assert (found.key, found.affects) == (key, meaning.NETWORK)
    assert meaning.differences(old, old) == []


@pytest.mark.parametrize("key", PARTS)
def test_keys_that_change_the_meaning_of_a_part(key):
    old, new = configs(PARTS[key][0], key, PARTS[key][1])
    (found,) = meaning.differences(old, new)
    assert found.key == key
    assert meaning.differences(new, old)[0].old == found.new


@pytest.mark.parametrize("key", SHAPES_OF_BOXES)
def test_keys_that_change_default_boxes(key):
    old, new = configs(SHAPES_OF_BOXES[key][0], key, SHAPES_OF_BOXES[key][1])
    num_levels = old.model.num_levels
    map_shapes = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)][:num_levels]
    same = [meaning.has_same_boxes(old, new, *pair) for pair in enumerate(map_shapes)]
    assert not all(same)
    same = [meaning.has_same_boxes(old, old, *pair) for pair in enumerate(map_shapes)]
    assert all(same)
    assert not meaning.has_same_boxes(old, new, num_levels, (1, 1))


@pytest.mark.parametrize("key", KEYS_OF_A_LEVEL)
def test_keys_of_a_level(key):
    level, value = KEYS_OF_A_LEVEL[key]
    old, new = configs({"boxes.levels": [level] * 2}, "boxes.levels", [{**level, key: value}] * 2)
    assert not meaning.has_same_boxes(old, new, 1, (4, 6))
    assert meaning.has_same_boxes(old, old, 1, (4, 6))


def test_a_network_of_another_name_may_have_the_same_layers():
    old, new = configs({"model.backbone": {"name": "resnet18"}}, "model.backbone.name", "resnet34")
    assert [found.key for found in meaning.differences(old, new)] == ["model.backbone.name"]


@pytest.mark.parametrize(
    ("backbone", "key", "value"),
    [
        # Keras' v2 pads as SAME.
        (V2, "model.backbone.padding", "same"),
        # Default: 127.5 each.
        (V1, "model.backbone.mean_rgb", [127.5, 127.5, 127.5]),
        # Less than one of 255 gray levels.
        (V1, "model.backbone.mean_rgb", [128, 127, 127.5]),
        (V1, "model.backbone.std_rgb", [128, 127.5, 127]),
        ({"name": "vgg16"}, "model.backbone.mean_rgb", [122.99925, 116.9991, 103.9992]),
    ],
)
def test_spellings_of_the_same(backbone, key, value):
    old, new = configs({"model.backbone": backbone}, key, value)
    assert meaning.differences(old, new) == []


def with_backbone(init_from, **backbone):
    values = copy.deepcopy(PLAIN) | {"init_from": init_from}
    values["model"]["backbone"] = backbone
    del values["boxes"]["levels"][2:]
    return check_config(values, "test")


KNOWN = {"padding": "keras", "mean_rgb": (127.5,) * 3, "std_rgb": (127.5,) * 3}


def trained_with(config, caplog):
    """The differences from the network of a file, and whether there was a warning."""
    trained = backbones._config_of_training(config, KNOWN, "f.h5")
    return [each.key for each in meaning.differences(trained, config)], "f.h5" in caplog.text


@pytest.mark.parametrize("init_from", ["imagenet", "my_own.h5"])
def test_padding_of_a_file_is_an_error(init_from, caplog):
    config = with_backbone(init_from, **V1, padding="torch")
    assert trained_with(config, caplog) == (["model.backbone.padding"], False)


@pytest.mark.parametrize("init_from", ["imagenet", "my_own.h5"])
def test_normalization_of_a_published_file_is_an_error_and_else_a_warning(init_from, caplog):
    config = with_backbone(init_from, **V1, mean_rgb=[0, 0, 0])
    keys, has_warned = trained_with(config, caplog)
    assert keys == (["model.backbone.mean_rgb"] if init_from == "imagenet" else [])
    assert has_warned == (init_from != "imagenet")
    assert ("set model.backbone.mean_rgb=[127.5,127.5,127.5]" in caplog.text) == has_warned


@pytest.mark.parametrize(
    ("backbone", "padding", "mean", "std"),
    [
        (V1, "keras", 127.5, 127.5),
        ({**V1, "padding": "same"}, "same", 127.5, 127.5),
        ({**V2, "padding": "torch"}, "keras", 127.5, 127.5),
        ({"name": "vgg16"}, "keras", 123.68, 1.0),
    ],
)
def test_what_keras_trained(backbone, padding, mean, std):
    found = backbones.describe_keras(Backbone(**backbone))
    assert (found["padding"], found["mean_rgb"][0], found["std_rgb"][0]) == (padding, mean, std)


@pytest.mark.parametrize(
    ("backbone", "key", "padding", "mean"),
    [
        ({"name": "resnet50"}, "conv1.weight", None, 123.675),
        (V2, "features.0.0.weight", "torch", 123.675),
        ({"name": "mobilenet_v3_large"}, "backbone.features.0.0.0.weight", None, 127.5),
        ({"name": "mobilenet_v3_large", "reduced_tail": False}, "features.0", None, 123.675),
        ({"name": "vgg16"}, "backbone.scale_weight", None, 123.68),
        ({"name": "vgg16"}, "classifier.0.weight", None, 123.675),
        ({"name": "vgg16"}, "features.0.weight", None, None),
    ],
)
def test_what_torchvision_trained(backbone, key, padding, mean):
    found = torchvision.describe(Backbone(**backbone), {key: 0})
    assert found.get("padding") == padding
    assert found.get("mean_rgb", [None])[0] == mean
