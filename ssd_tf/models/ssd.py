"""The detector: a backbone's feature maps, two heads on each, and the default boxes that belong to their outputs.

Shapes: `B` batch, `A` default boxes, `C` foreground classes, `k` default boxes of a cell.
"""

import keras
import numpy as np
from keras import layers

from ssd_tf.boxes import anchors
from ssd_tf.config import Config, ConfigError
from ssd_tf.models import mobilenet, vgg


def build_model(config: Config, num_classes: int) -> keras.Model:
    """The functional model: image [B, H, W, 3] float32 RGB in 0..255 -> {"offsets" [B, A, 4], "logits" [B, A, C + 1]}.

    num_classes: C, without the background. Seeded by config.train.seed. Raises ConfigError for levels that do not fit.
    """
    keras.utils.set_random_seed(config.train.seed)
    image = keras.Input((*config.model.input_hw, 3), name="image")
    levels = anchor_levels(config)
    offsets, logits = [], []
    for index, (feature, level) in enumerate(zip(_features(config, image), levels, strict=True)):
        k = len(level.shapes_hw)
        offsets.append(_head(config, feature, k, 4, f"offsets{index}"))
        logits.append(_head(config, feature, k, num_classes + 1, f"logits{index}"))
    outputs = {
        # float32 whatever the policy: sums over thousands of boxes and exp() of sizes want it.
        "offsets": layers.Concatenate(1, dtype="float32", name="offsets")(offsets),
        "logits": layers.Concatenate(1, dtype="float32", name="logits")(logits),
    }
    return keras.Model(image, outputs, name="ssd")


def feature_map_shapes(config: Config) -> list[tuple[int, int]]:
    """(height, width) of each feature map that is predicted from, finest first."""
    image = keras.Input((*config.model.input_hw, 3))
    return [tuple(feature.shape[1:3]) for feature in _features(config, image)]


def anchor_levels(config: Config) -> list[anchors.AnchorLevel]:
    """The AnchorLevels that config.boxes describes, one for each map."""
    boxes, hw = config.boxes, config.model.input_hw
    if boxes.levels is not None:
        levels = [anchors.AnchorLevel.from_sizes(**level.model_dump()) for level in boxes.levels]
    elif boxes.preset == "paper":
        levels = anchors.paper_levels(config.model.levels, hw, boxes.s_min, boxes.s_max, boxes.s_first, boxes.aspect_ratios)
    elif tuple(hw) != (300, 300):
        raise ConfigError(f"boxes.preset {boxes.preset} is a table for 300 x 300, model.input_hw is {hw[0]} x {hw[1]}")
    else:
        levels = anchors.caffe_levels(boxes.preset)
    if len(levels) != config.model.levels:
        raise ConfigError(f"boxes give {len(levels)} levels, model.levels is {config.model.levels}: make them equal")
    return levels


def make_default_boxes(config: Config) -> np.ndarray:
    """The default boxes [A, 4] of the configured model, in the order of its outputs."""
    return anchors.make_default_boxes(anchor_levels(config), feature_map_shapes(config), config.model.input_hw)


def _features(config, image):
    backbone, levels = config.model.backbone, config.model.levels
    try:
        if backbone.name == "vgg16":
            return vgg.features(image, levels)
        return mobilenet.features(image, backbone.alpha, levels, backbone.first_stride, config.train.bn_momentum)
    except ValueError as error:
        hw = config.model.input_hw
        raise ConfigError(f"model: {error} (input {hw[0]} x {hw[1]})") from None


def _head(config, feature, k, size, name):
    """feature [B, H, W, channels] -> predictions [B, H * W * k, size]; a cell's default boxes follow each other."""
    if config.model.head == "separable":
        depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")
        feature = mobilenet.conv_bn(depthwise, feature, config.train.bn_momentum)
        x = layers.Conv2D(k * size, 1, kernel_initializer="glorot_uniform", name=f"{name}_conv")(feature)
    else:
        x = layers.Conv2D(k * size, 3, padding="same", kernel_initializer="glorot_uniform", name=f"{name}_conv")(feature)
    return layers.Reshape((-1, size), name=f"{name}_boxes")(x)
