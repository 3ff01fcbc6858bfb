"""Checkpoints of a run, `checkpoints/last` and `checkpoints/best`, written atomically."""

import contextlib
import pathlib

import tensorflow as tf


class Checkpoints:
    """The state of a run: step, best AP, weights, averaged weights (EMA), optimizer variables."""

    def __init__(self, workdir, model, optimizer):
        self.step = tf.Variable(0, dtype=tf.int64, name="step")
        self.best_ap = tf.Variable(-1.0, dtype=tf.float32, name="best_ap")
        self._model = model
        self._averages = _averages_by_path(model, optimizer)
        self._checkpoint = tf.train.Checkpoint(
            step=self.step,
            best_ap=self.best_ap,
            weights={variable.path: variable.value for variable in model.variables},
            averages={path: average.value for path, average in self._averages.items()},
            optimizer={variable.path: variable.value for variable in optimizer.variables},
        )
        folder = pathlib.Path(workdir) / "checkpoints"
        # The manager writes a new checkpoint beside the old one, then renames a small file that
        # points to it.
        self._managers = {
            name: tf.train.CheckpointManager(self._checkpoint, str(folder / name), max_to_keep=1)
            for name in ("last", "best")
        }

    def restore_last(self) -> bool:
        """Restore the last checkpoint; return False if there is none."""
        path = self._managers["last"].latest_checkpoint
        if path is None:
            return False
        self._checkpoint.restore(path).assert_consumed()
        return True

    def save(self, name):
        """Save the state as `last` or `best`."""
        self._managers[name].save(checkpoint_number=int(self.step))

    @contextlib.contextmanager
    def averaged_weights(self):
        """Inside, give the model its averaged weights if EMA is on; afterwards, the raw ones."""
        averaged = [v for v in self._model.trainable_variables if v.path in self._averages]
        raw_values = [variable.numpy() for variable in averaged]
        for variable in averaged:
            variable.assign(self._averages[variable.path].numpy())
        try:
            yield
        finally:
            for variable, value in zip(averaged, raw_values, strict=True):
                variable.assign(value)


def _averages_by_path(model, optimizer):
    """The averaged weights by path of the model's variable; empty without EMA."""
    if not optimizer.use_ema:
        return {}
    # Keras has no public name for them: `finalize_variable_values` only copies them into the model.
    averages = optimizer._model_variables_moving_average
    return {
        variable.path: average
        for variable, average in zip(model.trainable_variables, averages, strict=True)
    }
