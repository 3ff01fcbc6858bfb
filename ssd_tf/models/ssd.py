"""The detector: a backbone's feature maps, two heads on each, and the default boxes that belong to their outputs.

Shapes: `B` batch, `A` default boxes, `C` foreground classes, `k` default boxes of a cell.
"""

import functools
import itertools
import math

import keras
import numpy as np
from keras import layers

from ssd_tf.boxes import anchors
from ssd_tf.config import Config, ConfigError
from ssd_tf.models import fpn, limits, mobilenet, mobilenet_v3, plain, resnet, vgg

# Each module has MEAN_RGB and STD_RGB, features() -> maps, stage_ends() -> layer names, pyramid() where an FPN can follow, and
# INITIALIZER where the heads too start from another distribution than Xavier's.
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


def build_model(config: Config, num_classes: int) -> keras.Model:
    """The functional model: image [B, H, W, 3] float32 RGB in 0..255 -> {"offsets" [B, A, 4], "logits" [B, A, C + 1]}.

    num_classes: C, without the background. Seeded by config.train.seed. Raises ConfigError for levels that do not fit.
    """
    keras.utils.set_random_seed(config.train.seed)
    image = keras.Input((*config.model.input_hw, 3), name="image")
    levels = _levels(config)
    offsets, logits = [], []
    for index, (feature, level) in enumerate(zip(_features(config, image), levels, strict=True)):
        k = len(level.shapes_hw)
        offsets.append(_head(config, feature, k, 4, f"offsets{index}"))
        logits.append(
            _head(
                config,
                feature,
                k,
                num_classes + 1,
                f"logits{index}",
                _prior(config, num_classes) * k,
            )
        )
    outputs = {
        # float32 whatever the policy: sums over thousands of boxes and exp() of sizes want it.
        "offsets": layers.Concatenate(1, dtype="float32", name="offsets")(offsets),
        "logits": layers.Concatenate(1, dtype="float32", name="logits")(logits),
    }
    model = keras.Model(image, outputs, name="ssd")
    _freeze(model, config.model.backbone)
    return model


def feature_map_shapes(config: Config) -> list[tuple[int, int]]:
    """(height, width) of each feature map that is predicted from, finest first."""
    return list(_map_shapes(config))


@functools.lru_cache(
    maxsize=16
)  # tracing a large backbone takes seconds, and every command asks more than once
def _map_shapes(config):
    image = keras.Input((*config.model.input_hw, 3))
    return tuple(tuple(feature.shape[1:3]) for feature in _features(config, image))


def anchor_levels(config: Config) -> list[anchors.AnchorLevel]:
    """The AnchorLevels that config.boxes describes, one for each map."""
    levels = _levels(config)
    if config.boxes.preset is None:
        return levels  # steps given by hand stay
    return anchors.fit_steps(levels, feature_map_shapes(config), config.model.input_hw)


def _levels(config):
    """`anchor_levels` before anything is known of the maps but their number."""
    boxes, hw, number = config.boxes, config.model.input_hw, config.model.levels
    if boxes.levels is not None:
        levels = [anchors.AnchorLevel.from_sizes(**level.model_dump()) for level in boxes.levels]
    elif boxes.preset == "paper":
        levels = anchors.paper_levels(
            number, hw, boxes.s_min, boxes.s_max, boxes.s_first, boxes.aspect_ratios
        )
    else:
        try:
            levels = anchors.preset_levels(boxes.preset, number, hw, boxes.integer_sizes)
        except ValueError as error:
            raise ConfigError(f"boxes.preset: {error}") from None
    if len(levels) != number:
        raise ConfigError(
            f"boxes give {len(levels)} levels, model.levels is {number}: make them equal"
        )
    return levels


def make_default_boxes(config: Config) -> np.ndarray:
    """The default boxes [A, 4] of the configured model, in the order of its outputs."""
    clip = anchors.CLIP.get(config.boxes.preset)
    return anchors.make_default_boxes(
        anchor_levels(config), feature_map_shapes(config), config.model.input_hw, clip
    )


def _features(config, image):
    """The feature maps that are predicted from. Raises ConfigError, in one line, where the network cannot give them."""
    backbone, levels = config.model.backbone, config.model.levels
    network = _BACKBONES[backbone.name]
    x = _normalized(
        image, backbone.mean_rgb or network.MEAN_RGB, backbone.std_rgb or network.STD_RGB
    )
    try:
        if config.model.neck == "fpn":
            maps = fpn.neck(
                _pyramid(network, backbone)(x, backbone, config.train.bn_momentum), levels
            )
        else:
            maps = network.features(x, backbone, levels, config.train.bn_momentum)
        _check_sizes(maps)
    except ValueError as error:
        hw, advice = (
            config.model.input_hw,
            _advice(config) if isinstance(error, limits.TooSmall) else "",
        )
        raise ConfigError(f"model: {error}{advice} (input {hw[0]} x {hw[1]})") from None
    return maps


def _advice(config):
    """What to do about an input that is too small, with what else would then be refused."""
    boxes = config.boxes
    if config.model.levels == (3 if config.model.neck == "fpn" else 2):
        return ": take a larger input"  # fewer levels there are not
    if boxes.levels is not None:
        return ": take a larger input, or fewer model.levels with as many rows of boxes.levels"
    if boxes.preset in anchors.TABLED:
        return f": take a larger input, or fewer model.levels with a boxes.preset for them ({boxes.preset} is a table)"
    return ": take a larger input or fewer model.levels"


def _pyramid(network, backbone):
    if not hasattr(network, "pyramid"):
        raise ValueError(
            f"{backbone.name} has no map of stride 32 for the fpn neck; take another backbone"
        )
    return network.pyramid


def _check_sizes(maps):
    sizes = [tuple(feature.shape[1:3]) for feature in maps]
    for index, pair in enumerate(itertools.pairwise(sizes), start=2):
        if pair == ((1, 1), (1, 1)):
            raise limits.TooSmall(
                f"the input is too small for map {index}, as map {index - 1} is 1 x 1 already"
            )


def _normalized(image, mean, std):
    """(image - mean) / std, with one number for all channels where they are equal."""
    scale, offset = [1 / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    if len({*zip(scale, offset, strict=True)}) == 1:
        scale, offset = scale[0], offset[0]
    return layers.Rescaling(scale, offset, name="normalize")(image)


def _freeze(model, backbone):
    """Takes the layers up to the end of stage `frozen_stages` out of training, batch norm's statistics included."""
    if backbone.frozen_stages:
        ends = _stage_ends(model, backbone)
        if backbone.frozen_stages > len(ends):
            raise ConfigError(
                f"model.backbone.frozen_stages: {backbone.name} has {len(ends)} stages in this model, "
                f"found {backbone.frozen_stages}"
            )
        for layer in _layers_up_to(model, ends[backbone.frozen_stages - 1]):
            layer.trainable = False


def backbone_layers(model, config: Config) -> list:
    """The layers of the backbone up to the last of its stages that the model has: no extra layers, neck or heads."""
    return _layers_up_to(model, _stage_ends(model, config.model.backbone)[-1])


def _stage_ends(model, backbone):
    """The last layer's name of each stage of the backbone that the model has (an SSD's ResNet has no conv5)."""
    names = {layer.name for layer in model.layers}
    return [end for end in _BACKBONES[backbone.name].stage_ends(backbone) if end in names]


def _layers_up_to(model, end):
    return keras.Model(model.input, model.get_layer(end).output).layers


def _prior(config, num_classes):
    """First biases of a default box's logits: 0; with the focal loss such that objects get .01 (Lin et al. 2017, sec. 3.3)."""
    if config.loss.focal_gamma is None:
        return [0.0] * (num_classes + 1)
    if config.loss.scores == "sigmoid":
        return [0.0] + [-math.log(99.0)] * num_classes
    return [math.log(99.0 * num_classes)] + [0.0] * num_classes


def _head(config, feature, k, size, name, bias=None):
    """feature [B, H, W, channels] -> predictions [B, H * W * k, size]; a cell's default boxes follow each other."""
    kernel, initializer = (
        3,
        getattr(_BACKBONES[config.model.backbone.name], "INITIALIZER", "glorot_uniform"),
    )
    if config.model.head == "separable":
        options = {
            "use_bias": False,
            "depthwise_initializer": initializer,
            "name": f"{name}_depthwise",
        }
        depthwise = layers.DepthwiseConv2D(3, padding="same", **options)
        feature, kernel = mobilenet.conv_bn(depthwise, feature, config.train.bn_momentum), 1
    options = {"kernel_initializer": initializer, "name": f"{name}_conv"}
    if bias is not None and any(bias):
        options["bias_initializer"] = keras.initializers.Constant(np.array(bias))
    x = layers.Conv2D(k * size, kernel, padding="same", **options)(feature)
    return layers.Reshape((-1, size), name=f"{name}_boxes")(x)
