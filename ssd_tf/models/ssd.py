"""The network: a backbone's feature maps, two heads on each, and their default boxes.

Shapes: `B` batch, `A` default boxes, `C` foreground classes, `k` default boxes per cell.
"""

import dataclasses
import itertools
import random

import keras
import numpy as np
from keras import layers

from ssd_tf.boxes.default_boxes import (
    CLIP,
    TABLED_PRESETS,
    BoxLevel,
    fit_steps,
    make_default_boxes,
    paper_levels,
    preset_levels,
)
from ssd_tf.config import Backbone, Config
from ssd_tf.errors import ConfigError, InputTooSmallError
from ssd_tf.models import fpn, heads, mobilenet, mobilenet_v3, plain, resnet, vgg
from ssd_tf.models.batch_norm import BatchNormalization

# Every backbone module offers the same names:
#   MEAN_RGB, STD_RGB           normalisation of the input, in 0..255
#   INITIALIZER                 of the kernels in the extra layers and the heads
#   features(image, backbone, num_levels)
#                               normalised image [B, H, W, 3] -> feature maps, finest first
#   pyramid(image, backbone)    normalised image -> the maps of strides 8, 16 and 32 for the FPN
#   stage_ends(backbone)        names of the layers that end the stages, for frozen_stages
# `backbone` is the section of the config. features and pyramid raise ValueError for what the
# network cannot give.
_BACKBONES = {
    "vgg16": vgg,
    "resnet18": resnet,
    "resnet34": resnet,
    "resnet50": resnet,
    "resnet101": resnet,
    "mobilenet": mobilenet,
    "mobilenet_v2": mobilenet,
    "mobilenet_v3_large": mobilenet_v3,
    "plain": plain,
}


@dataclasses.dataclass(frozen=True, eq=False)
class SSD:
    """A Keras model and the default boxes of exactly the feature maps that it predicts from.

    model: image [B, H, W, 3] float32 RGB in 0..255 -> Predictions, a dict of
        "offsets" [B, A, 4] and "logits" [B, A, C + 1].
    default_boxes: [A, 4] float32, in the order of the outputs.
    levels: a BoxLevel for each feature map, finest first.
    map_shapes: (height, width) of each feature map.
    """

    model: keras.Model
    default_boxes: np.ndarray
    levels: tuple[BoxLevel, ...]
    map_shapes: tuple[tuple[int, int], ...]

    @property
    def level_of_box(self) -> np.ndarray:
        """The index of the feature map of each default box [A]."""
        sizes = [
            height * width * len(level.shapes_hw)
            for level, (height, width) in zip(self.levels, self.map_shapes, strict=True)
        ]
        return np.repeat(np.arange(len(sizes)), sizes)


def build_model(config: Config, num_classes: int) -> SSD:
    """Build the configured network for `num_classes` classes, without counting the background.

    Initial weights are seeded by config.train.seed. Raises ConfigError if the network, the input
    size and the default boxes do not fit together.
    """
    # Initializers take their seeds from here. Keras' set_random_seed also makes TensorFlow forget
    # the kernels of all operations, which takes it half a millisecond each to make again.
    random.seed(config.train.seed)
    input_hw = config.model.input_hw
    image = keras.Input((*input_hw, 3), name="image")
    levels = box_levels(config)
    maps = _feature_maps(config, image)
    map_shapes = tuple(tuple(feature.shape[1:3]) for feature in maps)
    if config.boxes.preset is not None:  # explicit steps stay
        levels = fit_steps(levels, map_shapes, input_hw)
    clip = CLIP.get(config.boxes.preset)
    default_boxes = make_default_boxes(levels, map_shapes, input_hw, clip, config.boxes.rounding)
    initializer = _BACKBONES[config.model.backbone.name].INITIALIZER
    predictions = heads.predict(config, maps, levels, num_classes, initializer)
    model = keras.Model(image, predictions, name="ssd")
    _set_up_batch_norm(model, config)
    freeze_stages(model, config.model.backbone)
    return SSD(model, default_boxes, tuple(levels), map_shapes)


def freeze_stages(model: keras.Model, backbone: Backbone):
    """Freeze the first backbone.frozen_stages stages, including the statistics of batch norm.

    Raises ConfigError if the model has fewer.
    """
    if backbone.frozen_stages == 0:
        return
    ends = _stage_ends(model, backbone)
    if backbone.frozen_stages > len(ends):
        raise ConfigError(
            f"model.backbone.frozen_stages: {backbone.name} has {len(ends)} stages in this model, "
            f"got {backbone.frozen_stages}"
        )
    for layer in _layers_up_to(model, ends[backbone.frozen_stages - 1]):
        layer.trainable = False


def backbone_layers(model: keras.Model, config: Config) -> list:
    """The layers up to the end of the backbone: no extra layers, neck or heads."""
    return _layers_up_to(model, _stage_ends(model, config.model.backbone)[-1])


def pretrained_layers(model: keras.Model, config: Config) -> list:
    """The layers that config.init_from may fill: the backbone, or, of a run, all before the heads.

    A run leaves those from scratch that differ from its own.
    """
    if config.init_from is None:
        return []
    if not config.starts_from_run:
        return backbone_layers(model, config)
    prefixes = (heads.CLASS_HEAD_PREFIX, heads.BOX_HEAD_PREFIX)
    return [layer for layer in model.layers if not layer.name.startswith(prefixes)]


def _set_up_batch_norm(model, config):
    for layer in model.layers:
        if isinstance(layer, BatchNormalization):
            layer.momentum = config.train.bn_momentum
            layer.synchronized = config.train.bn == "synchronized"


def box_levels(config):
    """The BoxLevels that config.boxes describes; presets keep the steps of their tables.

    Raises ConfigError if there are not as many as model.num_levels.
    """
    boxes = config.boxes
    input_hw = config.model.input_hw
    num_levels = config.model.num_levels
    if boxes.levels is not None:
        levels = [_box_level(level) for level in boxes.levels]
    elif boxes.preset == "paper":
        levels = paper_levels(num_levels, input_hw, boxes.s_min, boxes.s_max, boxes.aspect_ratios)
    else:
        try:
            levels = preset_levels(boxes.preset, num_levels, input_hw, boxes.integer_sizes)
        except ValueError as error:
            raise ConfigError(f"boxes.preset: {error}") from None
    if len(levels) != num_levels:
        raise ConfigError(
            f"boxes gives {len(levels)} levels, model.num_levels is {num_levels}: make them equal"
        )
    return levels


def _box_level(level):
    """The BoxLevel of an entry of boxes.levels."""
    if level.shapes is None:
        return BoxLevel.from_sizes(level.size, level.next_size, level.aspect_ratios, level.step)
    return BoxLevel(level.shapes, None if level.step is None else (level.step, level.step))


def _feature_maps(config, image):
    """The feature maps that the heads predict from. Raises ConfigError if the network has none."""
    backbone = config.model.backbone
    num_levels = config.model.num_levels
    module = _BACKBONES[backbone.name]
    x = _normalize(image, *normalization(backbone))
    try:
        if config.model.neck == "none":
            maps = module.features(x, backbone, num_levels)
        else:
            maps = fpn.neck(
                module.pyramid(x, backbone),
                num_levels,
                config.model.neck_channels,
                separable=config.model.neck == "fpn_lite",
                interpolation=config.model.neck_upsampling,
            )
        _check_sizes(maps)
    except ValueError as error:
        height, width = config.model.input_hw
        advice = _advice(config) if isinstance(error, InputTooSmallError) else ""
        raise ConfigError(f"model: {error}{advice} (input {height} x {width})") from None
    return maps


def _advice(config):
    """What to do about an input that is too small, and what has to change with it."""
    boxes = config.boxes
    fewest_levels = 2 if config.model.neck == "none" else 3
    if config.model.num_levels == fewest_levels:
        return ": take a larger input"
    if boxes.levels is not None:
        return ": take a larger input, or fewer model.num_levels with as many rows of boxes.levels"
    if boxes.preset in TABLED_PRESETS:
        return (
            ": take a larger input, or fewer model.num_levels with a boxes.preset for them "
            f"({boxes.preset} is a table)"
        )
    return ": take a larger input or fewer model.num_levels"


def _check_sizes(maps):
    """Raise InputTooSmallError if a map of one pixel follows another."""
    sizes = [tuple(feature.shape[1:3]) for feature in maps]
    for index, pair in enumerate(itertools.pairwise(sizes), start=2):
        if pair == ((1, 1), (1, 1)):
            raise InputTooSmallError(
                f"the input is too small for map {index}, as map {index - 1} is 1 x 1 already"
            )


def normalization(backbone: Backbone) -> tuple:
    """Mean and standard deviation of the input's channels RGB, in 0..255."""
    # The classifiers of torchvision were all trained on the same images.
    is_classifier = backbone.is_torchvision_classifier
    source = resnet if is_classifier else _BACKBONES[backbone.name]
    return backbone.mean_rgb or source.MEAN_RGB, backbone.std_rgb or source.STD_RGB


def _normalize(image, mean, std):
    """(image - mean) / std, with one number for all channels if they are equal."""
    scale = [1 / s for s in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    if len(set(zip(scale, offset, strict=True))) == 1:
        scale = scale[0]
        offset = offset[0]
    return layers.Rescaling(scale, offset, name="normalize")(image)


def _stage_ends(model, backbone):
    """The last layer of each stage that the model has; without an FPN, ResNets have no conv5."""
    names = {layer.name for layer in model.layers}
    return [end for end in _BACKBONES[backbone.name].stage_ends(backbone) if end in names]


def _layers_up_to(model, end):
    return keras.Model(model.input, model.get_layer(end).output).layers
