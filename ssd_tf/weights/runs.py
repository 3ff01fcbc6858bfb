"""Run folders: writes one of a network, and finds and reads the weights of a trained one."""

import pathlib

import keras
import tensorflow as tf
from absl import logging

from ssd_tf import files
from ssd_tf.config import Config, save_config
from ssd_tf.errors import shorten
from ssd_tf.weights.run_files import list_checkpoints

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


class CorruptCheckpointError(ValueError):
    """A checkpoint that cannot be read; the message names it."""


def find_checkpoint(run) -> str:
    """The prefix of a run folder's best checkpoint, else of its newest; warns of corrupt ones.

    Raises FileNotFoundError if it has none, CorruptCheckpointError if none can be read.
    """
    folder = pathlib.Path(run) / "checkpoints"
    prefixes = [*list_checkpoints(folder / "best"), *list_checkpoints(folder / "last")]
    if not prefixes:
        raise FileNotFoundError(f"no checkpoint in {folder}: train with --workdir {run} first")
    return newest_intact(prefixes)


def newest_intact(prefixes) -> str:
    """The first checkpoint of a list that can be read; warns of those before it.

    Raises CorruptCheckpointError if none can.
    """
    faults = []
    for prefix in prefixes:
        try:
            read_arrays(prefix)
        except CorruptCheckpointError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            logging.warning("%s; using %s instead", fault, prefix)
        return prefix
    raise CorruptCheckpointError(
        f"{faults[0]}, and none of the {len(faults)} can be read; train again, in another --workdir"
    )


def read_arrays(prefix) -> dict:
    """Every array of a checkpoint by its key. Raises CorruptCheckpointError, in one line.

    TensorFlow compares the checksums as it reads.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    # What TensorFlow raises depends on which part is corrupt.
    except (tf.errors.OpError, ValueError, IndexError, KeyError, RuntimeError, OSError) as error:
        raise CorruptCheckpointError(
            f"the checkpoint {prefix} is corrupt ({shorten(error)})"
        ) from None


def read_weights(prefix, averaged=True) -> dict:
    """A checkpoint's arrays by variable path.

    averaged: averaged weights (EMA), if there are any, replace the raw ones.
    """
    weights = {}
    averages = {}
    for key, value in read_arrays(prefix).items():
        # TensorFlow escapes the slashes of variable paths as ".S".
        part, _, path = key.removesuffix(_SUFFIX).replace(".S", "/").partition("/")
        if part == "weights":
            weights[path] = value
        elif part == "averages":
            averages[path] = value
    return {**weights, **averages} if averaged else weights


def group_by_layer(weights, model: keras.Model) -> dict:
    """Arrays by variable path -> {layer: [arrays]}, of layers of which every variable is there."""
    arrays = {}
    for layer in model.layers:
        values = [weights.get(variable.path) for variable in layer.weights]
        if values and all(value is not None for value in values):
            arrays[layer.name] = values
    return arrays


def by_path(variables) -> dict:
    """Variables as checkpoints name them."""
    return {variable.path: variable.value for variable in variables}


def write_weights(model: keras.Model, prefix):
    """Write a checkpoint with the model's weights alone."""
    tf.train.Checkpoint(weights=by_path(model.variables)).write(str(prefix))


def write_run(config: Config, model: keras.Model, classes, output):
    """Write a run folder atomically; classes: as in dataset.json."""
    with files.new_folder(output) as folder:
        best = folder / "checkpoints" / "best"
        best.mkdir(parents=True)
        write_weights(model, best / "ckpt-0")
        content = {"version": 1, "classes": classes, "splits": {}}
        files.write_json(folder / "dataset.json", content)
        save_config(config, folder / "config.yaml")
