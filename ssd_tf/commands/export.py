"""python export.py --workdir RUN --output DIR [--formats ...]"""

import pathlib

import numpy as np
from absl import flags, logging

from ssd_tf import commandline, files
from ssd_tf.config import nearest

FORMATS = ("saved_model", "tflite_float32")
USAGE = f"""
Export a run to a SavedModel and to TFLite, and compare their detections with the run's own.

  python export.py --workdir runs/NAME --output DIR [--formats {",".join(FORMATS)}]
    [--data DIR --verify_split val] [--overwrite] [--set eval.KEY=VALUE] [--set export.KEY=VALUE]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("workdir", None, "Run folder.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder for the exports.", flag_values=FLAGS)
flags.DEFINE_list(
    "formats", list(FORMATS), "What to write, separated by commas.", flag_values=FLAGS
)
flags.DEFINE_string(
    "data", None, "Folder of TFRecords; its images verify the exports.", flag_values=FLAGS
)
flags.DEFINE_string("verify_split", "val", "Split of --data to verify with.", flag_values=FLAGS)
flags.DEFINE_integer(
    "verify_images", 20, "Number of images to verify with.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_bool("overwrite", False, "Replace existing exports.", flag_values=FLAGS)
flags.DEFINE_bool(
    "raw_weights",
    False,
    "Use the weights of the last step, not the averaged ones (train.ema).",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "set",
    [],
    "Replace a value of the run's config, e.g. eval.nms_iou=0.5 or export.max_detections=50; "
    "may be repeated.",
    flag_values=FLAGS,
)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("workdir", "output"), argv)


def _main(values, positional):
    output = pathlib.Path(values.output)
    overrides = commandline.read_overrides(values, positional)
    paths = _choose_paths(values, output)
    commandline.import_tensorflow()
    from ssd_tf.inference import detector
    from ssd_tf.inference.run import load_run

    run = load_run(values.workdir, overrides, values.raw_weights)
    images = _read_images(values, run.config.data.on_bad_record)
    output.mkdir(parents=True, exist_ok=True)
    (output / "export.json").unlink(missing_ok=True)  # written last: its presence means complete
    files.write_text(output / "labels.txt", "".join(f"{name}\n" for name in run.dataset_info.names))
    _write_default_boxes(run, output / "default_boxes.json")
    for name, path in paths.items():
        _write_format(name, path, run)
    reference = detector.keras_detector(run.config, run.network, run.dataset_info.names)
    content = {
        "workdir": str(values.workdir),
        "classes": run.dataset_info.names,
        "settings": {**_describe_settings(run), "raw_weights": values.raw_weights},
        "verify": _verify(reference, paths, images),
    }
    files.write_json(output / "export.json", content)


def _choose_paths(values, output):
    """The path of each format to write. Raises flags.Error or FileExistsError."""
    for name in values.formats:
        if name not in FORMATS:
            raise flags.Error(f"--formats: unknown format {name!r}{nearest(name, FORMATS)}")
    paths = {name: output / _file_name(name) for name in values.formats}
    existing = [path for path in paths.values() if path.exists()]
    if existing and not values.overwrite:
        raise FileExistsError(f"{existing[0]} already exists; give --overwrite to replace it")
    return paths


def _file_name(name):
    return name if name == "saved_model" else f"model_{name.removeprefix('tflite_')}.tflite"


def _write_format(name, path, run):
    from ssd_tf.export import saved_model, tflite

    if name == "saved_model":
        saved_model.export_saved_model(run.config, run.network, run.dataset_info.names, path)
        differences = []
    else:
        tflite.export_tflite(run.config, run.network, run.dataset_info.names, path)
        differences = tflite.operator_differences(run.config, run.network.default_boxes)
    logging.info("written: %s", path)
    if differences:
        logging.info(
            "%s: its operator differs from the Keras model: %s", path.name, "; ".join(differences)
        )


def _write_default_boxes(run, path):
    content = {
        "score_activation": run.config.loss.score_activation,
        "variances": list(run.config.boxes.variances),
        "boxes": np.round(run.network.default_boxes.astype(float), 7).tolist(),
    }
    files.write_json(path, content)


def _describe_settings(run):
    """Values in use: eval as in the Keras model and the SavedModel, export as in TFLite files."""
    from ssd_tf.export import tflite

    operator = tflite.operator_postprocessor(run.config, run.network.default_boxes)
    return {
        "eval": run.config.eval.model_dump(),
        "export": {
            "max_detections": operator.max_detections,
            "score_floor": operator.score_floor,
        },
    }


def _read_images(values, on_bad_record):
    """The images to verify the exports with; none without --data."""
    if values.data is None:
        return []
    from ssd_tf.data import bad_records, dataset_json, pipeline

    dataset_info = dataset_json.read_dataset(values.data)
    skipped = bad_records.scan_bad_records(dataset_info, values.verify_split, on_bad_record)
    examples = pipeline.read_examples(values.data, values.verify_split, skipped)
    with bad_records.explain_record_errors(values.data, values.verify_split):
        some = examples.take(values.verify_images)
        return [example["image"] for example in some.as_numpy_iterator()]


def _verify(reference, paths, images):
    """Compare each export with the Keras model on images; empty without any."""
    if not images:
        logging.info("not compared with the run's own model: give --data DIR to do so")
        return {}
    from ssd_tf.export import verify
    from ssd_tf.inference.detector import load_detector

    report = {}
    for name, path in paths.items():
        report[name] = verify.compare(reference, load_detector(path), images)
        logging.info(
            "%s and the Keras model: %d of %d detections on %d images agree",
            name,
            report[name]["detections"] - report[name]["unpaired"],
            report[name]["detections"],
            len(images),
        )
    return report
