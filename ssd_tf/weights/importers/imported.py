"""A third-party detector in the terms of our model, and the network made of it.

Shapes: `C` foreground classes.
"""

import types
import typing

import numpy as np

from ssd_tf.config import Config, check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.weights import meaning
from ssd_tf.weights.assign import assign, split_rows


class Imported(typing.NamedTuple):
    """A detector as an importer gives it.

    kind: of the source, for messages.
    values: sections of the config.
    arrays: by our layers' names, in the order of Layer.weights.
    notes: for the user, about values that the file does not state.
    strides: of the convolutions whose strides the file states, by our layers' names.
    assumed: keys of the config that the file does not state, which may be replaced.
    """

    kind: str
    values: dict
    arrays: dict[str, list[np.ndarray]]
    notes: list[str]
    strides: typing.Mapping[str, tuple[int, int]] = types.MappingProxyType({})
    assumed: tuple[str, ...] = ()


def check_overrides(imported: Imported, config: Config, network: ssd.SSD, path):
    """Raise ConfigError if a config contradicts what the file states about its weights.

    config, network: of the detector with `--set`.
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
        if name not in imported.arrays or imported.arrays[name][0].ndim != 4:
            raise ConfigError(f"{path}: expected convolutions as heads, {name} is missing")
    num_offsets = imported.arrays["offsets0_conv"][0].shape[3]
    num_logits = imported.arrays["logits0_conv"][0].shape[3]
    per_cell = max(num_offsets // 4, 1)
    if num_offsets % 4 or num_logits % per_cell or num_logits // per_cell < 2:
        raise ConfigError(
            f"{path}: {num_offsets} offsets and {num_logits} logits per cell of the first map do "
            "not fit together"
        )
    return num_logits // per_cell - 1


def build_network(imported: Imported, config: Config, classes, path) -> ssd.SSD:
    """Our network with the detector's arrays, for some of its classes.

    classes: as label_files.read_classes gives them.
    Raises ConfigError, with the layer's name, for shapes and strides that do not fit, for values
    that are not finite, for layers that our network lacks, and for those that the detector lacks.
    """
    network = ssd.build_model(config, len(classes))
    num_rows = num_classes(imported, path) + 1
    rows = [0, *[entry["id"] for entry in classes]]
    arrays = {
        name: [_select_rows(value, rows, num_rows) for value in values]
        if ssd.is_class_head(name)
        else values
        for name, values in imported.arrays.items()
    }
    assign(network.model, arrays, path, exact=True)
    for name, found in imported.strides.items():
        expected = tuple(network.model.get_layer(name).strides)
        if expected != tuple(found):
            raise ConfigError(f"{path}: layer {name}: expected strides {expected}, got {found}")
    return network


def _select_rows(value, rows, num_rows):
    """Kernel or bias of a class head [..., k * num_rows] -> that of some classes."""
    if value.ndim == 0 or value.shape[-1] % num_rows:
        return value  # it does not fit the layer, which is found out later
    return split_rows(value, num_rows)[..., rows].reshape(*value.shape[:-1], -1)
