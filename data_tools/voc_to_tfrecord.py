"""VOC XML to TFRecords: a devkit year, or a folder of XML files and images, as labelImg leaves it.

ssd convert voc --voc DIR [--image_set trainval] --output DIR [--split train]
"""

import sys

from absl import flags

from data_tools.conversion import output
from data_tools.conversion.config import new_flags
from data_tools.conversion.convert import run_converter
from data_tools.readers.voc_xml import check_separate, choose_image_set, read_voc

USAGE = __doc__
FLAGS = new_flags()
flags.DEFINE_string(
    "voc",
    None,
    "Folder with Annotations and JPEGImages, or with XML files and images.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "image_set",
    None,
    "Name of a list in ImageSets/Main, of a folder of XML files, or `all`. Default: trainval for "
    "the split train (train if --output has a split val), else the list or folder named like the "
    "split; all XML files if there are neither lists nor folders train, val, valid, test.",
    flag_values=FLAGS,
)


def _open(values):
    reports = output.read_reports(values.output)
    replaced = {values.split, "val"} if values.val_fraction else {values.split}
    others = {name: entry for name, entry in reports.items() if name not in replaced}
    image_set = values.image_set or choose_image_set(values.voc, values.split, others)
    check_separate(values.voc, values.split, image_set, not values.image_set, others)
    return read_voc(values.voc, image_set, values.allow_outside)


def main(argv=None):
    return run_converter(FLAGS, USAGE, ("voc",), _open, argv)


if __name__ == "__main__":
    sys.exit(main())
