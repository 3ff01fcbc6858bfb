"""init_from: starts a network from the weights of another run or of a backbone, where they fit.

Shapes: `k` default boxes per cell, `C` foreground classes.
"""

import collections
import pathlib
import re
import typing

import keras
import numpy as np

from ssd_tf.config import Config, load_source_config
from ssd_tf.data import dataset_json
from ssd_tf.errors import ConfigError
from ssd_tf.models import heads, ssd
from ssd_tf.models.batch_norm import BatchNormalization
from ssd_tf.weights import meaning, runs
from ssd_tf.weights.assign import assign, split_rows
from ssd_tf.weights.importers import backbones

LOADED = "loaded"


class Source(typing.NamedTuple):
    """Weights to start from.

    path: the run folder, or the file of a backbone's weights.
    config: of the network that they were trained in.
    arrays: {layer: arrays}, averaged ones if there are any.
    class_names: None for a file, which has to fill the whole backbone and nothing else.
    """

    path: pathlib.Path
    config: Config
    arrays: dict[str, list[np.ndarray]]
    class_names: list[str] | None = None


class Outcome(typing.NamedTuple):
    """What happened to a layer. part: of the network; result: LOADED, or what else and why."""

    layer: str
    part: str
    result: str


def read_source(config: Config, model: keras.Model) -> Source:
    """Read what config.init_from names, to start this model.

    Raises ConfigError, in one line, if it cannot be used.
    """
    if not config.starts_from_run:
        return Source(*backbones.read_backbone(config))
    assert config.init_from is not None  # as it starts from a run
    path = pathlib.Path(config.init_from)
    old_config = load_source_config(path)
    try:
        class_names = dataset_json.read_dataset(path).names
        weights = runs.read_weights(runs.find_checkpoint(path))
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"init_from: {error}") from None
    return Source(path, old_config, runs.group_by_layer(weights, model), class_names)


def transfer(source: Source, network: ssd.SSD, config: Config, class_names) -> list[Outcome]:
    """Load what fits into a network; every layer with weights gets an Outcome.

    Class heads keep the rows of the background and of classes with the same name. Rows of new
    classes keep their random kernels, and start with the mean bias of the source's classes, so that
    they are as rare as those. Box heads of levels with other default boxes start from scratch.
    Raises ConfigError if the weights mean something else in this network, if no layer before the
    heads fits, if a file does not fill the backbone, or if the run's batch norm has no statistics
    and the config wants to train with them.
    """
    changed = meaning.differences(source.config, config)
    same_boxes = [
        meaning.has_same_boxes(source.config, config, level, map_hw)
        for level, map_hw in enumerate(network.map_shapes)
    ]
    _check_meaning(changed, any(same_boxes), source)
    backbone = {layer.name for layer in ssd.backbone_layers(network.model, config)}
    part_of = {
        layer.name: _part_of(layer.name, backbone)
        for layer in network.model.layers
        if layer.weights
    }
    results = {}
    arrays = {}
    for name in [name for name in part_of if name in source.arrays]:
        change = _find_change(changed, name, part_of[name])
        if change is None and not _fits_boxes(name, same_boxes):
            change = "other default boxes"
        if change is not None:
            results[name] = f"from scratch: {change}"
            continue
        arrays[name] = source.arrays[name]
        if heads.is_class_head(name) and source.class_names not in (None, list(class_names)):
            layer = network.model.get_layer(name)
            arrays[name], results[name] = _keep_rows(layer, source, class_names)
    required = backbone if source.class_names is None else ()
    for name, misfit in assign(network.model, arrays, f"init_from {source.path}", required).items():
        results.setdefault(name, f"from scratch: {misfit}")
    outcomes = [Outcome(name, part, results.get(name, LOADED)) for name, part in part_of.items()]
    _check_overlap(outcomes, source)
    _check_statistics(network.model, config, source)
    return outcomes


def list_new_layers(outcomes) -> list[str]:
    """The layers before the heads that start from scratch."""
    return [each.layer for each in _before_heads(outcomes) if each.result != LOADED]


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
        remedy = meaning.explain(fatal, "its network")
        if source.class_names is not None:
            remedy += ", or leave out model.backbone and boxes to take over its network"
        raise ConfigError(f"init_from {source.path}: the weights would be misused: {remedy}")


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


def _fits_boxes(name, same_boxes):
    """Whether a layer may be loaded. same_boxes: whether each level has the same default boxes."""
    match = re.fullmatch(rf"{heads.BOX_HEAD_PREFIX}(\d*)_conv", name)
    if match is None:
        return True
    return same_boxes[int(match[1])] if match[1] else all(same_boxes)


def _keep_rows(layer, source, new_names):
    """A class head for new classes, with the rows [C + 1] of old ones of each of the k boxes.

    Returns its arrays, None if it cannot keep any, and the result for the Outcome.
    """
    old_names = source.class_names
    *depthwise, kernel, bias = source.arrays[layer.name]  # of a separable head the first half stays
    kernel, bias = (split_rows(value, len(old_names) + 1) for value in (kernel, bias))
    new_kernel, new_bias = (
        split_rows(weight.numpy(), len(new_names) + 1).copy() for weight in heads.row_weights(layer)
    )
    if kernel.shape[:-1] != new_kernel.shape[:-1]:
        expected = new_kernel.shape[:-1]
        return None, f"from scratch: expected {expected} per class, got {kernel.shape[:-1]}"
    new_bias[:, 1:] = bias[:, 1:].mean(1, keepdims=True)
    old_rows = {name: row for row, name in enumerate(old_names, start=1)}
    kept = [row for row, name in enumerate(new_names, start=1) if name in old_rows]
    names = [new_names[row - 1] for row in kept]
    rows = [0, *kept]
    sources = [0, *(old_rows[name] for name in names)]
    new_kernel[..., rows] = kernel[..., sources]
    new_bias[..., rows] = bias[..., sources]
    rows_of_all = (new_kernel, new_bias)
    shapes = [weight.shape for weight in heads.row_weights(layer)]
    arrays = [value.reshape(shape) for value, shape in zip(rows_of_all, shapes, strict=True)]
    num_new = len(new_names) - len(names)
    return [*depthwise, *arrays], f"rows kept: {_list_names(['background', *names])}; {num_new} new"


def _list_names(names):
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _before_heads(outcomes):
    return [outcome for outcome in outcomes if "heads" not in outcome.part]


def _check_overlap(outcomes, source):
    before_heads = _before_heads(outcomes)
    if not any(outcome.result == LOADED for outcome in before_heads):
        first = before_heads[0]
        raise ConfigError(
            f"init_from {source.path}: none of its layers fits this network ({first.layer}: "
            f"{first.result}); leave out model.backbone and boxes to take over its network"
        )


def _check_statistics(model, config, source):
    """Raise ConfigError if training would replace statistics that were folded into kernels."""
    is_frozen = config.train.bn == "frozen" or config.data.keep_classes
    if is_frozen or source.config.imported_from is None:
        return
    for layer in model.layers:
        values = source.arrays.get(layer.name)
        if not isinstance(layer, BatchNormalization) or values is None:
            continue
        _, _, mean, variance = values
        if not mean.any() and (variance == 1).all():
            raise ConfigError(
                f"init_from {source.path}: batch norm {layer.name} was folded into its convolution "
                "and has no statistics: set train.bn=frozen"
            )
