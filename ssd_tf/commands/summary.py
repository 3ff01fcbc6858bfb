"""`ssd summary`: what a config builds."""

import pathlib
import sys

from absl import flags

from ssd_tf import commandline, model_flags
from ssd_tf.config import load_config

USAGE = """
Show what a config builds: its layers with parameters and multiply-adds, the default boxes of each
feature map, and the receptive field of their predictions.

  ssd summary --config configs/NAME.yaml [--classes 80] [--time] [--row]
      [--set KEY=VALUE ...]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("config", None, "Experiment file (YAML).", flag_values=FLAGS)
flags.DEFINE_integer(
    "classes", 80, "Number of classes without the background.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_bool(
    "time", False, "Also time the model and post-processing on one image.", flag_values=FLAGS
)
flags.DEFINE_bool("row", False, "Print one row of a Markdown table instead.", flag_values=FLAGS)
model_flags.define_overrides(FLAGS)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("config",), argv)


def _main(values, positional):
    config = load_config(values.config, model_flags.read_overrides(values, positional))
    commandline.import_tensorflow()
    from ssd_tf.inference import summary

    if values.row:
        name = pathlib.Path(values.config).stem
        summary.print_markdown_row(name, config, values.classes, values.time)
    else:
        summary.print_summary(config, values.classes, values.time)


if __name__ == "__main__":
    sys.exit(main())
