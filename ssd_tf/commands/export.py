"""python export.py --workdir RUN --output DIR [--formats ...]"""

import os
import pathlib
import sys
import typing

from absl import flags, logging
from rich.console import Console
from rich.table import Table

from ssd_tf import commandline, files
from ssd_tf.config import nearest
from ssd_tf.exporting import folder as export_folder
from ssd_tf.exporting.formats import FORMATS, file_name, is_calibrated
from ssd_tf.user_files import check_exists

_DEFAULT_FORMATS = ("saved_model", "tflite_float32")
_FEWEST_CALIBRATION_IMAGES = 10
USAGE = f"""
Export a run to a SavedModel and to TFLite, and compare their detections with the run's own.

  python export.py --workdir runs/NAME --output DIR [--formats {",".join(_DEFAULT_FORMATS)}]
    [--data DIR --verify_split val --calibration_split train] [--max_ap_drop 0.01]
    [--overwrite] [--set eval.KEY=VALUE] [--set export.KEY=VALUE]

formats: {", ".join(FORMATS)}
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("workdir", None, "Run folder.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder for the exports.", flag_values=FLAGS)
flags.DEFINE_list(
    "formats", list(_DEFAULT_FORMATS), "What to write, separated by commas.", flag_values=FLAGS
)
flags.DEFINE_string(
    "data",
    None,
    "Folder of TFRecords; its images verify the exports and calibrate int8.",
    flag_values=FLAGS,
)
flags.DEFINE_string("verify_split", "val", "Split of --data to verify with.", flag_values=FLAGS)
flags.DEFINE_integer(
    "verify_images",
    20,
    "Number of images on which detections are paired; AP is measured on the whole split.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "calibration_split", "train", "Split of --data to calibrate int8 with.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "calibration_images",
    100,
    "Number of images to calibrate with.",
    lower_bound=_FEWEST_CALIBRATION_IMAGES,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_ap_drop",
    None,
    "Fail, and leave no exports, if one has an AP lower than the run's by more than this.",
    lower_bound=0,
    upper_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "web_files",
    None,
    "Folder of the npm package @mediapipe/tasks-vision, which `web` copies from.",
    flag_values=FLAGS,
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


class Images(typing.NamedTuple):
    """calibration: float32 at input_hw. verification: Examples of the whole split, None without
    data. paired: the first of them, uint8. classes: of the data.
    """

    calibration: list
    verification: typing.Any = None
    paired: typing.Sequence = ()
    classes: typing.Sequence = ()


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("workdir", "output"), argv)


def _main(values, positional):
    output = pathlib.Path(values.output).resolve()
    overrides = commandline.read_overrides(values, positional)
    _check_formats(values)
    _check_output(output, values.overwrite)
    check_exists(values.workdir, "run folder")
    commandline.import_tensorflow()
    from ssd_tf.exporting import verify, writing
    from ssd_tf.inference.run import load_run

    run = load_run(values.workdir, overrides, values.raw_weights)
    images = _read_images(values, run.config)
    with export_folder.publishing(output) as partial:
        paths = {name: partial / file_name(name) for name in values.formats}
        writing.write_formats(run, paths, partial, images.calibration, values.web_files)
        verify.check_names(paths, partial, run.dataset_info.names)
        verified = _verify(run, paths, images, values.max_ap_drop)
        content = {
            "workdir": str(values.workdir),
            "classes": run.dataset_info.names,
            "settings": {**_describe_settings(run), "raw_weights": values.raw_weights},
            "verify": verified,
            "files": export_folder.list_files(partial),
        }
        files.write_json(partial / export_folder.REPORT, content)
    if verified:
        _print_table(verified)
    logging.info("written: %s in %s", ", ".join(path.name for path in paths.values()), output)


def _check_formats(values):
    if not values.formats:
        raise flags.Error(f"--formats: name at least one of {', '.join(FORMATS)}")
    for name in values.formats:
        if name not in FORMATS:
            several = [known for known in FORMATS if name and known.startswith(name)]
            hint = nearest(name, FORMATS) if len(several) < 2 else f"; give {', '.join(several)}"
            raise flags.Error(f"--formats: unknown format {name!r}{hint}")
    needs_images = list(filter(is_calibrated, values.formats))
    if needs_images and not values.data:
        raise flags.Error(f"{needs_images[0]} needs --data DIR, whose images calibrate it")
    if values.max_ap_drop is not None and not values.data:
        raise flags.Error("--max_ap_drop needs --data DIR to measure AP on")


def _check_output(output, overwrite):
    place = next(path for path in (output, *output.parents) if path.exists())
    if not place.is_dir():
        raise FileExistsError(f"--output {place} is a file; name a folder")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"--output: {place} is not writable")
    if output.is_dir() and export_folder.has_content(output) and not overwrite:
        raise FileExistsError(
            f"{output} already exists and is not empty; give --overwrite to replace exports in it"
        )


def _describe_settings(run):
    """Values in use: eval as in the Keras model and the SavedModel, export as in TFLite files."""
    from ssd_tf.exporting import tflite

    operator = tflite.operator_postprocessor(run.config, run.network.default_boxes)
    return {
        "eval": run.config.eval.model_dump(),
        "export": {
            "max_detections": operator.max_detections,
            "score_floor": operator.score_floor,
        },
    }


def _read_images(values, config):
    if values.data is None:
        return Images([])
    from ssd_tf.data import bad_records, dataset_json, split_examples

    dataset_info = dataset_json.read_dataset(values.data)
    split = values.verify_split
    skipped = bad_records.scan_bad_records(dataset_info, split, config.data.on_bad_record)
    examples = split_examples.read_examples(values.data, split, skipped)
    with bad_records.explain_record_errors(values.data, split):
        some = examples.take(values.verify_images)
        paired = [example["image"] for example in some.as_numpy_iterator()]
    if not paired:
        raise ValueError(f"split {split} of {values.data} has no images to verify with")
    calibration = []
    if any(map(is_calibrated, values.formats)):
        calibration = _read_calibration(values, config, dataset_info)
    return Images(calibration, examples, paired, dataset_info.classes)


def _read_calibration(values, config, dataset_info):
    from ssd_tf.data import bad_records, split_examples
    from ssd_tf.data.images import resize

    split = values.calibration_split
    skipped = bad_records.scan_bad_records(dataset_info, split, config.data.on_bad_record)
    examples = split_examples.read_examples(values.data, split, skipped)
    examples = examples.take(values.calibration_images)
    with bad_records.explain_record_errors(values.data, split):
        images = [
            resize(example["image"], config.model.input_hw).numpy()
            for example in examples.as_numpy_iterator()
        ]
    if len(images) < _FEWEST_CALIBRATION_IMAGES:
        raise ValueError(
            f"int8 needs at least {_FEWEST_CALIBRATION_IMAGES} images to calibrate on, split "
            f"{split} of {values.data} has {len(images)}; --calibration_split names another"
        )
    return images


def _verify(run, paths, images, max_ap_drop):
    """What `verify_formats` says; empty without images."""
    if images.verification is None:
        logging.info("not compared with the run's own model: give --data DIR to do so")
        return {}
    from ssd_tf.exporting import verify

    report = verify.verify_formats(run, paths, images.verification, images.paired, images.classes)
    for name, entry in report.items():
        if name != "keras":
            logging.info(
                "%s and the Keras model: %d of %d detections on %d images agree",
                name,
                entry["detections"] - entry["unpaired"],
                entry["detections"],
                entry["images"],
            )
    verify.check_drop(report, max_ap_drop)
    return report


def _print_table(report):
    table = Table("form", "AP", "AP50", "agree", "ms per image by threads", "MB")
    for name, entry in report.items():
        agree = ""
        if "detections" in entry:
            agree = f"{entry['detections'] - entry['unpaired']} of {entry['detections']}"
        times = ", ".join(f"{count}: {ms:.1f}" for count, ms in entry["latency_ms"].items())
        numbers = (f"{entry['AP']:.4f}", f"{entry['AP50']:.4f}", agree, times)
        table.add_row(name, *numbers, f"{entry['megabytes']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
