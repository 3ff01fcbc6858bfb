"""Resident memory of the input pipeline after 200 batches and after 2,000.

The ratio should be 1.

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
    "set", [], "KEY=VALUE that replaces a value of the config; repeatable.", flag_values=FLAGS
)
CHECKS = (200, 500, 1000, 1500, 2000)


def main():
    return commandline.run(_main, FLAGS, __doc__, ("data",))


def _main(values, positional):
    config = load_config(values.config, [*values.set, *positional])
    commandline.import_tensorflow()
    from ssd_tf.data import pipeline
    from ssd_tf.models import ssd

    stream = pipeline.build_dataset(
        config, values.data, config.data.train_split, ssd.build_model(config, 1).default_boxes
    )
    measured = []
    for count, _ in enumerate(stream.take(CHECKS[-1]), start=1):
        if count in CHECKS:
            measured.append(resident_megabytes())
            batch_size = config.train.batch_size
            line = f"after {count} batches of {batch_size}: {measured[-1]:.0f} MB resident"
            print(line, flush=True)
    print(f"ratio: {measured[-1] / measured[0]:.3f}")


def resident_megabytes():
    """Resident memory of this process; Linux only."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    sys.exit(main())
