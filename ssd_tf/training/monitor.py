"""What a run tells while it goes: a progress line, `metrics.csv` and TensorBoard."""

import csv
import pathlib
import time

import numpy as np
import tensorflow as tf
from absl import logging
from rich.console import Console

_COLUMNS = (
    "step",
    "loss",
    "classification",
    "localization",
    "positives",
    "learning_rate",
    "images_per_second",
    "AP",
    "AP50",
)


class Monitor:
    """Reports numbers by step; on a restart, rows of metrics.csv from after the restored step are dropped."""

    def __init__(self, workdir, total_steps, start_step):
        workdir = pathlib.Path(workdir)
        self._total, self._console = total_steps, Console(stderr=True)
        self._writer = tf.summary.create_file_writer(str(workdir / "tensorboard"))
        self._csv = workdir / "metrics.csv"
        kept = [row for row in read_metrics(self._csv) if int(row["step"]) <= start_step]
        with self._csv.open("w", newline="") as file:
            rows = csv.DictWriter(file, _COLUMNS)
            rows.writeheader()
            rows.writerows(kept)
        self._since, self._since_step = time.perf_counter(), start_step

    def progress(self, step, values, batch_size):
        """values: loss, classification, localization, positives, learning_rate of the step that just ended."""
        seconds = time.perf_counter() - self._since
        rate = (step - self._since_step) * batch_size / seconds
        self.restart_clock(step)
        left = (self._total - step) * batch_size / rate
        line = (
            f"step {step}/{self._total}  loss {values['loss']:.3f} "
            f"(class {values['classification']:.3f}, box {values['localization']:.3f})  "
            f"lr {values['learning_rate']:.2g}  {rate:.1f} images/s  {int(left) // 60}:{int(left) % 60:02d} left"
        )
        self.say(line, lasting=False)
        self.record(step, {**values, "images_per_second": rate})

    def say(self, line, lasting=True):
        """Prints a line; on a terminal, one that is not lasting is overwritten by the next."""
        if self._console.is_terminal:
            self._console.print(
                line.ljust(self._console.width - 1), end="\n" if lasting else "\r", highlight=False
            )
        else:
            logging.info("%s", line)

    def restart_clock(self, step):
        """Leaves the time until now (an evaluation, a checkpoint) out of the rate of images per second."""
        self._since, self._since_step = time.perf_counter(), step

    def record(self, step, values):
        with self._csv.open("a", newline="") as file:
            csv.DictWriter(file, _COLUMNS, extrasaction="ignore").writerow({"step": step, **values})
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def pictures(self, step, name, pictures):
        """Pictures: Pillow images of any sizes, shown one by one in TensorBoard."""
        with self._writer.as_default(step):
            for index, picture in enumerate(pictures):
                tf.summary.image(f"{name}/{index}", np.asarray(picture)[None])

    def close(self):
        self._writer.close()


def read_metrics(path) -> list[dict]:
    """The rows of a metrics.csv as dicts of strings; none where there is no file."""
    path = pathlib.Path(path)
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
