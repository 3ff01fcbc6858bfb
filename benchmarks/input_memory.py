"""Resident memory of the input pipeline after 200 batches and after 2,000: their ratio should be 1.

python benchmarks/input_memory.py --data DIR [--config configs/ssd300_vgg16_coco.yaml]
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from ssd_tf import commandline
from ssd_tf.config import load_config

FLAGS = commandline.new_flags()
flags.DEFINE_string("data", None, "Folder of TFRecords with dataset.json.", flag_values=FLAGS)
flags.DEFINE_string(
    "config", "configs/ssd300_vgg16_coco.yaml", "Experiment file.", flag_values=FLAGS
)
flags.DEFINE_multi_string(
    "set", [], "Replace a value of the config; may be repeated.", flag_values=FLAGS
)
CHECKS = (200, 500, 1000, 1500, 2000)


def main():
    return commandline.run(_main, FLAGS, __doc__, ("data",))


def _main(options, rest):
    config = load_config(options.config, [*options.set, *rest])
    commandline.import_tensorflow()
    from ssd_tf.data import pipeline
    from ssd_tf.models import ssd

    stream = pipeline.build_dataset(
        config, options.data, config.data.train_split, ssd.build_model(config, 1).default_boxes
    )
    found = []
    for number, _ in enumerate(stream.take(CHECKS[-1]), start=1):
        if number in CHECKS:
            found.append(resident_megabytes())
            print(
                f"after {number} batches of {config.train.batch_size}: {found[-1]:.0f} MB resident",
                flush=True,
            )
    print(f"ratio: {found[-1] / found[0]:.3f}")


def resident_megabytes():
    """Of this process; Linux."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    sys.exit(main())
