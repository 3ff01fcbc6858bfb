"""`ssd show-input`: the training input, drawn and timed."""

import sys

from absl import flags

from ssd_tf import commandline, model_flags
from ssd_tf.config import load_config
from ssd_tf.data import dataset_json

USAGE = """
Show the training input: images per second, the time of each stage, and a sheet of augmented images
with their boxes.

  ssd show-input --config C --data DIR [--split train] [--output input.png]
      [--default_boxes] [--set KEY=VALUE ...]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("config", None, "Experiment file (YAML).", flag_values=FLAGS)
flags.DEFINE_string("data", None, "Folder of TFRecords with dataset.json.", flag_values=FLAGS)
flags.DEFINE_string(
    "split", None, "Split to show; default: data.train_split of the config.", flag_values=FLAGS
)
flags.DEFINE_string("output", "input.png", "Sheet of images to write.", flag_values=FLAGS)
flags.DEFINE_integer(
    "sheet_images", 16, "Number of images on the sheet.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "timed_images",
    1024,
    "Number of images to time; 0: no timing.",
    lower_bound=0,
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "default_boxes",
    False,
    "Draw the default boxes matched to each object, in its colour.",
    flag_values=FLAGS,
)
model_flags.define_overrides(FLAGS)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("config", "data"), argv)


def _main(values, positional):
    config = load_config(values.config, model_flags.read_overrides(values, positional))
    split = values.split or config.data.train_split
    dataset_json.read_dataset(values.data).shards(split)
    commandline.import_tensorflow()
    from ssd_tf.training.input_sheet import show_input

    show_input(
        config,
        values.data,
        values.output,
        split,
        values.sheet_images,
        values.timed_images,
        values.default_boxes,
    )


if __name__ == "__main__":
    sys.exit(main())
