"""Weights of our own runs: finds, reads and assigns checkpoints."""

import pathlib
import typing

import keras
import tensorflow as tf
from absl import logging

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


class Mismatch(typing.NamedTuple):
    """A variable of the model that the checkpoint has no fitting array for.

    found: the shape of the array with its path, or None if there is no such array.
    """

    variable: keras.Variable
    found: tuple[int, ...] | None

    def __str__(self):
        found = "nothing" if self.found is None else f"shape {self.found}"
        expected = tuple(self.variable.shape)
        return f"{self.variable.path}: expected shape {expected}, got {found}"


class DamagedCheckpointError(ValueError):
    """A checkpoint that cannot be read; the message names it."""


def find_checkpoint(run) -> str:
    """The prefix of a run folder's best checkpoint, else of its newest; damaged ones are named.

    Raises FileNotFoundError if it has none, DamagedCheckpointError if none can be read.
    """
    folder = pathlib.Path(run) / "checkpoints"
    prefixes = [*list_checkpoints(folder / "best"), *list_checkpoints(folder / "last")]
    if not prefixes:
        raise FileNotFoundError(f"no checkpoint in {folder}: train with --workdir {run} first")
    return newest_sound(prefixes)


def list_checkpoints(folder) -> list[str]:
    """The prefixes of the checkpoints of a folder, the newest first."""
    paths = pathlib.Path(folder).glob("ckpt-*.index")
    prefixes = [str(path.with_suffix("")) for path in paths if path.stem[5:].isdigit()]
    return sorted(prefixes, key=step_of, reverse=True)


def step_of(prefix) -> int:
    """The step of a checkpoint, from its name."""
    return int(prefix.rpartition("-")[2])


def newest_sound(prefixes) -> str:
    """The first checkpoint of a list that can be read; a warning names those before it.

    Raises DamagedCheckpointError if none can.
    """
    damages = []
    for prefix in prefixes:
        try:
            read_arrays(prefix)
        except DamagedCheckpointError as error:
            damages.append(str(error))
            continue
        for damage in damages:
            logging.warning("%s; using %s instead", damage, prefix)
        return prefix
    raise DamagedCheckpointError(
        f"{damages[0]}, and none of the {len(damages)} can be read; "
        "train again, in another --workdir"
    )


def read_arrays(prefix) -> dict:
    """Every array of a checkpoint by its key. Raises DamagedCheckpointError, in one line.

    TensorFlow compares the checksums as it reads.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    # What TensorFlow raises depends on which part is damaged.
    except (tf.errors.OpError, ValueError, IndexError, KeyError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedCheckpointError(f"the checkpoint {prefix} is damaged ({reason})") from None


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


def write_weights(model, prefix):
    """Write a checkpoint with the model's weights alone."""
    tf.train.Checkpoint(weights=by_path(model.variables)).write(str(prefix))


def by_path(variables) -> dict:
    """Variables as checkpoints name them."""
    return {variable.path: variable.value for variable in variables}


def assign_weights(model, weights, allow_partial=False) -> list[Mismatch]:
    """Assign arrays to the model's variables by path; returns those that keep their values.

    Raises ValueError if nothing fits, or if anything does not and allow_partial is false.
    """
    mismatches = []
    fitting = []
    for variable in model.variables:
        value = weights.get(variable.path)
        if value is not None and value.shape == tuple(variable.shape):
            fitting.append((variable, value))
        else:
            mismatches.append(Mismatch(variable, None if value is None else value.shape))
    if not fitting or (mismatches and not allow_partial):
        raise ValueError(
            f"the checkpoint does not fit the model: {mismatches[0]} "
            f"({len(mismatches)} of {len(model.variables)} variables)"
        )
    for variable, value in fitting:
        variable.assign(value)
    return mismatches
