"""Labelled images of any known format to TFRecords: recognises format and splits, then converts.

ssd convert auto FOLDER --output DIR [--format coco|voc|yolo|csv] [--classes a,b]
"""

import pathlib
import shlex
import sys

from absl import flags

from data_tools import coco_to_tfrecord, csv_to_tfrecord, voc_to_tfrecord, yolo_to_tfrecord
from data_tools.conversion import classes, output
from data_tools.conversion.config import new_flags
from data_tools.recognise import FORMATS, VAL_FRACTION, recognise
from ssd_tf import commandline
from ssd_tf.data import dataset_json

USAGE = __doc__
FLAGS = new_flags()
FLAGS.set_gnu_getopt()
flags.DEFINE_enum(
    "format",
    None,
    list(FORMATS),
    "Label format, for a folder that has labels of several.",
    flag_values=FLAGS,
)
FLAGS.set_default("val_fraction", VAL_FRACTION)
CONVERTERS = {
    "coco": coco_to_tfrecord.main,
    "csv": csv_to_tfrecord.main,
    "voc": voc_to_tfrecord.main,
    "yolo": yolo_to_tfrecord.main,
}
# The other flags are passed on to each conversion.
_OWN = ("format", "output", "split", "val_fraction", "classes", "help", "traceback")


def _convert(values, folders):
    if len(folders) != 1:
        raise flags.Error(f"expected one folder of labelled images, got {len(folders)}")
    if values["split"].present or values.beam_runner:
        raise flags.Error("--split and --beam_runner: use `ssd convert` of the label format")
    names = classes.read_names(values.classes) or ()
    recognised = recognise(folders[0], values.format, names, values.val_fraction)
    existing = output.existing_dataset(pathlib.Path(values.output), recognised.splits)
    if existing:
        others = sorted(set(existing.splits) - set(recognised.splits))
        raise ValueError(
            f"--output: {values.output} has splits of other data, {', '.join(others)}; give "
            "another folder"
        )
    print(f"label format: {recognised.label_format}\nbecause: {recognised.reason}")
    passed_on = [
        values[name].serialize() for name in values if values[name].present and name not in _OWN
    ]
    commands = [
        [*conversion, "--output", values.output, *passed_on]
        for conversion in recognised.conversions
    ]
    for command in commands:
        print(shlex.join(["ssd", "convert", *command]), flush=True)
    for command in commands:
        code = CONVERTERS[command[0]]([f"ssd convert {command[0]}", *command[1:]])
        if code:
            return code
    if not dataset_json.read_dataset(values.output).splits["train"]["boxes"]:
        raise ValueError(f"{folders[0]} has no labelled objects: there is nothing to train on")
    return 0


def main(argv=None):
    return commandline.run(_convert, FLAGS, USAGE, required=("output",), argv=argv)


if __name__ == "__main__":
    sys.exit(main())
