"""What an importer of other people's detectors gives, and our network made of it.

Shapes: `C` foreground classes.
"""

import types
import typing

import numpy as np

from ssd_tf.config import Config, apply_overrides, check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.weights import meaning
from ssd_tf.weights.checks import check_finite


class Imported(typing.NamedTuple):
    """A detector in the terms of our model.

    kind: of the source, for messages.
    values: sections of the config.
    arrays: by our layers' names, in the order of Layer.set_weights.
    notes: what the user has to know about values that the file does not state.
    strides: of the convolutions whose strides the file states, by our layers' names.
    assumed: keys of the config that the file does not state, which may be replaced.
    """

    kind: str
    values: dict
    arrays: dict[str, list[np.ndarray]]
    notes: list[str]
    strides: typing.Mapping[str, tuple[int, int]] = types.MappingProxyType({})
    assumed: tuple[str, ...] = ()


def override(imported: Imported, overrides) -> Imported:
    """The detector with `KEY=VALUE` replaced in its config. Raises ConfigError."""
    return imported._replace(values=apply_overrides(imported.values, overrides))


def check_overrides(imported: Imported, config: Config, network: ssd.SSD, path):
    """Raise ConfigError if the config contradicts what the file states about its weights.

    imported: as it was before `override`; config, network: made of it after.
    """
    stated = check_config(imported.values, str(path))
    found = meaning.differences(stated, config)
    wrong = [each for each in found if each.key not in imported.assumed]
    if wrong:
        raise ConfigError(f"--set: {meaning.explain(wrong, path)}, or leave it out")
    if "boxes.preset" in imported.assumed:
        return
    for level, map_hw in enumerate(network.map_shapes):
        if not meaning.has_same_boxes(stated, config, level, map_hw):
            raise ConfigError(f"--set: {path} states other default boxes for level {level}")


def num_classes(imported: Imported, path) -> int:
    """C, from the shapes of the heads of the first map. Raises ConfigError if they do not fit."""
    for name in ("offsets0_conv", "logits0_conv"):
        if name not in imported.arrays:
            raise ConfigError(f"{path}: expected layers of heads, {name} is missing")
    num_offsets = imported.arrays["offsets0_conv"][1].size
    num_logits = imported.arrays["logits0_conv"][1].size
    per_cell = max(num_offsets // 4, 1)
    if num_offsets % 4 or num_logits % per_cell or num_logits // per_cell < 2:
        raise ConfigError(
            f"{path}: {num_offsets} offsets and {num_logits} logits per cell of the first map do "
            "not fit together"
        )
    return num_logits // per_cell - 1


def build_network(imported: Imported, classes, path) -> tuple[Config, ssd.SSD]:
    """Our network with the detector's arrays, for some of its classes.

    classes: as label_files.read_classes gives them.
    Raises ConfigError, with the layer's name, for shapes and strides that do not fit, for values
    that are not finite, for layers that our network lacks, and for those that the detector lacks.
    """
    config = check_config(imported.values, str(path))
    network = ssd.build_model(config, len(classes))
    total = num_classes(imported, path) + 1
    rows = [0, *[entry["id"] for entry in classes]]
    arrays = {
        name: [select_rows(value, rows, total) for value in values]
        if ssd.is_class_head(name)
        else values
        for name, values in imported.arrays.items()
    }
    for layer in network.model.layers:
        if layer.weights:
            _check_shapes(layer, arrays.get(layer.name), path)
            paths = [weight.path for weight in layer.weights]
            check_finite(dict(zip(paths, arrays[layer.name], strict=True)), path)
            _check_strides(layer, imported.strides.get(layer.name), path)
            layer.set_weights(arrays[layer.name])
    ours = {layer.name for layer in network.model.layers}
    for name in arrays:
        if name not in ours:
            raise ConfigError(f"{path}: the network that this file seems to hold has no {name}")
    return config, network


def select_rows(value, rows, total):
    """Logits' kernel or bias [..., k * total] -> that of some classes [..., k * len(rows)]."""
    grouped = value.reshape(*value.shape[:-1], -1, total)
    return grouped[..., rows].reshape(*value.shape[:-1], -1)


def _check_strides(layer, strides, path):
    if strides is not None and tuple(layer.strides) != tuple(strides):
        raise ConfigError(
            f"{path}: layer {layer.name}: expected strides {tuple(layer.strides)}, got {strides}"
        )


def _check_shapes(layer, values, path):
    expected = [tuple(weight.shape) for weight in layer.weights]
    if values is None:
        raise ConfigError(
            f"{path}: layer {layer.name}: expected shapes {expected}, found no such layer"
        )
    found = [np.shape(value) for value in values]
    if found != expected:
        raise ConfigError(f"{path}: layer {layer.name}: expected shapes {expected}, got {found}")
