"""ssd train --config C --data DIR --workdir RUN [--set KEY=VALUE ...]"""

import os
import sys

from absl import flags

import ssd_tf
from ssd_tf import commandline, model_flags
from ssd_tf.config import load_config
from ssd_tf.data import dataset_json
from ssd_tf.user_files import check_output_folder

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
model_flags.define_overrides(FLAGS)
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
    config = load_config(values.config, model_flags.read_overrides(values, positional))
    dataset_json.read_dataset(values.data).shards(config.data.train_split)
    check_output_folder(values.workdir, "--workdir")
    result = ssd_tf.train(
        config, values.data, values.workdir, values.hosts, values.task, values.profile_steps
    )
    _print_next(values, config.data.val_split, "AP" in result)


def _print_next(values, split, is_evaluated):
    run = ["--model", values.workdir]
    if is_evaluated:
        output = os.path.join(values.workdir, split)
        data = ["--data", values.data, "--split", split]
        commandline.print_next(["ssd", "evaluate", *run, *data, "--output", output])
    else:
        output = os.path.join(values.workdir, "drawn")
        commandline.print_next(["ssd", "detect", *run, "--output", output, "IMAGES"])


if __name__ == "__main__":
    sys.exit(main())
