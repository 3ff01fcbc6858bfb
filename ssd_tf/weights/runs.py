"""Weights of our own runs: finds, reads and assigns checkpoints."""

import pathlib
import typing

import keras
import tensorflow as tf

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


def find_checkpoint(run) -> str:
    """The prefix of a run folder's best checkpoint, else of its last.

    Raises FileNotFoundError if it has neither.
    """
    folder = pathlib.Path(run) / "checkpoints"
    for name in ("best", "last"):
        path = tf.train.latest_checkpoint(str(folder / name))
        if path is not None:
            return path
    raise FileNotFoundError(f"no checkpoint in {folder}: train with --workdir {run} first")


def read_weights(prefix) -> dict:
    """A checkpoint's arrays by variable path; averaged weights (EMA) replace the raw ones."""
    reader = tf.train.load_checkpoint(prefix)
    weights = {}
    averages = {}
    for key in reader.get_variable_to_shape_map():
        # TensorFlow escapes the slashes of variable paths as ".S".
        part, _, path = key.removesuffix(_SUFFIX).replace(".S", "/").partition("/")
        if part == "weights":
            weights[path] = reader.get_tensor(key)
        elif part == "averages":
            averages[path] = reader.get_tensor(key)
    return {**weights, **averages}


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
