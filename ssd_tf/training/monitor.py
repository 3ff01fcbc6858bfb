"""Reports of a running training: the terminal, `metrics.csv`, TensorBoard and `live.html`.

`metrics.csv` has no times, so that it depends on config, data and seed only: a run that was stopped
and resumed ends with the same file as one that was not.
"""

import csv
import io
import math
import pathlib
import time

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import event_pb2

from ssd_tf import files
from ssd_tf.draw import side_by_side
from ssd_tf.errors import ConfigError, Interrupted, shorten
from ssd_tf.long_tasks import format_metric
from ssd_tf.training.live_page import LivePage, Numbers
from ssd_tf.training.progress import Plan, ProgressLine, Stopwatch
from ssd_tf.weights import run_files

_LOSSES = ("loss", "classification", "localization", "l2")
_OTHERS = ("positives_per_image", "gradient_norm", "learning_rate")
METRICS = ("AP", "AP50", "AP75")
_COLUMNS = ("step", *_LOSSES, *_OTHERS, *METRICS)


class Monitor:
    """Writes the reports of a run; a restart drops what was reported after start_step.

    As a context it says on the page how the run ended.
    """

    def __init__(self, workdir, plan: Plan, start_step, level_names, console=None, config=None):
        """level_names: one for each feature map. console: a rich Console; default: stderr.

        config: of the run, for its page; None: without a page.
        """
        workdir = pathlib.Path(workdir)
        self._plan = plan
        self._level_names = level_names
        self._csv = workdir / "metrics.csv"
        self._rows = [row for row in read_metrics(self._csv) if int(row["step"]) <= start_step]
        self._write_csv()
        self._writer = _make_writer(workdir / "tensorboard", start_step)
        self._line = ProgressLine(plan, start_step, console)
        self._page = LivePage(workdir, plan, config, start_step) if config else None
        self._stopwatch = Stopwatch(plan)
        self._speed = {}
        self._has_told_rest = False
        self._step = start_step

    def __enter__(self):
        self._line.show_line(self._plan.describe())
        if self._page:
            self._line.show_line(f"watch the run in a browser: {self._page.path}")
        return self

    def __exit__(self, _kind, error, _traceback):
        state = "finished"
        if error is not None:
            name = "stopped" if isinstance(error, (Interrupted, KeyboardInterrupt)) else "failed"
            state = f"{name} after step {self._step}: {shorten(error) or type(error).__name__}"
        try:
            self._write_page(state, has_ended=True)
        finally:
            self.close()

    def show_phase(self, text):
        """Say what takes a while now."""
        self._line.show_phase(text)
        self._write_page(text)

    def count_steps(self, num_steps, waited):
        """Count steps that have just been made.

        waited: the seconds of them spent waiting for input, NaN if they were not measured. As soon
        as the pace is known, the time that the run will take is shown.
        """
        self._stopwatch.count_steps(num_steps, waited)
        self._step += num_steps
        if not self._has_told_rest and (text := self._stopwatch.describe_rest(self._step)):
            self._has_told_rest = True
            self._line.show_line(f"time left: {text}")

    def restart_clock(self, step=None):
        """Leave the time until now (compilation, an evaluation) out of the images per second.

        step: the one that has been reached meanwhile, if it is another.
        """
        self._stopwatch.restart()
        if step is not None:
            self._step = step

    def report_step(self, step, values):
        """Report the step that has just ended: values as the trainer gets them, by name."""
        self._step = step
        row = {"step": str(step)}
        row |= {name: str(np.float32(values[name])) for name in (*_LOSSES, *_OTHERS)}
        row |= dict.fromkeys(METRICS, "")
        self._rows.append(row)
        with self._csv.open("a", newline="") as file:
            csv.DictWriter(file, _COLUMNS).writerow(row)
        self._speed = self._stopwatch.measure_steps()
        self._write_step(step, values, self._speed)
        numbers = self._numbers()
        best_ap = numbers.best and numbers.best[1]
        self._line.show_step(step, values, self._speed, numbers.seconds_left, best_ap)
        if self._page:
            self._page.write_if_due(numbers, self._rows)
        self.restart_clock()

    def report_evaluation(self, step, metrics, note=""):
        """Report what `metrics.measure` returns, in the row of the step that was evaluated.

        note: what to say about it on the terminal.
        """
        coco = {name: value for name, value in metrics["coco"].items() if _is_defined(value)}
        found = {name: repr(float(coco[name])) for name in METRICS if name in coco}
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
        numbers = [f"{name} {format_metric(float(value))}" for name, value in found.items()]
        parts = [f"step {step}", *(numbers or ["AP is undefined"]), note]
        self._line.show_line("  ".join(filter(None, parts)))
        self._stopwatch.measure_evaluation()
        self._write_page("training")

    def report_images(self, step, images):
        """Show HeldOuts in TensorBoard, one by one, and keep them for the page."""
        with self._writer.as_default(step):
            for index, image in enumerate(images, start=1):
                joined = side_by_side(image.truth, image.found)
                tf.summary.image(f"images/{index} {image.name}", np.asarray(joined)[None])
        self._writer.flush()
        if self._page:
            self._page.keep_images(step, images, self._best_steps())

    def report_text(self, name, text):
        """Show Markdown in TensorBoard."""
        with self._writer.as_default(self._step):
            tf.summary.text(name, text)
        self._writer.flush()

    def measured_ap(self) -> dict[int, float]:
        """{step: AP} of the rows that have one, those from before a restart included."""
        return {int(row["step"]): float(row["AP"]) for row in self._rows if row["AP"]}

    def comparable_ap(self) -> dict[int, float]:
        """{step: AP} of the evaluations with the current settings."""
        first = self._plan.comparable_from
        return {step: ap for step, ap in self.measured_ap().items() if step >= first}

    def best_step(self) -> int | None:
        """The first step with the highest comparable AP; None if nothing was measured."""
        return next(reversed(self._best_steps()), None)

    def close(self):
        self._line.close()
        self._writer.close()

    def _best_steps(self):
        """The steps that had the highest AP when they were evaluated, in order."""
        best_steps = []
        highest = -math.inf
        for step, ap in sorted(self.comparable_ap().items()):
            if ap > highest:
                highest = ap
                best_steps.append(step)
        return best_steps

    def _numbers(self):
        """The Numbers of the page."""
        best_step = self.best_step()
        best = None if best_step is None else (best_step, self.comparable_ap()[best_step])
        left = self._stopwatch.seconds_left(self._step)
        return Numbers(self._step, self._speed, left, best)

    def _write_page(self, state, has_ended=False):
        if self._page:
            self._page.write(state, self._numbers(), self._rows, has_ended)

    def _write_csv(self):
        content = io.StringIO(newline="")
        rows = csv.DictWriter(content, _COLUMNS)
        rows.writeheader()
        rows.writerows(self._rows)
        files.write_text(self._csv, content.getvalue())

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


def read_metrics(path) -> list[dict]:
    """The rows of a metrics.csv as dicts of strings; none if there is no file.

    A last line that was not written completely is left out. Raises ConfigError for another file.
    """
    columns, rows = run_files.read_rows(pathlib.Path(path))
    if columns not in (None, _COLUMNS):
        raise ConfigError(
            f"{path}: expected the columns {','.join(_COLUMNS)}, got {shorten(','.join(columns))}: "
            "move the file away to start a new one"
        )
    return rows


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
