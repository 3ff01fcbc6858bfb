"""python export.py --workdir RUN --output DIR [--formats ...]"""

import pathlib

import numpy as np
from absl import flags, logging

from ssd_tf import commandline
from ssd_tf.config import nearest

FORMATS = ("saved_model", "tflite_float32")
USAGE = f"""
Export a run to a SavedModel and to TFLite, and check that they find what the run's own model finds.

  python export.py --workdir runs/NAME --output DIR [--formats {",".join(FORMATS)}] [--data DIR --verify_split val] [--overwrite]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("workdir", None, "Run folder.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder for the exports.", flag_values=FLAGS)
flags.DEFINE_list("formats", list(FORMATS), "What to write.", flag_values=FLAGS)
flags.DEFINE_string(
    "data", None, "TFRecords whose pictures the exports are checked on.", flag_values=FLAGS
)
flags.DEFINE_string(
    "verify_split", "val", "Split of --data that they are checked on.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "verify_images",
    20,
    "Number of pictures that they are checked on.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_bool("overwrite", False, "Replace exports that are there already.", flag_values=FLAGS)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("workdir", "output"), argv)


def _main(options, rest):
    if rest:
        raise flags.Error(
            f"unexpected {rest[0]!r}; several formats are written with commas (see --help)"
        )
    for name in options.formats:
        if name not in FORMATS:
            raise flags.Error(f"--formats: unknown format {name!r}{nearest(name, FORMATS)}")
    output = pathlib.Path(options.output)
    paths = {name: output / _file_name(name) for name in options.formats}
    present = [str(path) for path in paths.values() if path.exists()]
    if present and not options.overwrite:
        raise FileExistsError(f"{present[0]} exists already; give --overwrite to replace it")
    commandline.import_tensorflow()
    from ssd_tf.export import saved_model, tflite
    from ssd_tf.files import write_json
    from ssd_tf.inference import detector

    config, info, network = detector.load_run(options.workdir)
    images = _read_pictures(options, config.data.on_bad_record)
    output.mkdir(parents=True, exist_ok=True)
    (output / "export.json").unlink(missing_ok=True)  # it comes back last
    (output / "labels.txt").write_text("".join(f"{name}\n" for name in info.names))
    _write_default_boxes(config, network.default_boxes, output)
    for name, path in paths.items():
        if name == "saved_model":
            saved_model.export_saved_model(config, network, info.names, path)
        else:
            tflite.export_tflite(config, network, len(info.classes), path)
        logging.info("written: %s", path)
    reference = detector.keras_detector(config, network, info.names)
    report = _verify(reference, paths, images)
    write_json(
        output / "export.json",
        {"workdir": str(options.workdir), "classes": info.names, "verify": report},
    )


def _file_name(name):
    return name if name == "saved_model" else f"model_{name.removeprefix('tflite_')}.tflite"


def _write_default_boxes(config, default_boxes, output):
    from ssd_tf.files import write_json

    boxes = np.round(default_boxes.astype(float), 7).tolist()
    content = {
        "scores": config.loss.score_activation,
        "variances": list(config.boxes.variances),
        "boxes": boxes,
    }
    write_json(output / "default_boxes.json", content)


def _read_pictures(options, on_bad_record):
    """The pictures that the exports are checked on; none without --data."""
    if options.data is None:
        return []
    from ssd_tf.data import bad_records, dataset_json, pipeline

    skipped = bad_records.scan_bad_records(
        dataset_json.read_dataset(options.data), options.verify_split, on_bad_record
    )
    examples = pipeline.read_examples(options.data, options.verify_split, skipped).take(
        options.verify_images
    )
    with bad_records.explain_record_errors(options.data, options.verify_split):
        return [example["image"] for example in examples.as_numpy_iterator()]


def _verify(reference, paths, images):
    """Each export against the Keras model on pictures; empty without any."""
    if not images:
        logging.info("not checked against the run's model: give --data DIR for that")
        return {}
    from ssd_tf.export import verify
    from ssd_tf.inference import detector

    report = {}
    for name, path in paths.items():
        report[name] = verify.compare(reference, detector.load_detector(path), images)
        paired, total = (
            report[name]["detections"] - report[name]["unpaired"],
            report[name]["detections"],
        )
        logging.info(
            "%s against the Keras model: %d of %d detections have their partner on the other side",
            name,
            paired,
            total,
        )
    return report
