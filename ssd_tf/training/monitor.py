"""Reports of a running training: a progress line or bar, `metrics.csv` and TensorBoard.

`metrics.csv` has no times, so that it depends on config, data and seed only: a run that was stopped
and resumed ends with the same file as one that was not.
"""

import csv
import datetime
import io
import math
import pathlib
import time

import numpy as np
import tensorflow as tf
from absl import logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from tensorboard.compat.proto import event_pb2

from ssd_tf import files
from ssd_tf.errors import ConfigError, shorten

_LOSSES = ("loss", "classification", "localization", "l2")
_OTHERS = ("positives_per_image", "gradient_norm", "learning_rate")
_METRICS = ("AP", "AP50", "AP75")
_COLUMNS = ("step", *_LOSSES, *_OTHERS, *_METRICS)


class Monitor:
    """Writes the reports of a run; a restart drops what was reported after start_step."""

    def __init__(self, workdir, num_steps, batch_size, start_step, level_names, console=None):
        """level_names: one for each feature map. console: a rich Console; default: stderr."""
        workdir = pathlib.Path(workdir)
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._level_names = level_names
        self._csv = workdir / "metrics.csv"
        self._rows = [row for row in read_metrics(self._csv) if int(row["step"]) <= start_step]
        self._write_csv()
        self._writer = _make_writer(workdir / "tensorboard", start_step)
        self._bar = _make_bar(console or Console(stderr=True), start_step, num_steps)
        self._start = None  # time and step from which the time left is estimated
        self._step = start_step
        self.restart_clock()

    def count_steps(self, num_steps, waited):
        """Count steps that have just been made.

        waited: the seconds of them spent waiting for input, NaN if they were not measured.
        """
        self._counted += num_steps
        self._waited += waited
        self._step += num_steps

    def restart_clock(self):
        """Leave the time until now (compilation, an evaluation) out of the images per second."""
        self._clock = time.perf_counter()
        self._counted = 0
        self._waited = 0.0
        if self._start is None and self._step:
            self._start = (self._clock, self._step)

    def report_step(self, step, values):
        """Report the step that has just ended: values as the trainer gets them, by name."""
        self._step = step
        row = {"step": str(step)}
        row |= {name: str(np.float32(values[name])) for name in (*_LOSSES, *_OTHERS)}
        row |= dict.fromkeys(_METRICS, "")
        self._rows.append(row)
        with self._csv.open("a", newline="") as file:
            csv.DictWriter(file, _COLUMNS).writerow(row)
        speed = self._measure_speed()
        self._write_step(step, values, speed)
        self._show_step(step, values, speed)
        self.restart_clock()

    def report_evaluation(self, step, metrics):
        """Report what `metrics.measure` returns, in the row of the step that was evaluated."""
        coco = {name: value for name, value in metrics["coco"].items() if _is_defined(value)}
        found = {name: repr(float(coco[name])) for name in _METRICS if name in coco}
        row = next((row for row in reversed(self._rows) if row["step"] == str(step)), None)
        if row is None:
            row = dict.fromkeys(_COLUMNS, "") | {"step": str(step)}
            self._rows.append(row)
        row.update(found)
        self._write_csv()
        with self._writer.as_default(step):
            # TensorBoard sorts by name: AP, loss, and then the rest. The report has all metrics.
            for name in found:
                tf.summary.scalar(f"AP/{name}", coco[name])
            for name, values in metrics["per_class"].items():
                if _is_defined(values.get("AP", -1)):
                    tf.summary.scalar(f"per_class_AP/{name}", values["AP"])
        self._writer.flush()
        numbers = "  ".join(f"{name} {float(value):.3f}" for name, value in found.items())
        line = f"step {step}  {numbers or 'AP is undefined'}"
        if self._bar:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            logging.info("%s", line)

    def report_images(self, step, images):
        """Show Pillow images of any sizes in TensorBoard, one by one."""
        with self._writer.as_default(step):
            for index, image in enumerate(images):
                tf.summary.image(f"images/{index}", np.asarray(image)[None])
        self._writer.flush()

    def report_text(self, name, text):
        """Show Markdown in TensorBoard."""
        with self._writer.as_default(self._step):
            tf.summary.text(name, text)
        self._writer.flush()

    def measured_ap(self) -> dict[int, float]:
        """{step: AP} of the rows that have one, those from before a restart included."""
        return {int(row["step"]): float(row["AP"]) for row in self._rows if row["AP"]}

    def close(self):
        if self._bar:
            self._bar.stop()
        self._writer.close()

    def _write_csv(self):
        content = io.StringIO(newline="")
        rows = csv.DictWriter(content, _COLUMNS)
        rows.writeheader()
        rows.writerows(self._rows)
        files.write_text(self._csv, content.getvalue())

    def _measure_speed(self):
        """Images per second, and the fraction of time spent waiting for input if measured."""
        if not self._counted:  # the first call compiles
            return {}
        seconds = time.perf_counter() - self._clock
        speed = {"images_per_second": self._counted * self._batch_size / seconds}
        if not math.isnan(self._waited):
            speed["input_share"] = min(self._waited / seconds, 1.0)
        return speed

    def _seconds_left(self, step):
        """By the steps since the start, evaluations and saving included; None at first."""
        if self._start is None or step <= self._start[1]:
            return None
        seconds_per_step = (time.perf_counter() - self._start[0]) / (step - self._start[1])
        return (self._num_steps - step) * seconds_per_step

    def _write_step(self, step, values, speed):
        with self._writer.as_default(step):
            for name in _LOSSES:
                tf.summary.scalar(f"loss/{'total' if name == 'loss' else name}", values[name])
            for name in _OTHERS:
                tf.summary.scalar(f"train/{name}", values[name])
            for name, value in speed.items():
                tf.summary.scalar(f"train/{name}", value)
            levels = zip(self._level_names, values["positives_per_level"], strict=True)
            for name, value in levels:
                tf.summary.scalar(f"positives_per_level/{name}", value)
        self._writer.flush()

    def _show_step(self, step, values, speed):
        """Show the numbers beside the bar of a terminal, else as a line of log."""
        parts = []
        if speed:
            parts += [f"{speed['images_per_second']:.1f} images/s"]
        if "input_share" in speed:
            parts += [f"input {100 * speed['input_share']:.0f} %"]
        seconds_left = self._seconds_left(step)
        if seconds_left is not None:
            parts += [f"{datetime.timedelta(seconds=round(seconds_left))} left"]
        if self._bar:
            line = "  ".join([f"loss {values['loss']:.3f}", *parts])
            (task,) = self._bar.task_ids
            self._bar.update(task, completed=step, line=line)
            return
        losses = (
            f"loss {values['loss']:.3f} (class {values['classification']:.3f}, "
            f"box {values['localization']:.3f})"
        )
        rate = f"lr {values['learning_rate']:.2g}"
        logging.info("%s", "  ".join([f"step {step}/{self._num_steps}", losses, rate, *parts]))


def _make_bar(console, start_step, num_steps):
    """A progress bar that runs; None unless the console is a terminal."""
    if not console.is_terminal:
        return None
    columns = (BarColumn(bar_width=12), MofNCompleteColumn(), TextColumn("{task.fields[line]}"))
    bar = Progress(*columns, console=console)
    bar.add_task("", total=num_steps, completed=start_step, line="")
    bar.start()
    return bar


def read_metrics(path) -> list[dict]:
    """The rows of a metrics.csv as dicts of strings; none if there is no file.

    A last line that was not written completely is left out. Raises ConfigError for another file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return []
    complete, _, _ = path.read_text(errors="replace").rpartition("\n")
    rows = csv.DictReader(complete.splitlines())
    columns = tuple(rows.fieldnames or ())
    if complete and columns != _COLUMNS:
        raise ConfigError(
            f"{path}: expected the columns {','.join(_COLUMNS)}, got {shorten(','.join(columns))}: "
            "move the file away to start a new one"
        )
    return [row for row in rows if None not in row and None not in row.values()]


def _make_writer(folder, start_step):
    """TensorBoard's writer; what an earlier process wrote after start_step is to be ignored.

    TensorBoard does so at each event START but the first.
    """
    writer = tf.summary.create_file_writer(str(folder))
    session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    event = event_pb2.Event(wall_time=time.time(), step=start_step + 1, session_log=session)
    # tf.summary has no name for it. A file of its own might be read before or after the others.
    tf.raw_ops.ImportEvent(writer=writer._resource, event=event.SerializeToString())
    return writer


def _is_defined(value):
    """COCO's metrics are -1 where there is nothing to measure."""
    return math.isfinite(value) and value >= 0
