"""Run folders: writes one of a network, and finds and reads the checkpoints of a trained one."""

import csv
import pathlib
import typing

import keras
import tensorflow as tf
from absl import logging

from ssd_tf import files
from ssd_tf.config import Config, save_config
from ssd_tf.errors import shorten

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


class CorruptCheckpointError(ValueError):
    """A checkpoint that cannot be read; the message names it."""


class Peak(typing.NamedTuple):
    """When the AP of a training was best.

    best, last: the steps of the best AP and of the last evaluation; num_later: how many evaluations
    came after the best one.
    """

    best: int
    last: int
    num_later: int


def find_checkpoint(run) -> str:
    """The prefix of a run folder's best checkpoint, else of its newest; warns of corrupt ones.

    Raises FileNotFoundError if it has none, CorruptCheckpointError if none can be read.
    """
    folder = pathlib.Path(run) / "checkpoints"
    prefixes = [*list_checkpoints(folder / "best"), *list_checkpoints(folder / "last")]
    if not prefixes:
        raise FileNotFoundError(f"no checkpoint in {folder}: train with --workdir {run} first")
    return newest_intact(prefixes)


def find_peak(run) -> Peak | None:
    """The Peak of a run; None if no AP above 0 was measured in its training."""
    run = pathlib.Path(run)
    _, rows = read_rows(run / "metrics.csv")
    measured = {int(row["step"]): float(row["AP"]) for row in rows if row.get("AP")}
    for prefix in list_checkpoints(run / "checkpoints" / "best")[:1]:
        best = step_of(prefix)
        if measured.get(best, 0.0) > 0:
            return Peak(best, max(measured), sum(step > best for step in measured))
    return None


def read_rows(path) -> tuple[tuple[str, ...], list[dict]]:
    """The columns of a metrics.csv and its rows as dicts of strings; none if there is no file.

    What was not written completely is left out.
    """
    if not path.is_file():
        return (), []
    complete, _, _ = path.read_text(errors="replace").rpartition("\n")
    rows = csv.DictReader(complete.splitlines())
    columns = tuple(rows.fieldnames or ())
    return columns, [row for row in rows if None not in row and None not in row.values()]


def list_checkpoints(folder) -> list[str]:
    """The prefixes of the checkpoints of a folder, the newest first."""
    paths = pathlib.Path(folder).glob("ckpt-*.index")
    prefixes = [str(path.with_suffix("")) for path in paths if path.stem[5:].isdigit()]
    return sorted(prefixes, key=step_of, reverse=True)


def step_of(prefix) -> int:
    """The step of a checkpoint, from its name."""
    return int(prefix.rpartition("-")[2])


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
