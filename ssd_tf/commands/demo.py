"""`ssd demo`: all commands in turn, on drawn shapes."""

import json
import pathlib
import subprocess
import sys
import time

from absl import flags
from rich.console import Console
from rich.table import Table

from ssd_tf import commandline, long_tasks, model_flags

USAGE = """
Draw a data set, convert, train, evaluate, export and detect. Prints each command before running
it. `ssd quickstart` does the same with images of your own.

  ssd demo [--output demo]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("output", "demo", "Folder for all results.", flag_values=FLAGS)
flags.DEFINE_string("config", "configs/shapes_plain.yaml", "Experiment file.", flag_values=FLAGS)
flags.DEFINE_integer("images", 1400, "Number of images to draw.", lower_bound=20, flag_values=FLAGS)
model_flags.define_overrides(FLAGS)

_NUM_DETECTED_IMAGES = 10


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, argv=argv)


def _main(values, positional):
    if positional:
        raise flags.Error(f"unexpected {positional[0]!r} (see --help)")
    start = time.monotonic()
    output = pathlib.Path(values.output)
    source = output / "shapes"
    records = output / "tfrecords"
    run = output / "run"
    exports = output / "exports"
    _call("shapes", "--output", source, "--images", values.images)
    inputs = ["--images", source / "images", "--annotations", source / "annotations.json"]
    split = ["--output", records, "--val_fraction", 0.2]
    _call("convert", "coco", *inputs, *split)
    overrides = [argument for override in values.set for argument in ("--set", override)]
    data = ["--data", records]
    _call("train", "--config", values.config, *data, "--workdir", run, *overrides)
    _call("export", "--workdir", run, *data, "--output", exports, "--overwrite")
    folders = _evaluate(run, exports, records, output / "evaluation")
    held_out = _held_out_images(folders["Keras"] / "ground_truth.json", source / "images")
    _call("detect", "--model", run, "--output", output / "detections", *held_out)
    _print_summary(folders, output, time.monotonic() - start)


def _evaluate(run, exports, records, output):
    """Evaluate the run and its exports; returns the folder of each one's metrics."""
    models = {
        "Keras": run,
        "SavedModel": exports / "saved_model",
        "TFLite float32": exports / "model_float32.tflite",
    }
    folders = {name: output / name.lower().replace(" ", "_") for name in models}
    for name, model in models.items():
        _call("evaluate", "--model", model, "--data", records, "--output", folders[name])
    return folders


def _held_out_images(ground_truth, folder):
    """Paths of the first images of the validation split."""
    images = json.loads(ground_truth.read_text())["images"]
    return [folder / image["file_name"] for image in images[:_NUM_DETECTED_IMAGES]]


def _call(*arguments):
    """Run one of our commands; raises RuntimeError with its exit code if it fails."""
    arguments = [str(argument) for argument in arguments]
    shown = " ".join(arguments[:12])
    if len(arguments) > 12:
        shown += f" ... ({len(arguments) - 12} more)"
    print(f"\n$ ssd {shown}", flush=True)
    code = subprocess.run([sys.executable, "-m", "ssd_tf", *arguments]).returncode
    if code:
        raise RuntimeError(f"ssd {shown} ended with exit code {code}; see its message above")


def _print_summary(folders, output, seconds):
    table = Table("model", "AP", "AP50", "ms per image", title="On the validation images")
    for name, folder in folders.items():
        content = json.loads((folder / "metrics.json").read_text())
        coco = content["coco"]
        latency = content["latency_ms"]["per_image"]
        metrics = [long_tasks.format_metric(coco[key]) for key in ("AP", "AP50")]
        table.add_row(name, *metrics, f"{latency:.1f}")
    minutes, seconds = divmod(int(seconds), 60)
    tensorboard = f".venv/bin/tensorboard --logdir {output}"
    console = Console()
    console.print()
    console.print(table)
    for line in (
        f"drawn images:    {output / 'detections'}",
        f"exports:         {output / 'exports'}",
        f"training curves: {tensorboard}",
        f"done in {minutes} min {seconds} s",
    ):
        console.print(line, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
