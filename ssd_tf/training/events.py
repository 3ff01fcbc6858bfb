"""What happens between steps: reports, saves and evaluations, and profiles."""

import contextlib
import dataclasses
import pathlib
import re
import shlex
import typing

import tensorflow as tf
from absl import logging

from ssd_tf.config import Config
from ssd_tf.errors import ConfigError

_DEFAULT_EVALUATIONS = 10  # per run


class Actions(typing.NamedTuple):
    """What to do after a step, in this order."""

    report: bool
    save: bool
    evaluate: bool


@dataclasses.dataclass(frozen=True)
class Timetable:
    """The actions after each step, at multiples of intervals; the last step has all of them.

    evaluate_every: None without evaluation. others: further steps at which a call of the training
    function must end.
    """

    num_steps: int
    report_every: int
    save_every: int
    evaluate_every: int | None
    others: tuple[int, ...] = ()

    def actions(self, step) -> Actions:
        """An evaluation needs a save, and a save a report."""
        last = step == self.num_steps
        evaluate = self.evaluate_every is not None and (last or step % self.evaluate_every == 0)
        save = last or evaluate or step % self.save_every == 0
        return Actions(save or step % self.report_every == 0, save, evaluate)

    def next_stop(self, step) -> int:
        """The first step after this one that an action follows."""
        intervals = [self.report_every, self.save_every, self.evaluate_every or self.save_every]
        stops = [(step // interval + 1) * interval for interval in intervals]
        stops += [other for other in self.others if other > step]
        return min(self.num_steps, *stops)


def evaluation_interval(config: Config, num_images) -> int:
    """The steps between evaluations that eval.every stands for; by default a tenth of the run.

    num_images: of the training split, for intervals in epochs.
    """
    every = config.eval.every
    if every is None:
        return max(config.train.steps // _DEFAULT_EVALUATIONS, 1)
    if isinstance(every, int):
        return every
    epochs = float(every.split()[0])
    return max(round(epochs * num_images / config.train.batch_size), 1)


@dataclasses.dataclass
class Profiler:
    """Records the steps from `first` to `last` into a folder of TensorBoard.

    A run that resumes after the first of them records nothing.
    """

    folder: pathlib.Path
    first: int
    last: int
    _is_recording: bool = False

    @classmethod
    def parse(cls, text, num_steps, folder):
        """The Profiler of "A:B". Raises ConfigError unless 1 <= A <= B <= num_steps."""
        match = re.fullmatch(r"(\d+):(\d+)", text)
        first, last = (int(part) for part in match.groups()) if match else (0, 0)
        if not 1 <= first <= last <= num_steps:
            raise ConfigError(
                f"--profile_steps: expected A:B with 1 <= A <= B <= {num_steps} (train.steps), "
                f"got {text!r}; e.g. 20:25"
            )
        return cls(folder, first, last)

    @contextlib.contextmanager
    def watch(self, step, end):
        """Inside, the steps after `step` up to `end` run."""
        if step == self.first - 1:
            tf.profiler.experimental.start(str(self.folder))
            self._is_recording = True
        yield
        if end == self.last and self._is_recording:
            tf.profiler.experimental.stop()
            self._is_recording = False
            logging.info(
                "profile of steps %d to %d written: pip install tensorboard-plugin-profile, then "
                "tensorboard --logdir %s (tab Profile)",
                self.first,
                self.last,
                shlex.quote(str(self.folder)),
            )
