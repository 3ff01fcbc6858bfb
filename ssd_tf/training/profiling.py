"""`train.py --profile_steps A:B`: a profile of some steps, for TensorBoard."""

import contextlib
import re

import tensorflow as tf
from absl import logging

from ssd_tf.errors import ConfigError


def parse_steps(text, num_steps) -> tuple[int, int]:
    """ "A:B" as two steps. Raises ConfigError unless 1 <= A <= B <= num_steps."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, last = (int(part) for part in match.groups()) if match else (0, 0)
    if not 1 <= first <= last <= num_steps:
        raise ConfigError(
            f"--profile_steps: expected A:B with 1 <= A <= B <= {num_steps} (train.steps), "
            f"got {text!r}; e.g. 20:25"
        )
    return first, last


class Profiler:
    """Records the steps from `first` to `last` into the run's TensorBoard folder."""

    def __init__(self, workdir, first, last):
        self._folder = workdir / "tensorboard"
        self._first = first
        self._last = last

    @property
    def boundaries(self) -> list[int]:
        """Steps after which a call of the training function must end."""
        return [self._first - 1, self._last]

    @contextlib.contextmanager
    def watch(self, step, end):
        """Inside, the steps after `step` up to `end` run."""
        if step == self._first - 1:
            tf.profiler.experimental.start(str(self._folder))
        yield
        if end == self._last:
            tf.profiler.experimental.stop()
            logging.info(
                "profile of steps %d to %d written: pip install tensorboard-plugin-profile, then "
                "tensorboard --logdir %s (tab Profile)",
                self._first,
                self._last,
                self._folder,
            )
