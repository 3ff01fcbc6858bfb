"""Checkpoints of the TF Object Detection API of TensorFlow 2, with their pipeline.config.

Their variables are named by the objects that hold them. Families: SSDs on MobileNet v1 and v2, with
a feature pyramid and shared heads or with heads per map.

Shapes: `C` foreground classes.
"""

import glob
import math
import pathlib
import re

import tensorflow as tf

from ssd_tf.boxes.default_boxes import BoxLevel
from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.weights import runs
from ssd_tf.weights.assign import find_misfit
from ssd_tf.weights.importers import od_api
from ssd_tf.weights.importers.array_files import check_size
from ssd_tf.weights.importers.imported import Imported
from ssd_tf.weights.importers.pipeline_config import Message, read_pipeline

# feature_extractor.type -> model.backbone.name and whether there is a feature pyramid.
_FAMILIES = {
    "ssd_mobilenet_v1_keras": ("mobilenet", False),
    "ssd_mobilenet_v2_keras": ("mobilenet_v2", False),
    "ssd_mobilenet_v1_fpn_keras": ("mobilenet", True),
    "ssd_mobilenet_v2_fpn_keras": ("mobilenet_v2", True),
}
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_EXTRACTOR = "_feature_extractor/"
_PREDICTOR = "_box_predictor/"
_BOX_TOWER = f"{_PREDICTOR}_base_tower_layers_for_heads/box_encodings/"
_CLASS_TOWER = f"{_PREDICTOR}_base_tower_layers_for_heads/class_predictions_with_background/"
_CONVOLUTIONS = f"{_PREDICTOR}_head_scope_conv_layers/"
_CLASS_HEADS = f"{_PREDICTOR}_prediction_heads/class_predictions_with_background/"
_BOX_HEADS = f"{_PREDICTOR}_prediction_heads/box_encodings/"
# Names of our layers, and of the objects there. {} are the groups; numbers of the levels and of the
# tower's layers are computed from them.
_OBJECTS = (
    (r"fpn_lateral5", lambda: f"{_EXTRACTOR}_fpn_features_generator/top_layers/0"),
    (
        r"fpn_lateral(\d)",
        lambda level: f"{_EXTRACTOR}_fpn_features_generator/residual_blocks/{4 - level}/0",
    ),
    (
        r"fpn_smooth(\d)(_bn)?",
        lambda level, bn: f"{_EXTRACTOR}_fpn_features_generator/conv_layers/{4 - level}/{bn}",
    ),
    (
        r"fpn_coarse(\d)(_bn)?",
        lambda level, bn: f"{_EXTRACTOR}_coarse_feature_layers/{level - 6}/{bn}",
    ),
    (r"tower(\d+)", lambda index: f"{_CONVOLUTIONS}PredictionTower/{index}"),
    (r"box_tower(\d+)", lambda index: f"{_CONVOLUTIONS}BoxPredictionTower/{index}"),
    (r"class_tower(\d+)", lambda index: f"{_CONVOLUTIONS}ClassPredictionTower/{index}"),
    (
        r"(?:box_)?tower(\d+)_map(\d+)_bn",
        lambda index, level: f"{_BOX_TOWER}{level}/{3 * index + 1}",
    ),
    (
        r"class_tower(\d+)_map(\d+)_bn",
        lambda index, level: f"{_CLASS_TOWER}{level}/{3 * index + 1}",
    ),
    (r"offsets_conv", lambda: f"{_PREDICTOR}_box_prediction_head/_box_encoder_layers/0"),
    (r"logits_conv", lambda: f"{_CLASS_HEADS}_class_predictor_layers/0"),
    (r"offsets(\d+)_conv", lambda level: f"{_BOX_HEADS}{level}/_box_encoder_layers/0"),
    (r"logits(\d+)_conv", lambda level: f"{_CLASS_HEADS}{level}/_class_predictor_layers/0"),
    (
        r"extra(\d+)_reduce(_bn)?",
        lambda index, bn: f"{_EXTRACTOR}feature_map_generator/convolutions/{index + 1}/{bn}",
    ),
    (
        r"extra(\d+)_conv(_bn)?",
        lambda index, bn: f"{_EXTRACTOR}feature_map_generator/convolutions/{index + 1}/{3 + bn}",
    ),
)
_AXES = ("y", "x", "height", "width")
# Variables of the objects, in the order of our layers' weights.
_VARIABLES = (
    "depthwise_kernel",
    "pointwise_kernel",
    "kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
)


def is_checkpoint(prefix) -> bool:
    """Whether a checkpoint names its variables by objects. prefix: its path without .index."""
    names = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    return "_CHECKPOINTABLE_OBJECT_GRAPH" in names


def read_checkpoint(prefix, pipeline_path=None) -> Imported:
    """Import a checkpoint. prefix: its path without .index.

    pipeline_path: the pipeline.config; default: that beside the checkpoint or one folder up.
    Raises ConfigError if there is none, for other networks, and if the two contradict each other.
    """
    pipeline_path = _find_pipeline(pathlib.Path(prefix), pipeline_path)
    values, num_classes = describe(read_pipeline(pipeline_path), pipeline_path)
    model = ssd.build_model(check_config(values, str(pipeline_path)), num_classes).model
    return Imported(
        "checkpoint of the TF Object Detection API of TensorFlow 2",
        values,
        _collect_arrays(model, _read_variables(prefix), prefix, pipeline_path),
        [f"settings: {pipeline_path}"],
    )


def _find_pipeline(prefix, given):
    if given is not None:
        return pathlib.Path(given)
    folders = (prefix.parent, prefix.parent.parent)
    found = [each / "pipeline.config" for each in folders if (each / "pipeline.config").is_file()]
    if not found:
        raise ConfigError(
            f"{prefix} is a checkpoint of TensorFlow 2, which does not describe its network: "
            f"expected pipeline.config in {folders[0]} or {folders[1]}; give --pipeline_config"
        )
    return found[0]


def _read_variables(prefix):
    """{object and variable: array}, without optimizer slots, counters and the outer object."""
    prefix = pathlib.Path(prefix)
    data = sorted(prefix.parent.glob(f"{glob.escape(prefix.name)}.data-*"))
    if not data:
        raise ConfigError(
            f"{prefix}.index has no data beside it: expected {prefix.name}.data-00000-of-00001"
        )
    reader = tf.train.load_checkpoint(str(prefix))
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    declared = sum(math.prod(shape) * dtypes[name].size for name, shape in shapes.items())
    check_size(declared, max(data, key=lambda path: path.stat().st_size))
    found = {}
    for name, value in runs.read_arrays(str(prefix)).items():
        match = re.fullmatch(rf"_?model/((?:{_EXTRACTOR}|{_PREDICTOR}).*){_VALUE}", name)
        if match and ".OPTIMIZER_SLOT" not in name:
            found[match[1]] = value
    return found


def _collect_arrays(model, variables, prefix, pipeline_path):
    """{our layer: arrays}. Raises ConfigError for variables that are missing or left over."""
    backbone = f"{_EXTRACTOR}classification_backbone/layer_with_weights-"
    arrays = {}
    used = set()
    index = 0
    for layer in model.layers:
        if not layer.weights:
            continue
        place = _object_of(layer.name)
        if place is None:
            place = f"{backbone}{index}"
            index += 1
        names = [name for each in _VARIABLES if (name := f"{place}/{each}") in variables]
        if len(names) != len(layer.weights):
            raise ConfigError(
                f"{prefix}: expected {len(layer.weights)} variables in {place} (our layer "
                f"{layer.name}), found {len(names)}; is {pipeline_path} that of this checkpoint?"
            )
        arrays[layer.name] = [variables[name] for name in names]
        misfit = find_misfit(layer, arrays[layer.name])
        if misfit:
            raise ConfigError(
                f"{prefix}: {place}: {misfit}; {pipeline_path} describes another network "
                "(num_classes, depth_multiplier)"
            )
        used.update(names)
    left_over = sorted(set(variables) - used)
    if left_over:
        raise ConfigError(
            f"{prefix}: {left_over[0]} belongs to no layer of the network that {pipeline_path} "
            f"describes ({len(left_over)} variables left over)"
        )
    return arrays


def _object_of(name):
    """The object of one of our layers outside of the backbone, or None."""
    for pattern, place in _OBJECTS:
        match = re.fullmatch(pattern, name)
        if match:
            numbers = [_number_of(group) for group in match.groups()]
            return place(*numbers)
    return None


def _number_of(group):
    """A matched number; of the suffix _bn, 1 if it is there, else 0."""
    return int(group == "_bn") if group in (None, "_bn") else int(group)


def describe(pipeline: Message, path) -> tuple[dict, int]:
    """The sections of our config, and C, from a pipeline.config. Raises ConfigError."""
    model = pipeline.message("model")
    if "ssd" not in model.fields:
        kind = next(iter(model.fields), "no model")
        raise ConfigError(f"{path}: expected an SSD, got {kind}")
    model = model.message("ssd")
    extractor = model.message("feature_extractor")
    kind = extractor.text("type", "")
    if kind not in _FAMILIES:
        raise ConfigError(
            f"{path}: feature_extractor.type {kind} cannot be imported (expected "
            f"{', '.join(_FAMILIES)}); its SavedModel runs as it is: ssd detect --model"
        )
    name, has_pyramid = _FAMILIES[kind]
    input_hw = _input_hw(model, path)
    predictor = model.message("box_predictor")
    backbone = {
        "name": name,
        "padding": "same",
        "alpha": extractor.number("depth_multiplier", 1.0),
        "min_channels": int(extractor.number("min_depth", 16)),
    }
    if has_pyramid:
        network = _pyramid(extractor, predictor)
    else:
        network = _heads_per_map(predictor, model)
        backbone["extra_layers"] = "separable" if extractor.flag("use_depthwise") else "conv"
    converter = model.message("post_processing").text("score_converter", "IDENTITY")
    values = {
        "model": {
            "input_hw": input_hw,
            "backbone": backbone,
            "score_activation": "softmax" if converter == "SOFTMAX" else "sigmoid",
            **network,
        },
        "boxes": _boxes(model, network["num_levels"], input_hw, path),
        "loss": _loss(model),
        "eval": _evaluation(model),
    }
    return values, int(model.number("num_classes", 0))


def _input_hw(model, path):
    resizer = model.message("image_resizer")
    if "fixed_shape_resizer" not in resizer.fields:
        raise ConfigError(
            f"{path}: image_resizer: expected fixed_shape_resizer, got {', '.join(resizer.fields)}"
        )
    size = resizer.message("fixed_shape_resizer")
    return [int(size.number("height", 300)), int(size.number("width", 300))]


def _pyramid(extractor, predictor):
    fpn = extractor.message("fpn")
    shared = predictor.message("weight_shared_convolutional_box_predictor")
    separable = extractor.flag("use_depthwise")
    return {
        "num_levels": int(fpn.number("max_level", 7)) - int(fpn.number("min_level", 3)) + 1,
        "neck": "fpn_lite" if separable else "fpn",
        "neck_channels": int(fpn.number("additional_layer_depth", 256)),
        "head": "separable" if shared.flag("use_depthwise") else "conv",
        "tower": {
            "num_layers": int(shared.number("num_layers_before_predictor", 0)),
            "channels": int(shared.number("depth", 256)),
            "shared": shared.flag("share_prediction_tower"),
        },
    }


def _heads_per_map(predictor, model):
    convolutional = predictor.message("convolutional_box_predictor")
    anchors = model.message("anchor_generator").message("ssd_anchor_generator")
    head = "pointwise" if convolutional.number("kernel_size", 1) == 1 else "conv"
    if convolutional.flag("use_depthwise"):
        head = "separable"
    return {"num_levels": int(anchors.number("num_layers", 6)), "head": head}


def _boxes(model, num_levels, input_hw, path):
    coder = model.message("box_coder").message("faster_rcnn_box_coder")
    scales = [coder.number(f"{axis}_scale", 10.0 if axis in "yx" else 5.0) for axis in _AXES]
    boxes = {"variances": [1 / scale for scale in scales]}
    generator = model.message("anchor_generator")
    if "multiscale_anchor_generator" in generator.fields:
        anchors = generator.message("multiscale_anchor_generator")
        return boxes | _multiscale_boxes(anchors, num_levels, input_hw, path)
    anchors = generator.message("ssd_anchor_generator")
    stated = [anchors.number("min_scale", 0.2), anchors.number("max_scale", 0.95)]
    ratios = anchors.numbers("aspect_ratios")
    expected = [1.0, 2.0, 0.5, 3.0, 0.3333]
    if ratios != expected or [round(each, 4) for each in stated] != [0.2, 0.95]:
        raise ConfigError(f"{path}: ssd_anchor_generator: expected scales .2 to .95 and {expected}")
    return boxes | {"preset": "od_api"}


def _multiscale_boxes(anchors, num_levels, input_hw, path):
    scale = anchors.number("anchor_scale", 4.0)
    ratios = anchors.numbers("aspect_ratios") or [1.0, 2.0, 0.5]
    per_octave = int(anchors.number("scales_per_octave", 2))
    if (scale, ratios, per_octave) == (4.0, [1.0, 2.0, 0.5], 2):
        return {"preset": "od_api_fpn"}
    if any(side % (8 * 2 ** (num_levels - 1)) for side in input_hw):
        raise ConfigError(
            f"{path}: multiscale_anchor_generator: other values than the API's need an input that "
            f"the coarsest stride divides, got {input_hw}"
        )
    levels = []
    for stride in (8 * 2**index for index in range(num_levels)):
        sizes = [scale * stride * 2 ** (index / per_octave) for index in range(per_octave)]
        shapes = BoxLevel.from_ratios([(s, ratio) for ratio in ratios for s in sizes]).shapes_hw
        levels.append({"shapes": [list(shape) for shape in shapes], "step": stride})
    return {"levels": levels}


def _loss(model):
    loss = model.message("loss").message("classification_loss")
    if "weighted_sigmoid_focal" not in loss.fields:
        return {}
    focal = loss.message("weighted_sigmoid_focal")
    return {
        "focal_gamma": focal.number("gamma", 2.0),
        "focal_alpha": focal.number("alpha", 0.25),
    }


def _evaluation(model):
    nms = model.message("post_processing").message("batch_non_max_suppression")
    return {
        "score_floor": nms.number("score_threshold", od_api.DEFAULTS["eval.score_floor"]),
        "nms_iou": nms.number("iou_threshold", od_api.DEFAULTS["eval.nms_iou"]),
        "max_detections": int(nms.number("max_total_detections", 100)),
    }
