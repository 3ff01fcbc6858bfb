"""ssd train --config C --data DIR --workdir RUN [--set KEY=VALUE ...]"""

import sys

from absl import flags

from ssd_tf import commandline
from ssd_tf.config import load_config
from ssd_tf.user_files import check_exists

USAGE = """
Train a detector on TFRecords. The same command on an existing run folder resumes from its last
checkpoint. SIGINT (Ctrl-C) and SIGTERM save, then end it.

  ssd train --config configs/NAME.yaml --data DIR --workdir runs/NAME [--set KEY=VALUE ...]
    [--hosts HOST:PORT,HOST:PORT --task N]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("config", None, "Experiment file (YAML).", flag_values=FLAGS)
flags.DEFINE_string("data", None, "Folder of TFRecords with dataset.json.", flag_values=FLAGS)
flags.DEFINE_string(
    "workdir", None, "Run folder: checkpoints, metrics.csv, tensorboard.", flag_values=FLAGS
)
commandline.define_overrides(FLAGS)
flags.DEFINE_list(
    "hosts",
    None,
    "Several machines: host:port of each, the same list everywhere. TF_CONFIG and SLURM work too.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "task", None, "Index of this machine in --hosts, from 0.", lower_bound=0, flag_values=FLAGS
)
flags.DEFINE_string(
    "profile_steps",
    None,
    "A:B records a profile of the steps from A to B for TensorBoard.",
    flag_values=FLAGS,
)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("config", "data", "workdir"), argv)


def _main(values, positional):
    config = load_config(values.config, commandline.read_overrides(values, positional))
    check_exists(values.data, "data folder")
    commandline.import_tensorflow()
    from ssd_tf.training.train import train

    train(config, values.data, values.workdir, values.hosts, values.task, values.profile_steps)


if __name__ == "__main__":
    sys.exit(main())
