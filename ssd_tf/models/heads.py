"""The last layers: feature maps -> offsets and logits of their default boxes.

Either each map has its own heads (Liu et al. 2016), or all maps share them, after a tower of
convolutions with batch norm of its own on each map (RetinaNet, Lin et al. 2017b, as in the TF
Object Detection API). With model.tower.per_map, towers and heads belong to a map each.

Shapes: `B` batch, `C` foreground classes, `k` default boxes per cell, `H`, `W` of a feature map.
"""

import math

import keras
import numpy as np
from keras import layers

from ssd_tf.boxes import coding
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
        offsets, logits = _heads_after_towers(config.model, maps, counts, bias)
    # float32 under every policy: sums over thousands of boxes and exp() of sizes need it.
    return {
        "offsets": _join_offsets(config.boxes, offsets),
        "logits": layers.Concatenate(1, dtype="float32", name="logits")(logits),
    }


@keras.saving.register_keras_serializable("ssd_tf")
class CornersToOffsets(layers.Layer):
    """Moves of corners, as with boxes.coding: corners, -> offsets [B, A, 4] of centre and size."""

    def __init__(self, variances, **settings):
        super().__init__(**settings)
        self._variances = variances

    def call(self, moves):
        """As `coding.corners_to_offsets`."""
        return coding.corners_to_offsets(moves, self._variances)

    def get_config(self):
        """For copies of the network, with folded batch norm."""
        return {**super().get_config(), "variances": self._variances}


def _join_offsets(boxes, parts):
    """The outputs [B, n, 4] of the box heads of each map -> offsets [B, A, 4]."""
    if boxes.coding == "centre_and_size":
        return layers.Concatenate(1, dtype="float32", name="offsets")(parts)
    moves = layers.Concatenate(1, dtype="float32", name="offsets_corners")(parts)
    return CornersToOffsets(boxes.variances, dtype="float32", name="offsets")(moves)


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


def _heads_after_towers(model, maps, counts, bias):
    """A list of offsets and one of logits, with an entry for each map."""
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
    outputs = []
    for prefix, of_maps, values in (
        (BOX_HEAD_PREFIX, box_maps, [0.0] * 4),
        (CLASS_HEAD_PREFIX, class_maps, bias),
    ):
        names = [f"{prefix}{level}_conv" for level in range(len(maps))]
        convs = _tower_convs(model, k * len(values), names, f"{prefix}_conv", values * k)
        outputs.append(
            [
                _list_boxes(conv(x), len(values), f"{prefix}{level}")
                for level, (conv, x) in enumerate(zip(convs, of_maps, strict=True))
            ]
        )
    return outputs


def _run_tower(model, maps, name):
    """The maps after model.tower.num_layers convolutions, each with batch norm per map."""
    for layer in range(model.tower.num_layers):
        names = [f"{name}{layer}_map{level}" for level in range(len(maps))]
        convs = _tower_convs(model, model.tower.channels, names, f"{name}{layer}")
        maps = [
            mobilenet.norm(conv(x), own_name)
            for conv, x, own_name in zip(convs, maps, names, strict=True)
        ]
    return maps


def _tower_convs(model, channels, names, shared_name, bias=None):
    """A convolution for each map: with model.tower.per_map by `names`, else the same for all."""
    if model.tower.per_map:
        return [_tower_conv(model.head, channels, name, bias) for name in names]
    return [_tower_conv(model.head, channels, shared_name, bias)] * len(names)


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
