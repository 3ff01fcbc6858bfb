"""Checkpoints and SavedModels of the TF Object Detection API of TensorFlow 2.

What network they hold is in their pipeline.config. A checkpoint names its variables by the objects
that hold them; a SavedModel numbers them in the order in which Keras 2 finds these objects.
Families: SSDs on MobileNet v1 and v2, with a feature pyramid and shared heads, or heads per map;
on ResNet v1 with a feature pyramid.
"""

import pathlib
import re

import tensorflow as tf
from keras import layers

from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import heads, ssd
from ssd_tf.weights import runs
from ssd_tf.weights.assign import find_misfit
from ssd_tf.weights.importers import families, od_graph
from ssd_tf.weights.importers.imported import Imported
from ssd_tf.weights.importers.od_pipeline import describe
from ssd_tf.weights.importers.pipeline_config import read_pipeline

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_EXTRACTOR = "_feature_extractor/"
_BACKBONE = f"{_EXTRACTOR}classification_backbone/"
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
# In a SavedModel. Which of the two names a variable has, the writer decides.
_NUMBERED = re.compile(r"(_feature_extractor|_box_predictor)/(trainable_variables|variables)/(\d+)")
# The objects that Keras lists in turn; in each of them the trainable variables come first, but in
# the backbone, a functional model, those of a layer stay together.
_LISTED = (
    f"{_EXTRACTOR}_coarse_feature_layers/",
    _BACKBONE,
    f"{_EXTRACTOR}_fpn_features_generator/top_layers/",
    f"{_EXTRACTOR}_fpn_features_generator/residual_blocks/",
    f"{_EXTRACTOR}_fpn_features_generator/conv_layers/",
    f"{_EXTRACTOR}feature_map_generator/convolutions/",
    f"{_PREDICTOR}_box_prediction_head/",
    f"{_PREDICTOR}_prediction_heads/",
    f"{_PREDICTOR}_base_tower_layers_for_heads/",
)
# A shared convolution is found where it is used first, which is in a tower on the first map.
_FIRST_USES = (
    (rf"{_CONVOLUTIONS}(?:Box)?PredictionTower/(\d+)", _BOX_TOWER),
    (rf"{_CONVOLUTIONS}ClassPredictionTower/(\d+)", _CLASS_TOWER),
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
    return _read(prefix, pathlib.Path(prefix), "checkpoint", pipeline_path)


def read_saved_model(folder, pipeline_path=None) -> Imported:
    """Import a SavedModel folder; pipeline_path and errors as of `read_checkpoint`."""
    folder = pathlib.Path(folder)
    return _read(folder / "variables" / "variables", folder, "SavedModel", pipeline_path)


def _read(prefix, path, kind, pipeline_path):
    """prefix: of the files with the variables. path: of the source, for messages."""
    od_graph.check_checkpoint(prefix)
    variables = _read_variables(prefix)
    families.check(variables, path)
    pipeline_path = _find_pipeline(path, kind, pipeline_path)
    values, num_classes = describe(read_pipeline(pipeline_path), pipeline_path)
    model = ssd.build_model(check_config(values, str(pipeline_path)), num_classes).model
    if any(_NUMBERED.fullmatch(name) for name in variables):
        variables = _name_variables(variables, model, path, pipeline_path)
    return Imported(
        f"{kind} of the TF Object Detection API of TensorFlow 2",
        values,
        _collect_arrays(model, variables, path, pipeline_path),
        [f"settings: {pipeline_path}"],
    )


def _find_pipeline(path, kind, given):
    if given is not None:
        return pathlib.Path(given)
    folders = [path.parent, path.parent.parent]
    if path.is_dir():
        folders.insert(0, path)
    found = [each / "pipeline.config" for each in folders if (each / "pipeline.config").is_file()]
    if not found:
        raise ConfigError(
            f"{path} is a {kind} of TensorFlow 2, which does not describe its network: expected "
            f"pipeline.config in {' or '.join(map(str, folders))}; put it there, or give "
            "--pipeline_config"
        )
    return found[0]


def _read_variables(prefix):
    """{object and variable: array}, without optimizer slots, counters and the outer object."""
    found = {}
    for name, value in runs.read_arrays(str(prefix)).items():
        match = re.fullmatch(rf"_?model/(_.*){_VALUE}", name)
        if match and ".OPTIMIZER_SLOT" not in name:
            found[match[1]] = value
    return found


def _name_variables(numbered, model, path, pipeline_path):
    """The variables of a SavedModel by the names that they have in a checkpoint."""
    variables = {name: numbered[name] for name in numbered if not _NUMBERED.fullmatch(name)}
    names = _list_names(model)
    for part in (_EXTRACTOR, _PREDICTOR):
        expected = [name for name in names if name.startswith(part)]
        found = _in_order({name: numbered[name] for name in numbered if name.startswith(part)})
        if len(found) != len(expected):
            raise ConfigError(
                f"{path}: expected {len(expected)} variables in {part}, found {len(found)}; is "
                f"{pipeline_path} that of this SavedModel?"
            )
        variables |= zip(expected, found, strict=True)
    return variables


def _in_order(numbered):
    """The arrays of one part. Numbers of "variables" count all, others the trainable ones."""
    trainable = {}
    others = {}
    for name, value in numbered.items():
        match = _NUMBERED.fullmatch(name)
        if match:
            by_number = others if match[2] == "variables" else trainable
            by_number[int(match[3])] = value
    remaining = iter([trainable[number] for number in sorted(trainable)])
    count = len(trainable) + len(others)
    return [others[n] if n in others else next(remaining, None) for n in range(count)]


def _list_names(model):
    """The names of all variables, in the order in which Keras 2 lists them."""
    names = [
        f"{place}/{_variable_name(layer, weight)}"
        for layer, place in _objects_of(model).items()
        for weight in layer.weights
    ]
    return sorted(names, key=_position)


def _variable_name(layer, weight):
    """The name in a checkpoint of one of a layer's weights."""
    name = weight.path.rpartition("/")[2]
    is_depthwise = name == "kernel" and isinstance(layer, layers.DepthwiseConv2D)
    return "depthwise_kernel" if is_depthwise else name


def _position(name):
    """A key that sorts names as Keras 2 lists them."""
    place, _, variable = name.rpartition("/")
    for pattern, tower in _FIRST_USES:
        match = re.fullmatch(pattern, place)
        if match:
            place = f"{tower}0/{3 * int(match[1])}"
    group = next(index for index, each in enumerate(_LISTED) if place.startswith(each))
    is_late = variable.startswith("moving_") and _LISTED[group] != _BACKBONE
    # Numbers count as such: 10 comes after 9.
    path = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", place)]
    return (group, is_late, path, _VARIABLES.index(variable))


def _collect_arrays(model, variables, path, pipeline_path):
    """{our layer: arrays}. Raises ConfigError for variables that are missing or left over."""
    arrays = {}
    used = set()
    for layer, place in _objects_of(model).items():
        names = [name for each in _VARIABLES if (name := f"{place}/{each}") in variables]
        if len(names) != len(layer.weights):
            raise ConfigError(
                f"{path}: expected {len(layer.weights)} variables in {place} (our layer "
                f"{layer.name}), found {len(names)}; is {pipeline_path} that of this checkpoint?"
            )
        arrays[layer.name] = [variables[name] for name in names]
        misfit = find_misfit(layer, arrays[layer.name])
        if misfit:
            num_classes = model.output["logits"].shape[-1] - 1
            raise ConfigError(
                f"{path}: {pipeline_path} describes another network: "
                f"{_explain_misfit(layer, arrays[layer.name], num_classes)}; {place}: {misfit}"
            )
        used.update(names)
    left_over = sorted(set(variables) - used)
    if left_over:
        raise ConfigError(
            f"{path}: {left_over[0]} belongs to no layer of the network that {pipeline_path} "
            f"describes ({len(left_over)} variables left over)"
        )
    return arrays


def _explain_misfit(layer, arrays, num_classes):
    """The key of pipeline.config to compare. num_classes: that it states."""
    if not heads.is_class_head(layer.name):
        is_predictor = (_object_of(layer.name) or "").startswith(_PREDICTOR)
        return f"compare its {'box_predictor' if is_predictor else 'feature_extractor'}"
    boxes_per_cell = layer.weights[-1].shape[-1] // (num_classes + 1)
    found = arrays[-1].shape[-1] // boxes_per_cell - 1
    return f"it states num_classes: {num_classes}, and the weights are for {found}"


def _objects_of(model):
    """{our layer: the object there} for all layers with weights.

    Keras 2 counts the backbone's layers in the order that model.layers has: by their distance from
    the output, so that a shortcut's convolution comes just before the third of its bottleneck.
    """
    objects = {}
    num_backbone = 0
    for layer in model.layers:
        if layer.weights:
            objects[layer] = _object_of(layer.name)
            if objects[layer] is None:
                objects[layer] = f"{_BACKBONE}layer_with_weights-{num_backbone}"
                num_backbone += 1
    return objects


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
