"""Checkpoints of a run: `checkpoints/last` and `checkpoints/best`, whole or not at all."""

import pathlib

import tensorflow as tf

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


class Checkpoints:
    """Writes and reads the state of a run: step, best AP, weights, their averages (EMA) and the optimizer's variables."""

    def __init__(self, workdir, model, optimizer):
        self.step = tf.Variable(0, dtype=tf.int64, name="step")
        self.best_ap = tf.Variable(-1.0, dtype=tf.float32, name="best_ap")
        averages = average_variables(model, optimizer)
        parts = {"step": self.step, "best_ap": self.best_ap}
        for name, variables in (
            ("weights", model.variables),
            ("averages", averages),
            ("optimizer", optimizer.variables),
        ):
            by_path = variables if isinstance(variables, dict) else {v.path: v for v in variables}
            parts[name] = {path: variable.value for path, variable in by_path.items()}
        checkpoint = tf.train.Checkpoint(**parts)
        folder = pathlib.Path(workdir) / "checkpoints"
        # The manager writes a new checkpoint beside the old one and switches by renaming a small file.
        self._managers = {
            name: tf.train.CheckpointManager(checkpoint, str(folder / name), max_to_keep=1)
            for name in ("last", "best")
        }
        self._checkpoint = checkpoint

    def restore_last(self) -> bool:
        """Goes back to the last checkpoint; False where there is none."""
        path = self._managers["last"].latest_checkpoint
        if path is None:
            return False
        self._checkpoint.restore(path).assert_consumed()
        return True

    def save(self, name):
        """Saves as `last` or `best`."""
        self._managers[name].save(checkpoint_number=int(self.step))


def find_checkpoint(run) -> str:
    """The prefix of a run folder's best checkpoint, else of its last. Raises FileNotFoundError where it has none."""
    folder = pathlib.Path(run) / "checkpoints"
    for name in ("best", "last"):
        path = tf.train.latest_checkpoint(str(folder / name))
        if path is not None:
            return path
    raise FileNotFoundError(f"no checkpoint under {folder}: train with --workdir {run} first")


def read_weights(prefix) -> dict:
    """A checkpoint's weights as arrays by variable path, averaged ones (EMA) in place of the raw where there are any."""
    reader = tf.train.load_checkpoint(prefix)
    weights, averages = {}, {}
    for key in reader.get_variable_to_shape_map():
        part, _, path = key.removesuffix(_SUFFIX).replace(".S", "/").partition("/")
        if part == "weights":
            weights[path] = reader.get_tensor(key)
        elif part == "averages":
            averages[path] = reader.get_tensor(key)
    return {**weights, **averages}


def assign_weights(model, weights, allow_partial=False):
    """Puts arrays by path into the model; returns the paths that did not fit.

    Raises ValueError where something is left out and allow_partial is false, or where nothing fits at all.
    """
    left_out, fitting = [], []
    for variable in model.variables:
        value = weights.get(variable.path)
        if value is None or value.shape != tuple(variable.shape):
            found = "nothing" if value is None else f"shape {value.shape}"
            left_out.append(
                f"{variable.path} wants shape {tuple(variable.shape)}, the checkpoint has {found}"
            )
        else:
            fitting.append((variable, value))
    if not fitting or (left_out and not allow_partial):
        raise ValueError(
            f"the checkpoint does not fit the model: {left_out[0]} ({len(left_out)} of {len(model.variables)})"
        )
    for variable, value in fitting:
        variable.assign(value)
    return left_out


def average_variables(model, optimizer):
    if not optimizer.use_ema:
        return {}
    pairs = zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True)
    return {variable.path: average for variable, average in pairs}
