"""COCO instances JSON to TFRecords.

python -m data_tools.coco_to_tfrecord --images DIR --annotations FILE.json --output DIR
"""

import sys

from absl import flags

from data_tools.conversion.command import new_converter_flags, run_converter

FLAGS = new_converter_flags()
flags.DEFINE_string("images", None, "Folder of the images.", flag_values=FLAGS)
flags.DEFINE_string("annotations", None, "COCO instances JSON.", flag_values=FLAGS)


def _open(values):
    from data_tools.readers.coco_json import read_coco

    return read_coco(values.annotations, values.images, values.allow_outside)


def main(argv=None):
    return run_converter(FLAGS, __doc__, ("images", "annotations"), _open, argv)


if __name__ == "__main__":
    sys.exit(main())
