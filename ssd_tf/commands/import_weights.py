"""ssd import --source FILE --output RUN"""

import pathlib
import sys

from absl import flags

from ssd_tf import commandline, output_folder
from ssd_tf.errors import ConfigError
from ssd_tf.weights import label_files
from ssd_tf.weights.importers import file_kinds

USAGE = """
Make a run folder of a third-party detector, to detect, evaluate and export with, and to fine-tune.
The content of the file says which one it is:

  SSDs and SSDLites on MobileNet v1 and v2 of the TF Object Detection API: a TFLite file, a frozen
    graph (.pb), a SavedModel or a checkpoint of TensorFlow 1
  ssd300_vgg16 and ssdlite320_mobilenet_v3_large of torchvision: .pth or .safetensors

  ssd import --source FILE --output runs/NAME [--labels FILE] [--set KEY=VALUE ...]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "source", None, "The file, SavedModel folder or checkpoint to import.", flag_values=FLAGS
)
flags.DEFINE_string("output", None, "Run folder to make.", flag_values=FLAGS)
flags.DEFINE_string(
    "labels",
    None,
    "Class names: a text file with one per line, a label map (.pbtxt) or a COCO instances file "
    "(.json); without it the classes are called by their ids.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "set",
    [],
    "Replace a value that the file does not state, e.g. model.input_hw=[320,320]; may be repeated.",
    flag_values=FLAGS,
)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("source", "output"), argv)


def _main(values, positional):
    overrides = commandline.read_overrides(values, positional)
    output = pathlib.Path(values.output).resolve()
    file_kinds.check_source(values.source)
    if values.labels is not None:
        label_files.check_label_file(values.labels)
    if output_folder.OutputFolder(output).path.is_dir() and any(output.iterdir()):
        raise ConfigError(f"--output: {values.output} exists already: give another name")
    commandline.import_tensorflow()
    from ssd_tf.weights.importers.detectors import import_detector

    import_detector(values.source, output, values.labels, overrides)


if __name__ == "__main__":
    sys.exit(main())
