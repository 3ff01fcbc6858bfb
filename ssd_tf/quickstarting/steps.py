"""The steps of a quickstart: each prints the commands of `ssd` that do its work, and runs them."""

import collections
import hashlib
import json
import os
import pathlib
import shutil
import typing

from absl import logging

from data_tools.conversion import report
from ssd_tf import files
from ssd_tf.config import load_run_config
from ssd_tf.errors import ConfigError
from ssd_tf.exporting.folder import MIN_CALIBRATION_IMAGES, REPORT
from ssd_tf.quickstarting import choosing, learning_curve, starts
from ssd_tf.quickstarting.job import Job
from ssd_tf.quickstarting.state import Done

_NUM_DRAWN = 40  # held-out images
_FORMATS = ("saved_model", "tflite_float32", "tflite_float32_raw", "web")
_CALIBRATED_FORMATS = ("tflite_int8", "tflite_int8_raw")


class Step(typing.NamedTuple):
    """A step: run(job) does it, and returns what to note."""

    name: str
    title: str
    run: typing.Callable[[Job], Done]


def convert(job) -> Done:
    """Write TFRecords."""
    for conversion in job.recognised.conversions:
        job.call("convert", *conversion, "--output", job.data)
    return Done(job.data / "dataset.json", {"label_format": job.recognised.label_format})


def look(job) -> Done:
    """Draw training images with their boxes."""
    job.call("inspect", job.data, "--split", "train", "--output", job.sheet)
    return Done(job.sheet)


def find_start(job) -> Done:
    """Import the first start that works."""
    for start in starts.find_starts(job.request.start):
        if start.source is None:
            return Done(None, _to_json(start))
        # Of a process that was killed before it noted the import.
        shutil.rmtree(job.start, ignore_errors=True)
        labels = ["--labels", start.labels] if start.labels else []
        try:
            job.call("import", "--source", start.source, *labels, "--output", job.start)
        except ConfigError as error:
            if job.request.start is not None:
                raise
            logging.warning("passed over: %s", str(error).removeprefix("--start: "))
            job.commands.clear()
            continue
        imported = start._replace(values={"init_from": str(job.start.resolve())})
        return Done(job.start / "config.yaml", _to_json(imported))
    raise AssertionError("from scratch is always possible")


def _to_json(start):
    return {**start._asdict(), "values": dict(start.values)}


def choose(job) -> Done:
    """Write config.yaml."""
    start = starts.Start(**job.state.result("start"))

    def fit_boxes(config, output):
        job.call("fit-boxes", job.data, "--config", config, "--output", output)

    pace = choosing.write_config(job.config, job.data, start, job.request, job.command, fit_boxes)
    return Done(job.config, {"seconds_per_step": pace.step})


def train(job) -> Done:
    """Train, or resume."""
    job.call("train", "--config", job.config, "--data", job.data, "--workdir", job.run)
    return Done(job.run / "checkpoints")


def learn_curve(job) -> Done:
    """Train on parts of the images, in the time that an early stop has left."""
    config = load_run_config(job.run)
    steps = max((point.steps for point in learning_curve.read_points(job.run)), default=0)
    seconds_per_step = job.state.result("choose")["seconds_per_step"]
    minutes = (config.train.steps - steps) * seconds_per_step / 60
    num_images = job.splits["train"]["images"]
    runs = learning_curve.plan(minutes, seconds_per_step, steps, num_images)
    if not runs:
        logging.info("no time is left: skipped")
    points = learning_curve.run(config, job.data, job.folder / "curve", runs)
    text = learning_curve.describe([*points, *learning_curve.read_points(job.run)])
    return Done(None, {"text": text})


def evaluate(job) -> Done:
    """Evaluate on the validation split, on which score thresholds are chosen."""
    return _evaluate(job, "val")


def evaluate_test(job) -> Done:
    """Evaluate on the test split, if there is one, on which nothing was chosen."""
    if job.quoted_split == "val":
        logging.info("there is no test split: skipped")
        return Done()
    return _evaluate(job, job.quoted_split)


def _evaluate(job, split):
    output = job.evaluation(split)
    given = ["--model", job.run, "--data", job.data, "--split", split, "--output", output]
    job.call("evaluate", *given)
    return Done(output / "report.html")


def export(job) -> Done:
    """Export to all clients, and compare the exports with the run."""
    formats = list(_FORMATS)
    num_images = job.splits["train"]["images"]
    if num_images >= MIN_CALIBRATION_IMAGES:
        formats += _CALIBRATED_FORMATS
    else:
        logging.warning(
            "no int8 export: %d training images, and it takes %d to calibrate",
            num_images,
            MIN_CALIBRATION_IMAGES,
        )
    given = ["--workdir", job.run, "--data", job.data, "--output", job.exports]
    given += ["--formats", ",".join(formats), "--web_files", "cdn", "--overwrite"]
    job.call("export", *given)
    return Done(job.exports / REPORT)


def draw(job) -> Done:
    """Draw what is detected in held-out images."""
    split = job.quoted_split
    paths = find_images(job.request.images, job.data, split, _NUM_DRAWN)
    images = job.folder / "held_out.txt"
    files.write_text(images, "".join(f"{path}\n" for path in paths))
    job.call("detect", "--model", job.run, "--output", job.drawn, "--list", images)
    return Done(job.drawn / "detections.json")


def find_images(images, data, split, maximum) -> list[pathlib.Path]:
    """The paths of the first images of a converted split, in its order, found by name and digest.

    images: the folder that was converted. data: the folder of TFRecords. maximum: of paths.
    Those that are gone are left out.
    """
    by_name = collections.defaultdict(list)
    for parent, folders, names in os.walk(images):
        folders.sort()
        for name in sorted(names):
            by_name[name].append(pathlib.Path(parent, name))
    found = []
    with report.open_digests(report.digests_path(data, split)) as file:
        for line in file:
            digest, _, escaped = line.rstrip("\n").partition("\t")
            name = pathlib.PurePosixPath(json.loads(f'"{escaped}"')).name
            same = [path for path in by_name[name] if _digest(path) == digest]
            found += same[:1]
            if len(found) == maximum:
                break
    return found


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


STEPS = (
    Step("convert", "convert the labels", convert),
    Step("look", "draw training images", look),
    Step("start", "find weights to start from", find_start),
    Step("choose", "choose the settings", choose),
    Step("train", "train", train),
    Step("curve", "compare with less data and fewer steps, if time is left", learn_curve),
    Step("evaluate", "evaluate", evaluate),
    Step("test", "evaluate on the test split", evaluate_test),
    Step("export", "export", export),
    Step("draw", "draw detections in held-out images", draw),
)
