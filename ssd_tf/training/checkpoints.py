"""Checkpoints of a run: `checkpoints/last`, of which the newest few are kept, and one `best`."""

import pathlib
import shutil

import numpy as np
import tensorflow as tf
from absl import logging

from ssd_tf.errors import ConfigError
from ssd_tf.training.state import TrainState
from ssd_tf.weights import run_files, runs

# No trained network has a larger weight, and its square still fits float32.
_MAX_WEIGHT = 1e10


class Checkpoints:
    """Saves and restores the step, weights, averaged weights (EMA) and optimizer variables.

    A checkpoint is `ckpt-STEP.index`, which TensorFlow writes last, and its data file.
    """

    def __init__(self, workdir, state: TrainState, keep):
        """keep: how many of `last` to keep, at least 2."""
        self._state = state
        self._keep = keep
        self._folder = pathlib.Path(workdir) / "checkpoints"
        self._checkpoint = tf.train.Checkpoint(
            step=state.step,
            weights=runs.by_path(state.network.model.variables),
            averages=state.averages.by_path if state.averages else {},
            optimizer=runs.by_path(state.optimizer.variables),
        )

    def restore_last(self) -> bool:
        """Restore the newest intact checkpoint; return False if there is none at all.

        A warning names a corrupt one, and the one before it is used. Raises ValueError if all are
        corrupt.
        """
        prefixes = run_files.list_checkpoints(self._folder / "last")
        if not prefixes:
            return False
        prefix = runs.newest_intact(prefixes)
        try:
            self._checkpoint.read(prefix).assert_consumed()
        except AssertionError:
            raise ConfigError(
                f"{prefix} was saved by another version of this package: use another --workdir, "
                "where init_from reuses its weights"
            ) from None
        return True

    def newest_step(self, up_to) -> int | None:
        """The newest step up to a given one that has a checkpoint, intact or not."""
        return next((step for step in self._steps() if step <= up_to), None)

    def delete_after(self, step):
        """Delete checkpoints of later steps: corrupt ones, or those of a run that diverged."""
        for prefix in run_files.list_checkpoints(self._folder / "last"):
            if run_files.step_of(prefix) > step:
                logging.warning("deleting %s, which cannot be used", prefix)
                _delete(prefix)

    def save_last(self):
        """Save the state as the newest of `last`, then delete all but the newest few.

        Raises OSError with one line if it cannot be written; the older ones stay.
        """
        folder = self._folder / "last"
        step = self._state.num_updates
        folder.mkdir(parents=True, exist_ok=True)
        prefix = str(folder / f"ckpt-{step}")
        try:
            self._checkpoint.write(prefix)
        except (tf.errors.OpError, OSError) as error:
            _delete(prefix)
            _delete_leftovers(folder)
            reason = " ".join(str(getattr(error, "message", error)).split())[:160]
            kept = [f"; the checkpoint of step {other} stays" for other in self._steps()[:1]]
            raise OSError(
                f"cannot write the checkpoint of step {step} to {folder} ({reason}); free some "
                f"space there and run the same command again{''.join(kept)}"
            ) from None
        for old in run_files.list_checkpoints(folder)[self._keep :]:
            _delete(old)
        _delete_leftovers(folder)

    def copy_to_best(self):
        """Make the newest of `last` the only `best`, unless it is already."""
        (newest, *_) = run_files.list_checkpoints(self._folder / "last")
        folder = self._folder / "best"
        if run_files.step_of(newest) in map(run_files.step_of, run_files.list_checkpoints(folder)):
            return
        folder.mkdir(parents=True, exist_ok=True)
        # The index last: without it there is no checkpoint.
        for path in sorted(_files_of(newest), key=lambda path: path.suffix == ".index"):
            temporary = folder / f"{path.name}.tmp"
            shutil.copyfile(path, temporary)
            temporary.replace(folder / path.name)
        for old in run_files.list_checkpoints(folder):
            if run_files.step_of(old) != run_files.step_of(newest):
                _delete(old)

    def _steps(self):
        """The steps of `last`, the newest first."""
        prefixes = run_files.list_checkpoints(self._folder / "last")
        return [run_files.step_of(prefix) for prefix in prefixes]

    def find_bad_variable(self) -> str | None:
        """Name a variable of the model or the optimizer that is not finite, or a huge weight."""
        variables = [*self._state.network.model.variables, *self._state.optimizer.variables]
        for variable in variables:
            largest = float(np.abs(variable.numpy()).max(initial=0))  # of any NaN: NaN
            limit = _MAX_WEIGHT if variable.trainable else np.finfo(np.float32).max
            if not largest <= limit:
                return f"{variable.path} has a value of {largest:.3g}"
        return None


def _files_of(prefix):
    prefix = pathlib.Path(prefix)
    return [path for path in prefix.parent.glob(f"{prefix.name}.*") if path.suffix != ".tmp"]


def _delete(prefix):
    """The index first: a checkpoint without data must not look like one."""
    for path in sorted(_files_of(prefix), key=lambda path: path.suffix != ".index"):
        path.unlink(missing_ok=True)


def _delete_leftovers(folder):
    """What a save that was cut off leaves: TensorFlow writes below ckpt-STEP_temp first."""
    for path in folder.glob("ckpt-*_temp*"):
        shutil.rmtree(path, ignore_errors=True)
