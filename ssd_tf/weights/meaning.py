"""The settings that change what weights mean without changing their shapes or names.

A network takes any weights that fit, and computes something else if one of these settings is not
that of the network that they were trained in. They are compared wherever weights enter: init_from,
and `--set` of `ssd import`. A difference in what the whole network depends on is an error. What
only a part depends on makes this part start from scratch.

tests/weights/test_meaning.py lists the other keys of the config, and checks both lists by building
networks.
"""

import json
import typing

import numpy as np

from ssd_tf.boxes.default_boxes import CLIP, fit_steps, make_default_boxes
from ssd_tf.config import Config
from ssd_tf.config.keys import Section
from ssd_tf.models import ssd

# Parts of a network that depend on a setting. The heads are the class heads and the box heads.
NETWORK = "network"
EXTRA_LAYERS_AND_HEADS = "extra layers and heads"
HEADS = "heads"
BOX_HEADS = "box heads"
DEFAULT_BOXES = "default boxes"
CLASS_HEADS = "class heads"


class Setting(typing.NamedTuple):
    """A key of the config; `resolve` gives its effective value, which is compared."""

    key: str
    affects: str
    resolve: typing.Callable[[Config], object]


class Difference(typing.NamedTuple):
    """A Setting of two configs with different values, as in YAML."""

    key: str
    affects: str
    old: str
    new: str


def _backbone(config):
    return config.model.backbone


def _padding(config):
    """Keras' v2 pads as SAME does, and its v1 is not `same` on maps of odd sizes only."""
    backbone = _backbone(config)
    is_same = (backbone.name, backbone.padding) == ("mobilenet_v2", "keras")
    return "same" if is_same else backbone.padding


def _mean(config):
    return _plain(ssd.normalization(_backbone(config))[0])


def _std(config):
    return _plain(ssd.normalization(_backbone(config))[1])


def _plain(numbers):
    return [round(float(number), 4) for number in numbers]


def _has_extra_strides(config):
    """SSD512 on VGG16 has seven maps, and strides where SSD300 has none."""
    return _backbone(config).name == "vgg16" and config.model.num_levels == 7


# The shapes, centres and clipping of default boxes are compared level by level: `has_same_boxes`.
SETTINGS = (
    Setting("model.backbone.name", NETWORK, lambda config: _backbone(config).name),
    Setting("model.backbone.padding", NETWORK, _padding),
    Setting("model.backbone.variant", NETWORK, lambda config: _backbone(config).variant),
    Setting("model.backbone.mean_rgb", NETWORK, _mean),
    Setting("model.backbone.std_rgb", NETWORK, _std),
    Setting("model.num_levels", EXTRA_LAYERS_AND_HEADS, _has_extra_strides),
    Setting("model.backbone.first_stride", HEADS, lambda config: _backbone(config).first_stride),
    Setting("model.neck", HEADS, lambda config: config.model.neck),
    Setting(
        "model.neck_upsampling",
        EXTRA_LAYERS_AND_HEADS,
        lambda config: config.model.neck_upsampling,
    ),
    Setting("model.tower", HEADS, lambda config: config.model.tower),
    Setting("model.head", HEADS, lambda config: config.model.head),
    Setting("boxes.variances", BOX_HEADS, lambda config: config.boxes.variances),
    Setting("boxes.coding", BOX_HEADS, lambda config: config.boxes.coding),
    # An error, not new box heads: those of boxes that are off by half a rounding step still help.
    Setting("boxes.rounding", DEFAULT_BOXES, lambda config: config.boxes.rounding),
    Setting("model.score_activation", CLASS_HEADS, lambda config: config.model.score_activation),
)
NORMALIZATION = ("model.backbone.mean_rgb", "model.backbone.std_rgb")


def differences(old: Config, new: Config) -> list[Difference]:
    """The SETTINGS in which two configs differ."""
    is_same_input = _is_same_normalization(old, new)
    return [
        Difference(setting.key, setting.affects, _show(old, setting), _show(new, setting))
        for setting in SETTINGS
        if setting.resolve(old) != setting.resolve(new)
        and not (is_same_input and setting.key in NORMALIZATION)
    ]


def explain(found, origin) -> str:
    """Differences in one line, with what to set; origin: what the old values belong to."""
    pairs = "; ".join(f"{each.key} is {each.old} in {origin}, here {each.new}" for each in found)
    return f"{pairs}: set {' '.join(f'{each.key}={each.old}' for each in found)}"


def has_same_boxes(old: Config, new: Config, level, map_hw) -> bool:
    """Whether the default boxes of a level are the same, apart from rounding.

    map_hw: (height, width) of the level's map in the new network. At another input size, boxes of
    the same size in pixels are the same, and so are boxes of the same fraction of the input.
    """
    boxes = [_level_boxes(config, level, map_hw) for config in (old, new)]
    if boxes[0] is None or boxes[1] is None or boxes[0].shape != boxes[1].shape:
        return False
    sides = [each[:, 2:] - each[:, :2] for each in boxes]
    if old.model.input_hw == new.model.input_hw:
        return bool((np.abs(boxes[0] - boxes[1]) <= 1e-3 * np.tile(sides[0], 2)).all())
    pixels = [each * config.model.input_hw for each, config in zip(sides, (old, new), strict=True)]
    return any(np.allclose(ours, theirs, rtol=1e-3) for ours, theirs in (sides, pixels))


def _level_boxes(config, level, map_hw):
    """The default boxes of a level [n, 4] without rounding; None if there is no such level."""
    levels = ssd.box_levels(config)[level : level + 1]
    if not levels:
        return None
    input_hw = config.model.input_hw
    if config.boxes.preset is not None:
        levels = fit_steps(levels, [map_hw], input_hw)
    return make_default_boxes(levels, [map_hw], input_hw, CLIP.get(config.boxes.preset))


def _is_same_normalization(old, new):
    """Whether black and white become the same, within a gray level."""
    limits = []
    for config in (old, new):
        mean, std = (np.array(part) for part in ssd.normalization(_backbone(config)))
        limits.append(np.stack([-mean, 255 - mean]) / std)
    gray_level = (limits[0][1] - limits[0][0]) / 255
    return bool((np.abs(limits[0] - limits[1]) <= gray_level).all())


def _show(config, setting):
    """The value of the key as one would write it; a default that is resolved, as its value."""
    value = config
    for name in setting.key.split("."):
        value = getattr(value, name)
    if value is None:
        value = setting.resolve(config)
    if isinstance(value, Section):
        value = value.model_dump()
    return value if isinstance(value, str) else json.dumps(value).replace(" ", "")
