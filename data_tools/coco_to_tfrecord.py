"""COCO instances JSON to TFRecords.

ssd convert coco --images DIR --annotations FILE.json --output DIR
"""

import sys

from absl import flags

from data_tools.conversion.config import new_flags
from data_tools.conversion.convert import run_converter
from data_tools.readers.coco_json import read_coco

USAGE = __doc__
FLAGS = new_flags()
flags.DEFINE_string("images", None, "Folder of the images.", flag_values=FLAGS)
flags.DEFINE_string("annotations", None, "COCO instances JSON.", flag_values=FLAGS)


def _open(values):
    return read_coco(values.annotations, values.images, values.allow_outside)


def main(argv=None):
    return run_converter(FLAGS, USAGE, ("images", "annotations"), _open, argv)


if __name__ == "__main__":
    sys.exit(main())
