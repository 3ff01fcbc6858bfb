"""`ssd export`: a run to a SavedModel, TFLite files and a web page."""

import functools
import os
import pathlib
import sys

from absl import flags, logging
from rich.console import Console

import ssd_tf
from ssd_tf import commandline, model_flags
from ssd_tf.data import dataset_json
from ssd_tf.exporting import folder
from ssd_tf.user_files import check_exists

USAGE = f"""
Export a run to a SavedModel and to TFLite, and compare their detections with the run's own.

  ssd export --workdir runs/NAME --output DIR [--formats {",".join(folder.DEFAULT_FORMATS)}]
    [--data DIR --verify_split val --calibration_split train] [--max_ap_drop 0.01]
    [--overwrite] [--set eval.KEY=VALUE] [--set export.KEY=VALUE]

formats: {", ".join(folder.FORMATS)}
"""
FLAGS = commandline.new_flags()
_define_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_define_integer = functools.partial(flags.DEFINE_integer, flag_values=FLAGS)
_define_string("workdir", None, "Run folder.")
_define_string("output", None, "Folder for the exports.")
flags.DEFINE_list(
    "formats",
    list(folder.DEFAULT_FORMATS),
    "What to write, separated by commas.",
    flag_values=FLAGS,
)
_define_string(
    "data", None, "Folder of TFRecords; its images verify the exports and calibrate int8."
)
_define_string("verify_split", "val", "Split of --data to verify with.")
_define_integer(
    "verify_images",
    20,
    "Number of images on which detections are paired; AP is measured on the whole split.",
    lower_bound=1,
)
_define_string("calibration_split", "train", "Split of --data to calibrate int8 with.")
_define_integer(
    "calibration_images",
    100,
    "Number of images to calibrate with.",
    lower_bound=folder.MIN_CALIBRATION_IMAGES,
)
flags.DEFINE_float(
    "max_ap_drop",
    None,
    "Fail, and leave no exports, if one has an AP lower than the run's by more than this.",
    lower_bound=0,
    upper_bound=1,
    flag_values=FLAGS,
)
_define_string(
    "web_files",
    None,
    "What `web` takes MediaPipe's files from: a folder or archive (npm pack) of the npm package "
    "@mediapipe/tasks-vision, or `cdn`: the browser loads them from its CDN.",
)
flags.DEFINE_bool("overwrite", False, "Replace existing exports.", flag_values=FLAGS)
model_flags.define_raw_weights(FLAGS)
model_flags.define_overrides(FLAGS)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("workdir", "output"), argv)


def _main(values, positional):
    overrides = model_flags.read_overrides(values, positional)
    # Before TensorFlow is imported, which takes seconds.
    folder.check_request(
        values.output,
        values.formats,
        values.data,
        values.max_ap_drop,
        values.overwrite,
        values.web_files,
    )
    check_exists(values.workdir, "run folder")
    if values.data is not None:
        dataset_json.read_dataset(values.data)
    result = ssd_tf.export(
        values.workdir,
        values.output,
        values.formats,
        data=values.data,
        verify_split=values.verify_split,
        verify_images=values.verify_images,
        calibration_split=values.calibration_split,
        calibration_images=values.calibration_images,
        max_ap_drop=values.max_ap_drop,
        web_files=values.web_files,
        overwrite=values.overwrite,
        overrides=overrides,
        raw_weights=values.raw_weights,
    )
    if result.rows:
        Console().print(result.as_table())
    if any(entry.get("unpaired") for entry in result["verify"].values()):
        Console().print(
            "AP decides: it counts all images of the split. agree: detections on "
            "--verify_images of them that lie within .01 of the image at the same place as the "
            "run's; rounding, most of all int8's, moves some boxes further without making them "
            "wrong.",
            highlight=False,
        )
    names = ", ".join(map(folder.file_name, values.formats))
    logging.info("written: %s in %s", names, pathlib.Path(values.output).resolve())
    _print_next(values.output, result.paths)


def _print_next(output, paths):
    commands = []
    models = [path for name, path in paths.items() if name != "web"]
    if models:
        detect = ["ssd", "detect", "--model", models[0]]
        commands.append([*detect, "--output", os.path.join(output, "drawn"), "IMAGES"])
    if "web" in paths:
        commands.append(["python", "-m", "http.server", "--directory", paths["web"]])
    commandline.print_next(*commands)


if __name__ == "__main__":
    sys.exit(main())
