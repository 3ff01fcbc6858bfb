"""CSV (filename,width,height,class,xmin,ymin,xmax,ymax; one line per object) to TFRecords.

ssd convert csv --csv FILE --images DIR [--one_based] --output DIR
"""

import sys

from absl import flags

from data_tools.conversion.config import new_flags
from data_tools.conversion.convert import run_converter
from data_tools.readers.csv_table import read_csv

USAGE = __doc__
FLAGS = new_flags()
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
    return read_csv(values.csv, values.images, values.one_based, values.allow_outside)


def main(argv=None):
    return run_converter(FLAGS, USAGE, ("csv", "images"), _open, argv)


if __name__ == "__main__":
    sys.exit(main())
