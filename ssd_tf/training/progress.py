"""How far a run is and how long it will take: beside a bar on a terminal, or as lines of log."""

import collections
import math
import sys
import time
import typing

from absl import logging
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ssd_tf.long_tasks import format_metric

_MIN_TIMED_STEPS = 3  # before a pace is stated
_NUM_INTERVALS = 10  # of which the pace is the mean
_SLOW_INPUT = 0.1  # above it waiting for input is worth a word on a terminal


class Plan(typing.NamedTuple):
    """The size of a run, and its evaluations.

    num_images: of the training split. evaluate_every: steps between evaluations; None: never.
    comparable_from: the first step whose AP was measured as it is now.
    """

    num_steps: int
    batch_size: int
    num_images: int
    evaluate_every: int | None = None
    comparable_from: int = 0

    def passes(self, step) -> float:
        """How often each image has been seen after a step, on average."""
        return step * self.batch_size / self.num_images

    def evaluations_after(self, step) -> int:
        """The number of evaluations that follow a step."""
        if self.evaluate_every is None or step >= self.num_steps:
            return 0
        last = self.num_steps - 1
        return 1 + last // self.evaluate_every - step // self.evaluate_every

    def describe(self) -> str:
        """The size in a line."""
        return (
            f"{self.num_images:,} images, {self.batch_size} per step: "
            f"{show_number(self.num_images / self.batch_size)} steps per pass, "
            f"{self.num_steps:,} steps = {show_number(self.passes(self.num_steps))} passes"
        )


class Stopwatch:
    """Times the steps and evaluations of a run, and estimates how long the rest will take."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._intervals = collections.deque(maxlen=_NUM_INTERVALS)  # (steps, seconds)
        self._evaluation_seconds = None
        self.restart()

    def restart(self):
        """Leave the time until now, such as that of compilation, out."""
        self._start = time.perf_counter()
        self._num_steps = 0
        self._waited = 0.0

    def count_steps(self, num_steps, waited):
        """Count steps that have just been made; waited: for input, seconds, or NaN."""
        self._num_steps += num_steps
        self._waited += waited

    def measure_steps(self) -> dict:
        """Images per second since the restart, and the fraction spent waiting if it is known."""
        if not self._num_steps:  # the first call compiles
            return {}
        seconds = time.perf_counter() - self._start
        self._intervals.append((self._num_steps, seconds))
        speed = {"images_per_second": self._num_steps * self._plan.batch_size / seconds}
        if not math.isnan(self._waited):
            speed["input_share"] = min(self._waited / seconds, 1.0)
        return speed

    def measure_evaluation(self):
        """Take the time since the restart as that of an evaluation, with the save before it."""
        self._evaluation_seconds = time.perf_counter() - self._start

    def seconds_per_step(self) -> float | None:
        """By the latest intervals, or by the one that has begun; None before a few steps."""
        intervals = list(self._intervals)
        if not intervals and self._num_steps >= _MIN_TIMED_STEPS:
            intervals = [(self._num_steps, time.perf_counter() - self._start)]
        if not intervals:
            return None
        counts, seconds = zip(*intervals, strict=True)
        return sum(seconds) / sum(counts)

    def seconds_left(self, step) -> float | None:
        """Of the steps and evaluations after a step; None before a few steps were timed."""
        pace = self.seconds_per_step()
        if pace is None:
            return None
        evaluations = self._plan.evaluations_after(step) * (self._evaluation_seconds or 0)
        return (self._plan.num_steps - step) * pace + evaluations

    def describe_rest(self, step) -> str:
        """The time that is left after a step, in words; empty before a few steps were timed."""
        seconds = self.seconds_left(step)
        if seconds is None:
            return ""
        text = f"about {show_seconds(seconds)} ({self.seconds_per_step():.3g} s per step)"
        num_evaluations = self._plan.evaluations_after(step)
        if num_evaluations and self._evaluation_seconds is None:
            text += f", plus {num_evaluations} evaluation" + "s" * (num_evaluations > 1)
        return text


class ProgressLine:
    """Shows a run on a bar of a terminal, else as lines of log."""

    def __init__(self, plan: Plan, start_step, console=None):
        """console: a rich Console; default: stderr."""
        self._plan = plan
        self._bar = _make_bar(console or Console(stderr=True), start_step, plan.num_steps)
        self._log = logging.get_absl_handler().python_handler
        # While there is a bar, stderr is an object that writes lines above it.
        self._log_stream = self._log.setStream(sys.stderr) if self._bar else None

    def show_line(self, line):
        """Show a line that stays."""
        if self._bar:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            logging.info("%s", line)

    def show_phase(self, text):
        """Say what takes a while now: beside the bar of a terminal, else as a line."""
        if self._bar:
            self._update(phase=text)
        else:
            logging.info("%s", text)

    def show_step(self, step, values, speed, seconds_left, best_ap):
        """Show the numbers of a step. speed: of `Stopwatch.measure_steps`. best_ap: or None."""
        parts = [f"{step * self._plan.batch_size:,} images"]
        passes = show_number(self._plan.passes(step))
        parts += [f"pass {passes} of {show_number(self._plan.passes(self._plan.num_steps))}"]
        if seconds_left is not None:
            parts += [f"{show_seconds(seconds_left)} left"]
        share = speed.get("input_share")
        if self._bar:
            parts += [] if best_ap is None else [f"AP {format_metric(best_ap)}"]
            parts += [f"loss {values['loss']:.2f}"]
            parts += [f"input {share:.0%}"] if share is not None and share > _SLOW_INPUT else []
            self._update(completed=step, phase="  ".join(parts))
            return
        line = [f"step {step}/{self._plan.num_steps}", *parts]
        line += [
            f"loss {values['loss']:.3f} (class {values['classification']:.3f}, "
            f"box {values['localization']:.3f})",
            f"lr {values['learning_rate']:.2g}",
        ]
        if speed:
            line += [f"{speed['images_per_second']:.1f} images/s"]
        if share is not None:
            line += [f"input {share:.0%}"]
        logging.info("%s", "  ".join(line))

    def close(self):
        if self._bar:
            self._bar.stop()
        if self._log_stream:
            self._log.setStream(self._log_stream)

    def _update(self, **fields):
        (task,) = self._bar.task_ids
        self._bar.update(task, refresh=True, **fields)


def show_seconds(seconds) -> str:
    """A duration in one or two units: 50 s, 44 min, 3 h 20 min, 2 d 5 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def show_number(value):
    """With one decimal below 100, unless that is 0."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}".removesuffix(".0")


def _make_bar(console, start_step, num_steps):
    """A progress bar that runs; None unless the console is a terminal."""
    if not console.is_terminal:
        return None
    bar = Progress(BarColumn(bar_width=12), TextColumn("{task.fields[phase]}"), console=console)
    bar.add_task("", total=num_steps, completed=start_step, phase="")
    bar.start()
    return bar
