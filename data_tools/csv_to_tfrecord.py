"""CSV (filename,width,height,class,xmin,ymin,xmax,ymax; one line per object) to TFRecords.

python -m data_tools.csv_to_tfrecord --csv FILE --images DIR [--one_based] --output DIR
"""

import sys

from absl import flags

from data_tools.conversion.command import new_converter_flags, run_converter

FLAGS = new_converter_flags()
flags.DEFINE_string(
    "csv",
    None,
    "CSV file with commas or semicolons, one line per object.",
    flag_values=FLAGS,
)
flags.DEFINE_string("images", None, "Folder of the images.", flag_values=FLAGS)
flags.DEFINE_bool(
    "one_based",
    False,
    "Pixels count from 1 and boxes include the last one, as in the CSV files that the TensorFlow "
    "tutorials make from VOC.",
    flag_values=FLAGS,
)


def _open(values):
    from data_tools.readers.csv_table import read_csv

    return read_csv(values.csv, values.images, values.one_based, values.allow_outside)


def main(argv=None):
    return run_converter(FLAGS, __doc__, ("csv", "images"), _open, argv)


if __name__ == "__main__":
    sys.exit(main())
