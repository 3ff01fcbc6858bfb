"""Checkpoints of a run: `checkpoints/last` and `checkpoints/best`, whole or not at all."""

import pathlib

import tensorflow as tf


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


def average_variables(model, optimizer):
    if not optimizer.use_ema:
        return {}
    pairs = zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True)
    return {variable.path: average for variable, average in pairs}
