"""Look at a converted data set: its statistics, and a sheet of its images with their boxes.

    ssd inspect DIR [--split train] [--config C] --output sheet.png

On the sheet, boxes have class names, and ignored regions are hatched. With --config also: how many
objects its default boxes cover, by level and by class.
"""

import sys

from absl import flags

from ssd_tf import commandline, model_flags
from ssd_tf.config import load_config
from ssd_tf.data import dataset_json

USAGE = __doc__
FLAGS = commandline.new_flags()
flags.DEFINE_string("split", None, "Split to look at; default: the first.", flag_values=FLAGS)
flags.DEFINE_string(
    "config", None, "Experiment file, for the coverage by its default boxes.", flag_values=FLAGS
)
model_flags.define_overrides(FLAGS)
flags.DEFINE_string("output", None, "PNG file for the sheet of images.", flag_values=FLAGS)
flags.DEFINE_integer(
    "images", 16, "Number of images on the sheet.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "seed", 0, "Another seed draws other images.", lower_bound=0, flag_values=FLAGS
)


def _inspect(values, rest):
    if not rest:
        raise flags.Error("give the folder of a converted data set (see --help)")
    overrides = model_flags.read_overrides(values, rest[1:])
    if overrides and not values.config:
        raise flags.Error(f"--set {overrides[0]} needs --config")
    if values.output and not values.output.lower().endswith(".png"):
        raise flags.Error(f"--output: expected the name of a PNG file, got {values.output!r}")
    config = load_config(values.config, overrides) if values.config else None
    dataset_info = dataset_json.read_dataset(rest[0])
    if not dataset_info.splits:
        raise ValueError(f"{rest[0]}/dataset.json lists no split; convert the data again")
    split = values.split or next(iter(dataset_info.splits))
    dataset_info.shards(split)  # raises before TensorFlow is imported
    commandline.import_tensorflow()
    from data_tools.analysis.inspection import inspect

    faults = inspect(dataset_info, split, config, values.output, values.images, values.seed)
    config_path = values.config or "configs/finetune_imagenet.yaml"
    train = ["ssd", "train", "--config", config_path]
    train += [argument for override in overrides for argument in ("--set", override)]
    commandline.print_next([*train, "--data", rest[0], "--workdir", "runs/NAME"])
    return 1 if faults else 0


def main(argv=None):
    return commandline.run(_inspect, FLAGS, USAGE, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
