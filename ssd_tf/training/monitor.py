"""Reports of a running training: a progress line, `metrics.csv` and TensorBoard."""

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
    """Writes the reports of a run; a restart drops rows of metrics.csv after start_step."""

    def __init__(self, workdir, num_steps, batch_size, start_step):
        workdir = pathlib.Path(workdir)
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._console = Console(stderr=True)
        self._writer = tf.summary.create_file_writer(str(workdir / "tensorboard"))
        self._csv = workdir / "metrics.csv"
        kept = [row for row in read_metrics(self._csv) if int(row["step"]) <= start_step]
        with self._csv.open("w", newline="") as file:
            rows = csv.DictWriter(file, _COLUMNS)
            rows.writeheader()
            rows.writerows(kept)
        self.restart_clock(start_step)

    def report_step(self, step, values):
        """Report the step that has just ended.

        values: loss, classification, localization, positives, learning_rate.
        """
        seconds = time.perf_counter() - self._clock_start
        images_per_second = (step - self._clock_step) * self._batch_size / seconds
        self.restart_clock(step)
        left = int((self._num_steps - step) * self._batch_size / images_per_second)
        line = (
            f"step {step}/{self._num_steps}  loss {values['loss']:.3f} "
            f"(class {values['classification']:.3f}, box {values['localization']:.3f})  "
            f"lr {values['learning_rate']:.2g}  {images_per_second:.1f} images/s  "
            f"{left // 60}:{left % 60:02d} left"
        )
        self._print(line, overwritable=True)
        self._write(step, {**values, "images_per_second": images_per_second})

    def report_metrics(self, step, metrics):
        """Report the metrics of an evaluation, AP and AP50 among them."""
        self._write(step, metrics)
        self._print(f"step {step}  AP {metrics['AP']:.3f}  AP50 {metrics['AP50']:.3f}")

    def report_images(self, step, name, images):
        """Show Pillow images of any sizes in TensorBoard, one by one."""
        with self._writer.as_default(step):
            for index, image in enumerate(images):
                tf.summary.image(f"{name}/{index}", np.asarray(image)[None])

    def restart_clock(self, step):
        """Leave the time until now (compilation, an evaluation) out of the images per second."""
        self._clock_start = time.perf_counter()
        self._clock_step = step

    def close(self):
        self._writer.close()

    def _print(self, line, overwritable=False):
        """Print a line; on a terminal, the next line replaces an overwritable one."""
        if self._console.is_terminal:
            line = line.ljust(self._console.width - 1)
            self._console.print(line, end="\r" if overwritable else "\n", highlight=False)
        else:
            logging.info("%s", line)

    def _write(self, step, values):
        """Write a row of metrics.csv and TensorBoard's scalars."""
        with self._csv.open("a", newline="") as file:
            csv.DictWriter(file, _COLUMNS, extrasaction="ignore").writerow({"step": step, **values})
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()


def read_metrics(path) -> list[dict]:
    """The rows of a metrics.csv as dicts of strings; none if there is no file."""
    path = pathlib.Path(path)
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
