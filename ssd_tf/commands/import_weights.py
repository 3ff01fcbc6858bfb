"""python -m ssd_tf.commands.import_weights --source FILE --output RUN"""

import hashlib
import os
import pathlib
import shutil
import sys

from absl import flags, logging

from ssd_tf import commandline, files, output_folder
from ssd_tf.config import save_config
from ssd_tf.errors import ConfigError
from ssd_tf.weights import file_kinds

USAGE = """
Make a run folder of someone else's detector, to detect, evaluate and export with, and to fine-tune.
Which one it is follows from the file:

  SSDs and SSDLites on MobileNet v1 and v2 of the TF Object Detection API: a TFLite file, a frozen
    graph (.pb), a SavedModel or a checkpoint of TensorFlow 1
  ssd300_vgg16 and ssdlite320_mobilenet_v3_large of torchvision: .pth or .safetensors

  python -m ssd_tf.commands.import_weights --source FILE --output runs/NAME [--labels FILE]
    [--set KEY=VALUE ...]
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
    _check_paths(values, output)
    commandline.import_tensorflow()
    from ssd_tf.weights import detectors, imported, label_files

    stated = detectors.read_detector(values.source)
    detector = imported.override(stated, overrides)
    count = imported.num_classes(detector, values.source)
    classes = label_files.read_classes(values.labels, count, values.source)
    config, network = imported.build_network(detector, classes, values.source)
    imported.check_overrides(stated, config, network, values.source)
    origin = f"{pathlib.Path(values.source).name} ({detector.kind}{_hash(values.source)})"
    config = config.model_copy(update={"imported_from": origin})
    for note in detector.notes:
        logging.info("%s", note)
    if values.labels is None:
        logging.info("without --labels, the classes are called by their ids: 1 to %d", count)
    _write_run(config, network, classes, output)
    unused = count - len(classes)
    logging.info(
        "written: %s, %s; number of classes: %d%s",
        output,
        detector.kind,
        len(classes),
        f" ({unused} without a name left out)" if unused else "",
    )


def _check_paths(values, output):
    """Raise ConfigError for what can be told before TensorFlow is imported."""
    file_kinds.check_source(values.source)
    labels = values.labels
    if labels is not None:
        file_kinds.check_label_file(labels)
    if output_folder.OutputFolder(output).path.is_dir() and any(output.iterdir()):
        raise ConfigError(f"--output: {values.output} exists already: give another name")


def _hash(source):
    """The SHA-256 of a file, for the config; nothing for a folder or a checkpoint."""
    path = pathlib.Path(source)
    if not path.is_file():
        return ""
    return f", SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _write_run(config, network, classes, output):
    """Write the run folder atomically."""
    from ssd_tf.weights import runs

    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    best = temporary / "checkpoints" / "best"
    try:
        best.mkdir(parents=True)
        runs.write_weights(network.model, best / "ckpt-0")
        files.write_json(
            temporary / "dataset.json", {"version": 1, "classes": classes, "splits": {}}
        )
        save_config(config, temporary / "config.yaml")
        if output.is_dir():
            output.rmdir()
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
