"""SSDs of the TF Object Detection API: their layers and settings, in the terms of our model.

Readers of its file formats give a Source; `convert` makes an Imported of it.
"""

import math
import re
import typing

import numpy as np

from ssd_tf.boxes.default_boxes import preset_levels
from ssd_tf.config import Backbone
from ssd_tf.errors import ConfigError
from ssd_tf.models import mobilenet
from ssd_tf.weights.importers import families
from ssd_tf.weights.importers.imported import Imported
from ssd_tf.weights.importers.torchvision import gamma_for_epsilon


class Layer(typing.NamedTuple):
    """A convolution and what follows it.

    kernel: [height, width, in, out]; of a depthwise convolution [height, width, channels, 1].
    bias: [out], or None.
    norm: gamma, beta, moving mean and moving variance, each [out], or None where there is no batch
        norm, or where it is folded into kernel and bias.
    strides, padding ("SAME" or another), dilations: None if the file does not say.
    """

    kernel: np.ndarray
    bias: np.ndarray | None = None
    norm: tuple[np.ndarray, ...] | None = None
    epsilon: float = 1e-3
    strides: tuple[int, int] | None = None
    padding: str | None = None
    dilations: tuple[int, int] | None = None


class Source(typing.NamedTuple):
    """A detector as its file describes it.

    kind: of the file, for messages.
    layers: by the API's names, e.g. FeatureExtractor/MobilenetV1/Conv2d_0.
    settings: values of our config, by the path of the key, e.g. "eval.nms_iou".
    level_shapes: for each level the height and width of each default box of a cell, in pixels, or
        None where the file does not say; box_rounding: the fraction of the input that default
        boxes are multiples of, or None.
    label: the file and what it holds, for messages, or empty.
    """

    kind: str
    layers: dict[str, Layer]
    settings: dict
    level_shapes: list | None = None
    box_rounding: float | None = None
    label: str = ""


# Of the API's SSD configs, for settings that a file does not state.
DEFAULTS = {
    "model.input_hw": [300, 300],
    "model.backbone.mean_rgb": [127.5] * 3,
    "model.backbone.std_rgb": [127.5] * 3,
    "boxes.variances": [0.1, 0.1, 0.2, 0.2],
    "model.score_activation": "sigmoid",
    "eval.score_floor": 1e-8,
    "eval.nms_iou": 0.6,
    "eval.class_agnostic": False,
    "eval.max_detections": 100,
}
# The section model.backbone of its ResNets, apart from name and width: RGB minus the means of VGG.
RESNET = {"variant": "od_api", "mean_rgb": [123.68, 116.779, 103.939], "std_rgb": [1.0] * 3}
# Of the DEFAULTS; what pixels become is reported as a range instead.
_NORMALIZATION = ("model.backbone.mean_rgb", "model.backbone.std_rgb")
# Names of the API's layers and ours. {} are the groups; extra layers count from 2 there.
_NAMES = (
    (r"MobilenetV1/Conv2d_0", "conv1"),
    (r"MobilenetV1/Conv2d_(\d+)_depthwise", "conv_dw_{}"),
    (r"MobilenetV1/Conv2d_(\d+)_pointwise", "conv_pw_{}"),
    (r"MobilenetV2/Conv", "Conv1"),
    (r"MobilenetV2/Conv_1", "Conv_1"),
    (r"MobilenetV2/expanded_conv/(depthwise|project)", "expanded_conv_{}"),
    (r"MobilenetV2/expanded_conv_(\d+)/(expand|depthwise|project)", "block_{}_{}"),
    (r"BoxPredictor_(\d+)/BoxEncodingPredictor", "offsets{}_conv"),
    (r"BoxPredictor_(\d+)/BoxEncodingPredictor_depthwise", "offsets{}_depthwise"),
    (r"BoxPredictor_(\d+)/ClassPredictor", "logits{}_conv"),
    (r"BoxPredictor_(\d+)/ClassPredictor_depthwise", "logits{}_depthwise"),
)
_EXTRA = r"(?:Conv2d_13_pointwise|layer_19)_[12]_Conv2d_(\d+)_(1x1|3x3_s2)_\d+(_depthwise)?"
_KNOWN = "ssd_mobilenet_v1, ssd_mobilenet_v2 and ssdlite_mobilenet_v2"
# What to do with files of TensorFlow 2.
ONLY_V1 = (
    f"its detectors cannot be imported (expected {_KNOWN} of the TF Object Detection API of "
    "TensorFlow 1); a SavedModel or TFLite file of a detector runs as it is: ssd detect --model"
)
# Names of layers, and whose they are; other families are found by their names before.
_OTHERS = (
    (r"WeightSharedConvolutional|(?i:fpn)", "an SSD with a feature pyramid"),
    (r"ssd_mobile_net_v|PartitionedCall|functional", "a model of TensorFlow 2"),
)
# Width multipliers to try: those in use, then all hundredths.
_ALPHAS = (1.0, 0.75, 0.5, 0.35, 0.25, 1.3, 1.4, *[n / 100 for n in range(5, 201)])
_MIN_CHANNELS = 16
# Default boxes of a larger one, as a corrupt file may state it, would fill the memory.
MAX_INPUT = 4096


def our_name(name) -> str | None:
    """The name of our layer for a name in one of the API's files, or None.

    The name may have more behind the layer's: .../Conv2d_0/weights.
    """
    for pattern, ours in _NAMES:
        match = re.search(rf"(?:^|/){pattern}(?:/|$)", name)
        if match:
            return ours.format(*match.groups())
    match = re.search(rf"/{_EXTRA}(?:/|$)", name)
    if match is None:
        return None
    index, size, depthwise = match.groups()
    part = "reduce" if size == "1x1" else "depthwise" if depthwise else "shrink"
    return f"extra{int(index) - 1}_{part}"


def round_number(value) -> float:
    """A float32 as the decimal number that it was written as."""
    return float(f"{float(value):.6g}")


def convert(source: Source, path) -> Imported:
    """The config and arrays of our model for a Source. Raises ConfigError for other networks."""
    layers = _rename(source, path)
    num_levels = sum(name.startswith("offsets") and name.endswith("_conv") for name in layers)
    if num_levels == 0:
        raise ConfigError(f"{path}: no BoxPredictor layers: not a detector ({_KNOWN})")
    settings = DEFAULTS | source.settings
    check_input_size(settings["model.input_hw"], path)
    settings |= {"model.num_levels": num_levels, "model.head": _head(layers)}
    settings |= _describe_backbone(layers, path)
    settings |= describe_boxes(source, num_levels, settings)
    assumed = [key for key in DEFAULTS if key not in source.settings]
    notes = describe_assumed(assumed)
    if source.box_rounding is not None:
        notes.append(
            f"centres and sizes of default boxes are rounded to multiples of {source.box_rounding} "
            "of the image, as in the file; --set boxes.rounding=null gives the exact ones"
        )
    if source.level_shapes is None:
        assumed.append("boxes.preset")
        notes.append("not in the file, so the API's default: boxes.preset = od_api")
    if layers["conv1" if _is_v1(layers) else "Conv1"].norm is None:
        settings["train.bn"] = "frozen"
        notes.append("batch norm is folded into the convolutions: train.bn = frozen")
    arrays = {}
    for name, layer in layers.items():
        _check_window(name, layer, path)
        arrays |= _arrays(name, layer, path)
    return Imported(
        kind=f"{source.kind} of the TF Object Detection API",
        values=nest(settings),
        arrays=arrays,
        notes=notes,
        strides={name: layer.strides for name, layer in layers.items() if layer.strides},
        assumed=(*assumed, "boxes.rounding"),
    )


def check_input_size(input_hw, path):
    """Raise ConfigError for an input that is too large for any detector."""
    if max(input_hw) > MAX_INPUT:
        raise ConfigError(
            f"{path}: expected an input of at most {MAX_INPUT} pixels on each side, got "
            f"{list(input_hw)}"
        )


def describe_assumed(keys) -> list[str]:
    """Notes on settings that a file does not state."""
    return [
        f"not in the file, so the API's default: {key} = {DEFAULTS[key]}"
        for key in keys
        if key not in _NORMALIZATION
    ]


def nest(settings) -> dict:
    """{"eval.nms_iou": 0.6} -> {"eval": {"nms_iou": 0.6}}"""
    values = {}
    for path, value in settings.items():
        *sections, key = path.split(".")
        section = values
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    return values


def _check_window(name, layer, path):
    """Raise ConfigError for a convolution that our network computes in another way."""
    size = max(layer.kernel.shape[:2], default=0)
    if size > 1 and layer.padding not in (None, "SAME"):
        raise ConfigError(f"{path}: {name}: expected the padding SAME, got {layer.padding}")
    if size > 1 and set(layer.dilations or ()) - {1}:
        raise ConfigError(f"{path}: {name}: expected no dilation, got {list(layer.dilations)}")


def _is_v1(layers):
    return "conv_dw_1" in layers


def _rename(source, path):
    """The layers by our names. Raises ConfigError with the first that has none."""
    layers = {}
    for name, layer in source.layers.items():
        ours = our_name(name)
        if ours is None:
            raise ConfigError(
                f"{path}: {name} belongs to no network that can be imported ({_KNOWN} of the TF "
                f"Object Detection API){_hint(name)}"
            )
        if layer.kernel.ndim != 4 or not layer.kernel.size:
            raise ConfigError(
                f"{path}: {name}: expected a kernel of four dimensions, got {layer.kernel.shape}"
            )
        layers[ours] = layer
    for name in [name for name in layers if name.endswith("_shrink")]:
        index = name.removesuffix("_shrink")
        kind = "expand" if f"{index}_depthwise" in layers else "conv"
        layers[f"{index}_{kind}"] = layers.pop(name)
    return layers


def _hint(name):
    """The network that an unknown layer's name belongs to, for a message."""
    for pattern, network in _OTHERS:
        if re.search(pattern, name):
            return f"; it looks like {network}; {families.RUNS_AS_IT_IS}"
    return ""


def _head(layers):
    if "offsets0_depthwise" in layers:
        return "separable"
    return "pointwise" if layers["offsets0_conv"].kernel.shape[0] == 1 else "conv"


def _describe_backbone(layers, path):
    """The keys of model.backbone, as far as the layers show them."""
    name = "mobilenet" if _is_v1(layers) else "mobilenet_v2"
    stem = "conv1" if _is_v1(layers) else "Conv1"
    last = "conv_pw_13" if _is_v1(layers) else "block_16_project"
    for needed in (stem, last):
        if needed not in layers:
            raise ConfigError(f"{path}: expected the layers of {name}, {needed} is missing")
    values = fit_width(name, layers[stem].kernel.shape[3], layers[last].kernel.shape[3], path)
    if "extra1_conv" in layers:
        values["extra_layers"] = "conv"
    if name == "mobilenet_v2" and "Conv_1" in layers:
        values["last_channels"] = layers["Conv_1"].kernel.shape[3]
    return {f"model.backbone.{key}": value for key, value in values.items()}


def fit_width(name, stem_channels, last_channels, path) -> dict:
    """Keys of model.backbone for a MobileNet, from the channels of its stem and last block."""
    values = {"name": name, "padding": "same", "min_channels": _MIN_CHANNELS}
    for alpha in _ALPHAS:
        values["alpha"] = alpha
        found = mobilenet.first_and_last_channels(Backbone(**values))
        if found == (stem_channels, last_channels):
            return values
    raise ConfigError(
        f"{path}: no width multiplier of {name} gives {stem_channels} channels in its first "
        f"convolution and {last_channels} in its last block"
    )


def describe_boxes(source, num_levels, settings, name="od_api") -> dict:
    """The shapes of the default boxes: the preset of that name if it has those of the file."""
    preset = {"boxes.preset": name}
    if source.level_shapes is None:
        return preset
    boxes = {}
    tolerance = 1e-3  # pixels
    if source.box_rounding is not None:
        boxes["boxes.rounding"] = source.box_rounding
        tolerance = source.box_rounding * max(settings["model.input_hw"]) / 2
    levels = preset_levels(name, num_levels, settings["model.input_hw"], integer_sizes=False)
    is_preset = len(levels) == len(source.level_shapes) and all(
        np.shape(level.shapes_hw) == np.shape(shapes)
        and np.allclose(level.shapes_hw, shapes, rtol=0, atol=tolerance)
        for level, shapes in zip(levels, source.level_shapes, strict=False)
    )
    if is_preset:
        return boxes | preset
    shapes = [{"shapes": np.round(shapes, 4).tolist()} for shapes in source.level_shapes]
    return boxes | {"boxes.levels": shapes}


def _arrays(name, layer, path):
    """A layer's arrays, and those of the batch norm that follows it, by our layers' names."""
    if name.endswith("_conv") and not name.startswith("extra"):
        if layer.bias is None:
            raise ConfigError(f"{path}: expected a bias in {name}, found none")
        return {name: [layer.kernel, layer.bias]}
    return {name: [layer.kernel], mobilenet.norm_name(name): _norm_arrays(name, layer, path)}


def _norm_arrays(name, layer, path):
    """gamma, beta, mean and variance for our epsilon of 1e-3."""
    epsilon = mobilenet.EPSILON
    if layer.norm is not None:
        gamma, beta, mean, variance = layer.norm
        gamma = gamma_for_epsilon(gamma, variance, layer.epsilon, epsilon)
        return [gamma, beta, mean, variance]
    if layer.bias is None:
        raise ConfigError(f"{path}: expected batch norm or a bias in {name}, found neither")
    return folded_norm(np.ones_like(layer.bias), layer.bias)


def folded_norm(scale, bias) -> list:
    """gamma, beta, mean and variance of a batch norm that computes scale * x + bias."""
    ones = np.ones_like(bias)
    return [scale * math.sqrt(1 + mobilenet.EPSILON), bias, np.zeros_like(bias), ones]
