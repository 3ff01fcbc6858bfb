"""ssd import --source FILE --output RUN"""

import os
import pathlib
import sys

from absl import flags

from ssd_tf import commandline, model_flags, output_folder
from ssd_tf.errors import ConfigError
from ssd_tf.weights import label_files
from ssd_tf.weights.importers import downloads, file_kinds

USAGE = """
Make a run folder of a third-party detector, to detect, evaluate and export with, and to fine-tune.
It is downloaded by its name (--list), or read from a file whose content says which one it is:

  SSDs, SSDLites and SSDs with FPN or FPN-lite on MobileNet v1 and v2, and with FPN on ResNet-50
    and -101, of the TF Object Detection API: a TFLite file, a frozen graph (.pb), a SavedModel, a
    checkpoint, or a download of its zoo, unpacked or .tar.gz; those of TensorFlow 2 with their
    pipeline.config
  ssd300_vgg16 and ssdlite320_mobilenet_v3_large of torchvision: .pth or .safetensors

  ssd import --list
  ssd import --source NAME --output runs/NAME
  ssd import --source FILE --output runs/NAME [--labels FILE] [--set KEY=VALUE ...]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "source",
    None,
    "What to import: a name of --list, a file, a folder or a checkpoint.",
    flag_values=FLAGS,
)
flags.DEFINE_string("output", None, "Run folder to make.", flag_values=FLAGS)
flags.DEFINE_string(
    "labels",
    None,
    "Class names: a text file with one per line, a label map (.pbtxt) or a COCO instances file "
    "(.json); default: COCO's names for a detector of --list, else the ids.",
    flag_values=FLAGS,
)
model_flags.define_input_range(FLAGS)
flags.DEFINE_bool(
    "keep_settings",
    False,
    "Keep the file's post-processing even if it suppresses across classes or returns fewer than "
    "100 detections.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "list", False, "Print the detectors that can be downloaded by name.", flag_values=FLAGS
)
flags.DEFINE_string(
    "pipeline_config",
    None,
    "pipeline.config of a checkpoint or SavedModel of TensorFlow 2; default: beside it or one "
    "folder up.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "set",
    [],
    "Replace a value that the file does not state, e.g. model.input_hw=[320,320]; may be repeated.",
    flag_values=FLAGS,
)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, argv=argv)


def _main(values, positional):
    if values.list:
        _print_names()
        return
    for name in ("source", "output"):
        if values[name].value is None:
            raise flags.Error(f"--{name} is missing")
    overrides = model_flags.read_overrides(values, positional)
    output = pathlib.Path(values.output).resolve()
    if not downloads.is_name(values.source):
        file_kinds.check_source(values.source)
    if values.labels is not None:
        label_files.check_label_file(values.labels)
    if output_folder.OutputFolder(output).path.is_dir() and any(output.iterdir()):
        raise ConfigError(f"--output: {values.output} exists already: give another name")
    commandline.import_tensorflow()
    from ssd_tf.weights.importers.detectors import Reading, import_detector

    input_range = model_flags.read_input_range(values)
    reading = Reading(values.pipeline_config, input_range, values.keep_settings)
    import_detector(values.source, output, values.labels, overrides, reading)
    drawn = os.path.join(values.output, "drawn")
    start = ["--config", "configs/finetune.yaml", "--set", f"init_from={values.output}"]
    commandline.print_next(
        ["ssd", "detect", "--model", values.output, "--output", drawn, "IMAGES"],
        ["ssd", "train", *start, "--data", "DATA", "--workdir", "runs/NAME"],
    )


def _print_names():
    print(f"{'name':44} {'AP':>5} {'about MB':>8}  licence")
    for name, entry in downloads.DETECTORS.items():
        print(f"{name:44} {entry.ap / 100:5.3f} {entry.megabytes:8d}  {entry.licence}")


if __name__ == "__main__":
    sys.exit(main())
