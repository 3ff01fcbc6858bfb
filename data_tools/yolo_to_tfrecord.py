"""YOLO labels (a text file per image, and data.yaml) to TFRecords.

ssd convert yolo --yolo data.yaml --output DIR [--split train]
"""

import sys

from absl import flags

from data_tools.conversion.config import new_flags
from data_tools.conversion.convert import run_converter
from data_tools.readers.yolo_txt import read_yolo

USAGE = __doc__
FLAGS = new_flags()
flags.DEFINE_string(
    "yolo",
    None,
    "data.yaml, obj.data, or the folder with one of them or with classes.txt.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "image_set",
    None,
    "Key of the list of images in that file. Default: the split's name.",
    flag_values=FLAGS,
)


def _open(values):
    return read_yolo(values.yolo, values.image_set or values.split, values.allow_outside)


def main(argv=None):
    return run_converter(FLAGS, USAGE, ("yolo",), _open, argv)


if __name__ == "__main__":
    sys.exit(main())
