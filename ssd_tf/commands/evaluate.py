"""`ssd evaluate`: evaluate a model, or a file of detections, with the COCO and VOC metrics."""

import functools
import os
import pathlib
import sys

from absl import flags

import ssd_tf
from ssd_tf import commandline, model_flags
from ssd_tf.data import dataset_json
from ssd_tf.user_files import check_exists, check_output_folder
from ssd_tf.weights import label_files

USAGE = """
Evaluate a model, or a file of detections, with the COCO and VOC metrics.
Prints what is found and one suggestion, then the numbers. Writes metrics.json, per_class.csv,
thresholds.json (which a run folder gets, too, and `ssd detect` uses), report.html, which explains
the errors, and as COCO files detections.json and the ground_truth.json that it refers to.

  ssd evaluate --model runs/NAME|SAVED_MODEL_DIR|FILE.tflite --data DIR --output DIR
    [--split val] [--precision 0.9] [--labels FILE] [--input_range LOW,HIGH]
    [--set eval.KEY=VALUE]
  ssd evaluate --detections FILE.json --annotations FILE.json --output DIR [--images DIR]
  ssd evaluate --compare A/metrics.json B/metrics.json ... --output DIR
"""
FLAGS = commandline.new_flags()
_define_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_define_bool = functools.partial(flags.DEFINE_bool, flag_values=FLAGS)
_define_string("model", None, "Run folder, SavedModel folder or .tflite file.")
_define_string("data", None, "Folder of TFRecords with dataset.json.")
_define_string("split", "val", "Split of the data to evaluate on.")
_define_string(
    "labels", None, "Class names for a model that has none: lines of text, .pbtxt or COCO .json."
)
model_flags.define_input_range(FLAGS)
flags.DEFINE_enum(
    "on_bad_record",
    None,
    ["stop", "skip"],
    "What to do about an unusable record; default: data.on_bad_record of the run, else stop.",
    flag_values=FLAGS,
)
model_flags.define_raw_weights(FLAGS)
model_flags.define_overrides(FLAGS)
_define_string("detections", None, "COCO results file to evaluate instead of a model.")
_define_string("annotations", None, "COCO instances file that --detections refers to.")
_define_string("images", None, "Folder of the images that --annotations names, for the report.")
_define_string(
    "gray_range",
    None,
    "LOW,HIGH: the values of 16-bit --images that become black and white, as given to the "
    "converter. Default: 0,65535.",
)
_define_bool("compare", False, "Compare the given metrics.json files.")
_define_bool(
    "reference",
    False,
    "Compute the COCO metrics with pycocotools too, and fail if a number differs.",
)
flags.DEFINE_float(
    "precision",
    None,
    "Choose the lowest scores with at least this precision as thresholds, not those with the best "
    "F1.",
    lower_bound=0,
    upper_bound=1,
    flag_values=FLAGS,
)
_define_string("output", None, "Folder for report.html, metrics.json and the other files.")
_MODEL_FLAGS = (
    "model",
    "data",
    "split",
    "labels",
    "input_range",
    "on_bad_record",
    "raw_weights",
    "set",
)
_FILE_FLAGS = ("detections", "annotations", "images", "gray_range")


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("output",), argv)


def _main(values, positional):
    check_output_folder(values.output)
    if values.compare:
        _reject(values, (*_MODEL_FLAGS, *_FILE_FLAGS, "reference", "precision"), "--compare")
        _evaluate_files(values, positional)
        return
    overrides = model_flags.read_overrides(values, positional)
    if values.model and values.data:
        _reject(values, _FILE_FLAGS, "--model and --data")
        _evaluate_model(values, overrides)
    elif values.detections and values.annotations:
        _reject(values, _MODEL_FLAGS, "--detections and --annotations")
        if overrides:
            raise flags.Error(f"{overrides[0]} needs --set and --model")
        _evaluate_files(values)
    else:
        raise flags.Error("give --model and --data, or --detections and --annotations (see --help)")


def _reject(values, names, others):
    """Raise flags.Error if one of the flags was given that have no effect with the others."""
    given = [f"--{name}" for name in names if values[name].present]
    if given:
        raise flags.Error(f"{given[0]} has no effect with {others}; leave it out")


def _evaluate_model(values, overrides):
    check_exists(values.model, "model")
    dataset_json.read_dataset(values.data).shards(values.split)
    if values.labels is not None:
        label_files.check_label_file(values.labels)
    input_range = model_flags.read_input_range(values)
    ssd_tf.evaluate(
        values.model,
        values.data,
        values.output,
        values.split,
        labels=values.labels,
        input_range=input_range,
        overrides=overrides,
        raw_weights=values.raw_weights,
        on_bad_record=values.on_bad_record,
        reference=values.reference,
        precision=values.precision,
    )
    _print_next(values)


def _print_next(values):
    drawn = os.path.join(values.output, "drawn")
    commands = [["ssd", "detect", "--model", values.model, "--output", drawn, "IMAGES"]]
    if os.path.isfile(os.path.join(values.model, "config.yaml")):  # a run
        output = os.path.join("exports", pathlib.Path(values.model).resolve().name)
        run = ["--workdir", values.model, "--data", values.data]
        commands.append(["ssd", "export", *run, "--output", output])
    commandline.print_next(*commands)


def _evaluate_files(values, compared=()):
    """Evaluate COCO files, or compare the metrics.json files; neither needs TensorFlow."""
    gray_range = commandline.read_gray_range(values)
    if gray_range and not values.images:
        raise flags.Error("--gray_range needs --images")
    if values.compare and len(compared) < 2:
        raise flags.Error("--compare: expected at least two metrics.json files")
    from ssd_tf.evaluation.evaluate_files import compare, evaluate_files

    if values.compare:
        compare(compared, values.output)
    else:
        evaluate_files(
            values.annotations,
            values.detections,
            values.output,
            values.images,
            gray_range,
            values.reference,
            values.precision,
        )


if __name__ == "__main__":
    sys.exit(main())
