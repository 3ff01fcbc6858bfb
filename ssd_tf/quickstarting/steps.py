"""The steps of a quickstart: each prints the commands of `ssd` that do its work, and runs them."""

import dataclasses
import pathlib
import shlex
import shutil
import typing

from absl import logging

from ssd_tf import cli, commandline, files
from ssd_tf.data import dataset_json
from ssd_tf.errors import ConfigError
from ssd_tf.exporting.folder import MIN_CALIBRATION_IMAGES, REPORT
from ssd_tf.quickstarting import held_out, starts
from ssd_tf.quickstarting.state import Done, Request, State

_NUM_DRAWN = 40  # held-out images
_FORMATS = ("saved_model", "tflite_float32", "tflite_float32_raw", "web")
_CALIBRATED_FORMATS = ("tflite_int8", "tflite_int8_raw")
_TEST = "test"


@dataclasses.dataclass
class Job:
    """What the steps share.

    recognised: a recognise.Recognised, for the conversion. command: what the user ran.
    """

    request: Request
    folder: pathlib.Path
    state: State
    command: str
    recognised: typing.Any = None
    commands: list[str] = dataclasses.field(default_factory=list)  # of the current step

    @property
    def data(self):
        """TFRecords."""
        return self.folder / "data"

    @property
    def start(self):
        """The run folder of the imported detector that training starts from."""
        return self.folder / "start"

    @property
    def config(self):
        """The experiment file."""
        return self.folder / "config.yaml"

    @property
    def run(self):
        """The run folder."""
        return self.folder / "run"

    @property
    def exports(self):
        """SavedModel, TFLite files and the web page."""
        return self.folder / "exports"

    @property
    def drawn(self):
        """Held-out images with what was detected."""
        return self.folder / "detections"

    @property
    def sheet(self):
        """Training images with their boxes."""
        return self.folder / "images.png"

    @property
    def splits(self):
        """{split: its entry of dataset.json}."""
        return dataset_json.read_dataset(self.data).splits

    @property
    def quoted_split(self):
        """The split whose metrics are quoted: nothing was chosen on the test split."""
        return _TEST if _TEST in self.splits else "val"

    def evaluation(self, split):
        """The report and the metrics of a split."""
        return self.folder / f"evaluation_{split}"

    def call(self, *arguments):
        """Print a command as a user would type it, and run it in this process.

        Raises what the command raises, Interrupted if a signal ended it.
        """
        arguments = [str(argument) for argument in arguments]
        command = shlex.join(["ssd", *arguments])
        print(f"\n$ {command}", flush=True)
        self.commands.append(command)
        code = cli.main(["ssd", *arguments, "--traceback"])
        if code > 128:
            raise commandline.Interrupted(code - 128, f"run this again to continue: {self.command}")
        if code:
            raise ValueError(f"{command} ended with exit code {code}: see above")


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
            logging.warning("%s", error)
            job.commands.clear()
            continue
        imported = start._replace(values={"init_from": str(job.start.resolve())})
        return Done(job.start / "config.yaml", _to_json(imported))
    raise AssertionError("from scratch is always possible")


def _to_json(start):
    return {**start._asdict(), "values": dict(start.values)}


def choose(job) -> Done:
    """Write config.yaml."""
    commandline.import_tensorflow()
    from ssd_tf.quickstarting.choosing import write_config

    start = starts.Start(**job.state.result("start"))

    def fit_boxes(config, output):
        job.call("fit-boxes", job.data, "--config", config, "--output", output)

    write_config(job.config, job.data, start, job.request, job.command, fit_boxes)
    return Done(job.config)


def train(job) -> Done:
    """Train, or resume."""
    job.call("train", "--config", job.config, "--data", job.data, "--workdir", job.run)
    return Done(job.run / "checkpoints")


def evaluate(job) -> Done:
    """Evaluate on the validation split, on which score thresholds are chosen."""
    return _evaluate(job, "val")


def evaluate_test(job) -> Done:
    """Evaluate on the test split, if there is one, on which nothing was chosen."""
    return _evaluate(job, _TEST) if _TEST in job.splits else Done()


def _evaluate(job, split):
    output = job.evaluation(split)
    given = ["--model", job.run, "--data", job.data, "--split", split, "--output", output]
    job.call("evaluate", *given)
    return Done(output / "report.html")


def export(job) -> Done:
    """Export to all clients, and compare the exports with the run."""
    formats = _FORMATS
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
    job.call("export", *given, "--formats", ",".join(formats), "--overwrite")
    return Done(job.exports / REPORT)


def draw(job) -> Done:
    """Draw what is detected in held-out images."""
    split = job.quoted_split
    paths = held_out.find_images(job.request.images, job.data, split, _NUM_DRAWN)
    images = job.folder / "held_out.txt"
    files.write_text(images, "".join(f"{path}\n" for path in paths))
    job.call("detect", "--model", job.run, "--output", job.drawn, "--list", images)
    return Done(job.drawn / "detections.json")


STEPS = (
    Step("convert", "convert the labels", convert),
    Step("look", "draw training images", look),
    Step("start", "find weights to start from", find_start),
    Step("choose", "choose the settings", choose),
    Step("train", "train", train),
    Step("evaluate", "evaluate", evaluate),
    Step("test", "evaluate on the test split", evaluate_test),
    Step("export", "export", export),
    Step("draw", "draw detections in held-out images", draw),
)
