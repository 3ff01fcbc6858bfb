"""What an importer of other people's detectors gives, and our network made of it.

Shapes: `C` foreground classes.
"""

import typing

import numpy as np

from ssd_tf.config import Config, ConfigError, check_config
from ssd_tf.config_files import apply_overrides
from ssd_tf.models import ssd


class Imported(typing.NamedTuple):
    """A detector in the terms of our model.

    kind: of the source, for messages.
    values: sections of the config.
    arrays: by our layers' names, in the order of Layer.set_weights.
    notes: what the user has to know about values that the file does not state.
    """

    kind: str
    values: dict
    arrays: dict[str, list[np.ndarray]]
    notes: list[str]


def override(imported: Imported, overrides) -> Imported:
    """The detector with `KEY=VALUE` replaced in its config. Raises ConfigError."""
    return imported._replace(values=apply_overrides(imported.values, overrides))


def num_classes(imported: Imported, path) -> int:
    """C, from the shapes of the heads of the first map. Raises ConfigError if they do not fit."""
    num_offsets = imported.arrays["offsets0_conv"][1].size
    num_logits = imported.arrays["logits0_conv"][1].size
    per_cell = num_offsets // 4
    if num_offsets % 4 or num_logits % per_cell or num_logits // per_cell < 2:
        raise ConfigError(
            f"{path}: {num_offsets} offsets and {num_logits} logits per cell of the first map do "
            "not fit together"
        )
    return num_logits // per_cell - 1


def build_network(imported: Imported, classes, path) -> tuple[Config, ssd.SSD]:
    """Our network with the detector's arrays, for some of its classes.

    classes: as label_files.read_classes gives them.
    Raises ConfigError, with the layer's name, for shapes that do not fit, for layers that our
    network lacks, and for those that the detector lacks.
    """
    config = check_config(imported.values, str(path))
    network = ssd.build_model(config, len(classes))
    total = num_classes(imported, path) + 1
    rows = [0, *[entry["id"] for entry in classes]]
    arrays = {
        name: [select_rows(value, rows, total) for value in values]
        if is_class_head(name)
        else values
        for name, values in imported.arrays.items()
    }
    for layer in network.model.layers:
        if layer.weights:
            _check_shapes(layer, arrays.get(layer.name), path)
            layer.set_weights(arrays[layer.name])
    ours = {layer.name for layer in network.model.layers}
    for name in arrays:
        if name not in ours:
            raise ConfigError(f"{path}: the network that this file seems to hold has no {name}")
    return config, network


def is_class_head(name) -> bool:
    """Whether the layer of that name gives logits."""
    return name.startswith(ssd.CLASS_HEAD_PREFIX) and name.endswith("_conv")


def select_rows(value, rows, total):
    """Logits' kernel or bias [..., k * total] -> that of some classes [..., k * len(rows)]."""
    grouped = value.reshape(*value.shape[:-1], -1, total)
    return grouped[..., rows].reshape(*value.shape[:-1], -1)


def _check_shapes(layer, values, path):
    expected = [tuple(weight.shape) for weight in layer.weights]
    if values is None:
        raise ConfigError(
            f"{path}: layer {layer.name}: expected shapes {expected}, found no such layer"
        )
    found = [np.shape(value) for value in values]
    if found != expected:
        raise ConfigError(f"{path}: layer {layer.name}: expected shapes {expected}, got {found}")
