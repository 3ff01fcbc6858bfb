"""Fit the sizes and aspect ratios of default boxes ("anchors" in other frameworks) to a data set.

    ssd fit-boxes DIR --config configs/NAME.yaml --output fitted.yaml

The result is a file that `base:` can take: `base: [NAME.yaml, fitted.yaml]`. The numbers of maps
and of default boxes per cell stay those of the config. No default box becomes longer than what its
map sees of the image (its receptive field).
"""

import os
import pathlib
import sys

from absl import flags

from ssd_tf import commandline, files, model_flags
from ssd_tf.config import load_config
from ssd_tf.data import dataset_json

USAGE = __doc__
FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "config", None, "Experiment file whose default boxes are fitted.", flag_values=FLAGS
)
model_flags.define_overrides(FLAGS)
flags.DEFINE_string("output", None, "YAML file to write.", flag_values=FLAGS)
flags.DEFINE_string(
    "split", None, "Split to fit to; default: the config's data.train_split.", flag_values=FLAGS
)
flags.DEFINE_integer("tries", 4000, "Number of changes to try.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "seed", 0, "Another seed tries other changes.", lower_bound=0, flag_values=FLAGS
)
# The first line of a file by this command, which it may replace.
_FIRST_LINE = "# Default boxes fitted to"


def _fit(values, rest):
    if not rest:
        raise flags.Error("give the folder of a converted data set (see --help)")
    overrides = model_flags.read_overrides(values, rest[1:])
    output = pathlib.Path(values.output)
    _check_output(output)
    config = load_config(values.config, overrides)
    dataset_info = dataset_json.read_dataset(rest[0])
    split = values.split or config.data.train_split
    dataset_info.shards(split)  # raises before TensorFlow is imported
    commandline.import_tensorflow()
    from data_tools.analysis.fitting import fit_split

    fitted = fit_split(dataset_info, split, config, values.tries, values.seed)
    origin = f"starting from {' '.join([str(values.config), *overrides])}"
    comment = f"{_FIRST_LINE} {fitted.objects}, {origin}.\n{fitted.change}".replace("\n", "\n# ")
    files.write_text(output, f"{comment}\n{fitted.yaml}")
    base = os.path.relpath(values.config, output.parent)
    print(f"{fitted.change}\nwritten: {output}; a config in that folder uses it with")
    print(f"base: [{base}, {output.name}]")


def _check_output(output):
    if not output.parent.is_dir():
        raise flags.Error(f"--output: there is no folder {output.parent}")
    if output.exists() and not (
        output.is_file() and output.read_bytes().startswith(_FIRST_LINE.encode())
    ):
        raise flags.Error(
            f"--output {output} exists and was not written by this command; give another name, and "
            "use both with `base:`"
        )


def main(argv=None):
    return commandline.run(_fit, FLAGS, USAGE, required=("config", "output"), argv=argv)


if __name__ == "__main__":
    sys.exit(main())
