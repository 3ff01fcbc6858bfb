"""init_from: the weights of another run, as far as they fit.

Shapes: `k` default boxes per cell, `C` foreground classes.
"""

import collections
import pathlib
import typing

import numpy as np

from ssd_tf.config import Config, load_source_config
from ssd_tf.data import dataset_json
from ssd_tf.errors import ConfigError
from ssd_tf.models import heads, ssd
from ssd_tf.models.batch_norm import BatchNormalization
from ssd_tf.weights import meaning, runs
from ssd_tf.weights.checks import check_finite

_LOADED = "loaded"


class Source(typing.NamedTuple):
    """The run to start from. weights: arrays by variable path, averaged ones if there are any."""

    path: pathlib.Path
    config: Config
    class_names: list[str]
    weights: dict[str, np.ndarray]


class Outcome(typing.NamedTuple):
    """What happened to a layer. part: of the network; result: "loaded", or what else and why."""

    layer: str
    part: str
    result: str


def read_source(path) -> Source:
    """Read a run folder. Raises ConfigError, in one line, if it is none."""
    path = pathlib.Path(path)
    config = load_source_config(path)
    try:
        class_names = dataset_json.read_dataset(path).names
        weights = runs.read_weights(runs.find_checkpoint(path))
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"init_from: {error}") from None
    check_finite(weights, f"init_from: {path}")
    return Source(path, config, class_names, weights)


def transfer(source: Source, network: ssd.SSD, config: Config, class_names) -> list[Outcome]:
    """Load what fits of a run into a network; every layer with weights gets an Outcome.

    Class heads keep the rows of the background and of classes with the same name. Rows of new
    classes keep their random kernels, and start with the mean bias of the source's classes, so that
    they are as rare as those. Box heads of levels with other default boxes start from scratch.
    Raises ConfigError if the weights mean something else in this network, if no layer before the
    heads fits, or if the run's batch norm has no statistics and the config wants to train with
    them.
    """
    changed = meaning.differences(source.config, config)
    same_boxes = [
        meaning.has_same_boxes(source.config, config, level, map_hw)
        for level, map_hw in enumerate(network.map_shapes)
    ]
    _check_meaning(changed, any(same_boxes), source)
    backbone = {layer.name for layer in ssd.backbone_layers(network.model, config)}
    outcomes = []
    for layer in network.model.layers:
        if not layer.weights:
            continue
        values = [source.weights.get(variable.path) for variable in layer.variables]
        part = _part_of(layer.name, backbone)
        if any(value is None for value in values):
            result = "from scratch: the run has no such layer"
        elif reason := _find_change(changed, layer.name, part):
            result = f"from scratch: {reason}"
        elif heads.is_class_head(layer.name):
            result = _load_class_head(layer, values, source, class_names)
        elif _is_box_head(layer.name) and not same_boxes[_level_of(layer.name)]:
            result = "from scratch: other default boxes"
        else:
            result = _load(layer, values)
        outcomes.append(Outcome(layer.name, part, result))
    _check_overlap(outcomes, source)
    _check_statistics(network.model, config, source)
    return outcomes


def summarize(outcomes) -> list[str]:
    """A table in lines: part of the network, number of layers, what happened."""
    counts = collections.Counter((outcome.part, outcome.result) for outcome in outcomes)
    return [f"{part:<12} {count:>4} layers  {result}" for (part, result), count in counts.items()]


def _check_meaning(changed, keeps_boxes, source):
    """Raise ConfigError for differences that no part of the network can be kept with."""
    fatal = [
        each
        for each in changed
        if each.affects == meaning.NETWORK
        or (each.affects == meaning.DEFAULT_BOXES and keeps_boxes)
    ]
    if fatal:
        raise ConfigError(
            f"init_from {source.path}: the weights would be misused: "
            f"{meaning.explain(fatal, 'that run')}, or leave out model.backbone and boxes to take "
            "over its network"
        )


def _find_change(changed, layer, part):
    """Why a layer that fits cannot be kept; None if it can."""
    affected = {part}
    if part in ("class heads", "box heads"):
        affected = {meaning.HEADS, meaning.EXTRA_LAYERS_AND_HEADS}
        if layer.endswith("_conv"):
            affected.add(part)
    elif part == "extra layers":
        affected = {meaning.EXTRA_LAYERS_AND_HEADS}
    for each in changed:
        if each.affects in affected:
            return f"the run has {each.key} = {each.old}, not {each.new}"
    return None


def _part_of(name, backbone):
    if name in backbone:
        return "backbone"
    if name.startswith(heads.CLASS_HEAD_PREFIX):
        return "class heads"
    return "box heads" if name.startswith(heads.BOX_HEAD_PREFIX) else "extra layers"


def _is_box_head(name):
    return name.startswith(heads.BOX_HEAD_PREFIX) and name.endswith("_conv")


def _level_of(name):
    """The level of a layer named offsets3_conv."""
    return int(name.removeprefix(heads.BOX_HEAD_PREFIX).removesuffix("_conv"))


def _load(layer, values):
    expected = [tuple(variable.shape) for variable in layer.variables]
    found = [value.shape for value in values]
    if found != expected:
        return f"from scratch: expected shape {expected[0]}, got {found[0]}"
    for variable, value in zip(layer.variables, values, strict=True):
        variable.assign(value)
    return _LOADED


def _load_class_head(layer, values, source, class_names):
    """Load the rows [C + 1] of each of the k boxes whose class has the same name."""
    if source.class_names == list(class_names):
        return _load(layer, values)
    old_rows = {name: row for row, name in enumerate(source.class_names, start=1)}
    kernel, bias = (_by_box(value, len(source.class_names) + 1) for value in values)
    new_kernel, new_bias = (
        _by_box(variable.numpy(), len(class_names) + 1) for variable in layer.variables
    )
    if kernel.shape[:-1] != new_kernel.shape[:-1]:
        return f"from scratch: expected {new_kernel.shape[:-1]} per class, got {kernel.shape[:-1]}"
    new_bias[:, 1:] = bias[:, 1:].mean(1, keepdims=True)
    kept = [(0, 0)]
    kept += [(row, old_rows.get(name)) for row, name in enumerate(class_names, start=1)]
    kept = [pair for pair in kept if pair[1] is not None]
    rows, sources = (list(numbers) for numbers in zip(*kept, strict=True))
    new_kernel[..., rows] = kernel[..., sources]
    new_bias[..., rows] = bias[..., sources]
    for variable, value in zip(layer.variables, (new_kernel, new_bias), strict=True):
        variable.assign(value.reshape(variable.shape))
    names = [class_names[row - 1] for row in rows[1:]]
    return f"rows kept: {_list_names(['background', *names])}; {len(class_names) - len(names)} new"


def _by_box(value, num_rows):
    """[..., k * num_rows] -> [..., k, num_rows], a copy."""
    return np.array(value).reshape(*value.shape[:-1], -1, num_rows)


def _list_names(names):
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _check_overlap(outcomes, source):
    before_heads = [outcome for outcome in outcomes if "heads" not in outcome.part]
    if not any(outcome.result == _LOADED for outcome in before_heads):
        first = before_heads[0]
        raise ConfigError(
            f"init_from {source.path}: none of its layers fits this network ({first.layer}: "
            f"{first.result}); leave out model.backbone and boxes to take over its network"
        )


def _check_statistics(model, config, source):
    """Raise ConfigError if training would replace statistics that were folded into kernels."""
    if config.train.bn == "frozen" or source.config.imported_from is None:
        return
    for layer in model.layers:
        if isinstance(layer, BatchNormalization) and layer.name in _folded_layers(source):
            raise ConfigError(
                f"init_from {source.path}: batch norm {layer.name} was folded into its convolution "
                "and has no statistics: set train.bn=frozen"
            )


def _folded_layers(source):
    """The layers of batch norm whose mean is 0 and whose variance is 1."""
    return {
        path.removesuffix("/moving_mean")
        for path, value in source.weights.items()
        if path.endswith("/moving_mean")
        and not value.any()
        and (source.weights[path.replace("moving_mean", "moving_variance")] == 1).all()
    }
