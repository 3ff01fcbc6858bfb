"""`ssd quickstart`: from a folder of labelled images to a detector for servers and phones."""

import sys

from absl import flags

from ssd_tf import commandline, model_flags
from ssd_tf.quickstarting.quickstart import LABEL_FORMATS, quickstart
from ssd_tf.user_files import check_exists

USAGE = """
Convert labelled images, choose the settings, train, evaluate, export, and draw detections. Prints
each step as the command that does it. The same command after an interruption continues.

  ssd quickstart IMAGES [--output DIR] [--minutes 15] [--start NAME_OR_PATH] [--classes a,b]
    [--format coco|voc|yolo|csv] [--set KEY=VALUE ...]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "output", None, "Folder for all results; default: beside IMAGES, IMAGES-ssd.", flag_values=FLAGS
)
flags.DEFINE_float(
    "minutes",
    15,
    "Minutes of training; conversion, evaluation and export come on top.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "start",
    None,
    "Weights to start from: a name of `ssd import --list`, a file of a detector, a run folder, "
    "imagenet or scratch; default: the best that can be had.",
    flag_values=FLAGS,
)
flags.DEFINE_list("classes", [], "Learn these classes only.", flag_values=FLAGS)
flags.DEFINE_enum(
    "format",
    None,
    list(LABEL_FORMATS),
    "Format of the labels; default: recognised.",
    flag_values=FLAGS,
)
model_flags.define_overrides(FLAGS)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, argv=argv)


def _main(values, positional):
    if not positional:
        raise flags.Error("name the folder of labelled images (see --help)")
    images, *rest = positional
    overrides = model_flags.read_overrides(values, rest)
    check_exists(images, "folder of images")
    quickstart(
        images,
        values.output,
        values.minutes,
        values.start,
        values.classes,
        values.format,
        overrides,
    )


if __name__ == "__main__":
    sys.exit(main())
