"""The last layers: feature maps -> offsets and logits of their default boxes.

Either each map has its own heads (Liu et al. 2016), or all maps share them, after a tower of
convolutions with batch norm of its own on each map (RetinaNet, Lin et al. 2017b, as in the TF
Object Detection API).

Shapes: `B` batch, `C` foreground classes, `k` default boxes per cell, `H`, `W` of a feature map.
"""

import math

import keras
import numpy as np
from keras import layers

from ssd_tf.errors import ConfigError
from ssd_tf.models import mobilenet

# Names of the layers that depend on the number of classes begin with this.
CLASS_HEAD_PREFIX = "logits"
# Names of the layers that depend on the shapes of the default boxes begin with this.
BOX_HEAD_PREFIX = "offsets"
# Of shared heads and their towers (Lin et al. 2017b, sec. 4.1).
_TOWER_INITIALIZER = {"class_name": "RandomNormal", "config": {"stddev": 0.01}}


def is_class_head(name) -> bool:
    """Whether the layer of that name gives logits."""
    return name.startswith(CLASS_HEAD_PREFIX) and name.endswith("_conv")


def is_box_head(name) -> bool:
    """Whether the layer of that name gives offsets."""
    return name.startswith(BOX_HEAD_PREFIX) and name.endswith("_conv")


def row_weights(layer) -> list:
    """The weights of a class head that have a row for each class: kernel and bias."""
    return layer.weights[-2:]  # a separable convolution has a depthwise kernel before them


def freeze_all_but_rows(model):
    """Freeze all weights that classes share: all but the `row_weights` of the class heads."""
    for layer in model.layers:
        if not is_class_head(layer.name):
            layer.trainable = False
            continue
        for weight in layer.weights[:-2]:
            weight.trainable = False


def predict(config, maps, levels, num_classes, initializer) -> dict:
    """Feature maps [B, H, W, channels] -> {"offsets" [B, A, 4], "logits" [B, A, C + 1]}.

    levels: a BoxLevel for each map. initializer: of the kernels of heads per map.
    Raises ConfigError if shared heads get maps with different numbers of default boxes per cell.
    """
    counts = [len(level.shapes_hw) for level in levels]
    bias = _initial_logit_bias(config, num_classes)
    if config.model.tower is None:
        head = config.model.head
        offsets = _heads_per_map(maps, counts, BOX_HEAD_PREFIX, head, [0.0] * 4, initializer)
        logits = _heads_per_map(maps, counts, CLASS_HEAD_PREFIX, head, bias, initializer)
    else:
        offsets, logits = _shared_heads(config.model, maps, counts, bias)
    # float32 under every policy: sums over thousands of boxes and exp() of sizes need it.
    return {
        "offsets": layers.Concatenate(1, dtype="float32", name="offsets")(offsets),
        "logits": layers.Concatenate(1, dtype="float32", name="logits")(logits),
    }


def _heads_per_map(maps, counts, prefix, head, bias, initializer):
    """A list of [B, H * W * k, len(bias)]. bias: initial values for one default box."""
    outputs = []
    for index, (x, k) in enumerate(zip(maps, counts, strict=True)):
        name = f"{prefix}{index}"
        if head == "separable":
            depthwise = layers.DepthwiseConv2D(
                3,
                padding="same",
                use_bias=False,
                depthwise_initializer=initializer,
                name=f"{name}_depthwise",
            )
            x = mobilenet.conv_bn(x, depthwise)
        conv = layers.Conv2D(
            k * len(bias),
            3 if head == "conv" else 1,
            padding="same",
            kernel_initializer=initializer,
            bias_initializer=_bias_initializer(bias * k),
            name=f"{name}_conv",
        )
        outputs.append(_list_boxes(conv(x), len(bias), name))
    return outputs


def _shared_heads(model, maps, counts, bias):
    """The outputs of heads that all maps share: a list of offsets and one of logits."""
    if len(set(counts)) > 1:
        raise ConfigError(
            f"model.tower: shared heads need as many default boxes per cell on every map, "
            f"boxes gives {counts}"
        )
    k = counts[0]
    if model.tower.shared:
        class_maps = box_maps = _run_tower(model, maps, "tower")
    else:
        box_maps = _run_tower(model, maps, "box_tower")
        class_maps = _run_tower(model, maps, "class_tower")
    box_head = _tower_conv(model.head, 4 * k, f"{BOX_HEAD_PREFIX}_conv", [0.0] * 4 * k)
    class_head = _tower_conv(model.head, len(bias) * k, f"{CLASS_HEAD_PREFIX}_conv", bias * k)
    offsets = [
        _list_boxes(box_head(x), 4, f"{BOX_HEAD_PREFIX}{index}") for index, x in enumerate(box_maps)
    ]
    logits = [
        _list_boxes(class_head(x), len(bias), f"{CLASS_HEAD_PREFIX}{index}")
        for index, x in enumerate(class_maps)
    ]
    return offsets, logits


def _run_tower(model, maps, name):
    """The maps after model.tower.num_layers convolutions, each with batch norm per map."""
    for layer in range(model.tower.num_layers):
        conv = _tower_conv(model.head, model.tower.channels, f"{name}{layer}")
        maps = [
            mobilenet.norm(conv(x), f"{name}{layer}_map{index}") for index, x in enumerate(maps)
        ]
    return maps


def _tower_conv(head, channels, name, bias=None):
    """A convolution layer of the kind model.head; without bias before batch norm."""
    settings = {
        "padding": "same",
        "use_bias": bias is not None,
        "bias_initializer": _bias_initializer(bias),
        "name": name,
    }
    if head == "separable":
        return layers.SeparableConv2D(
            channels,
            3,
            depthwise_initializer=_TOWER_INITIALIZER,
            pointwise_initializer=_TOWER_INITIALIZER,
            **settings,
        )
    size = 3 if head == "conv" else 1
    return layers.Conv2D(channels, size, kernel_initializer=_TOWER_INITIALIZER, **settings)


def _list_boxes(x, size, name):
    """[B, H, W, k * size] -> [B, H * W * k, size], cell by cell."""
    return layers.Reshape((-1, size), name=f"{name}_boxes")(x)


def _initial_logit_bias(config, num_classes):
    """Initial biases of the logits of one default box [C + 1].

    With the focal loss, objects start at a probability of .01 (Lin et al. 2017b, sec. 3.3).
    """
    if config.loss.focal_gamma is None:
        return [0.0] * (num_classes + 1)
    if config.model.score_activation == "sigmoid":
        return [0.0] + [-math.log(99.0)] * num_classes
    return [math.log(99.0 * num_classes)] + [0.0] * num_classes


def _bias_initializer(bias):
    if bias is None or not any(bias):
        return "zeros"
    return keras.initializers.Constant(np.array(bias))
