"""Export a run: write its formats, and compare their detections with those of the run itself."""

import os
import pathlib
import shutil
from collections.abc import Sequence

from absl import logging

from ssd_tf import files
from ssd_tf.data import bad_records, dataset_json, split_examples
from ssd_tf.data.images import resize
from ssd_tf.exporting import folder, saved_model, tflite, verify, web
from ssd_tf.inference import raw_decoder
from ssd_tf.inference.exported import write_gray_range
from ssd_tf.inference.loading import load_run
from ssd_tf.inference.thresholds import DEFAULT_SCORE, THRESHOLDS_FILE
from ssd_tf.results import Result
from ssd_tf.user_files import check_exists, show_name
from ssd_tf.weights.label_files import format_names

_HEADER = ("format", "AP", "AP50", "agree", "ms per image by threads", "MB")


def export(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    formats: Sequence[str] = folder.DEFAULT_FORMATS,
    *,
    data: str | os.PathLike[str] | None = None,
    verify_split: str = "val",
    verify_images: int = 20,
    calibration_split: str = "train",
    calibration_images: int = 100,
    max_ap_drop: float | None = None,
    web_files: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    raw_weights: bool = False,
) -> Result:
    """Export a run folder into the folder `output`.

    formats: names of `folder.FORMATS`. data: a folder of TFRecords, or None; AP is measured on
    verify_split, detections are paired on its first verify_images images, and int8 is calibrated
    with calibration_images images of calibration_split. max_ap_drop: the maximum loss of AP, or
    None. web_files: as `web.export_page` takes it. overwrite: replace earlier exports in `output`.
    overrides, raw_weights: as `load_run` takes them.
    Returns a Result with the content of export.json and the path of each format.
    Raises OSError, ConfigError or ValueError, and leaves `output` as it was then.
    """
    folder.check_request(output, formats, data, max_ap_drop, overwrite, web_files)
    check_exists(workdir, "run folder")
    run = load_run(workdir, overrides, raw_weights)
    if run.thresholds:
        run = run._replace(thresholds=run.thresholds.complete(run.dataset_info.names))
    dataset_info = None
    calibration = []
    if data is not None:
        dataset_info = dataset_json.read_dataset(data)
        examples, images = _read_verification(dataset_info, verify_split, verify_images, run.config)
    if any(map(folder.is_calibrated, formats)):
        calibration = _read_calibration(
            dataset_info, calibration_split, calibration_images, run.config
        )
    with folder.publishing(pathlib.Path(output).resolve()) as partial:
        paths = {name: partial / folder.file_name(name) for name in formats}
        write_formats(run, paths, partial, calibration, web_files, show_name(workdir))
        verify.check_names(paths, partial, run.dataset_info.names)
        verified = {}
        if dataset_info is None:
            logging.info("not compared with the run's own model: give --data DIR to do so")
        else:
            verified = verify.verify_formats(run, paths, examples, images, dataset_info.classes)
            verify.check_drop(verified, max_ap_drop)
        _report_differences(run, paths, verified)
        report = {
            "workdir": str(workdir),
            "classes": run.dataset_info.names,
            "settings": {**_describe_settings(run), "raw_weights": raw_weights},
            "thresholds": run.thresholds and run.thresholds.to_json(),
            "verify": verified,
            "files": folder.list_files(partial),
        }
        files.write_json(partial / folder.REPORT, report)
    output = pathlib.Path(output)
    exported = {name: output / folder.file_name(name) for name in formats}
    return Result(output, report, exported, _HEADER, tuple(_describe_verified(verified)))


def _describe_verified(verified):
    """A row of the table for each format that was verified."""
    for name, entry in verified.items():
        agree = ""
        if "detections" in entry:
            agree = f"{entry['detections'] - entry['unpaired']} of {entry['detections']}"
        times = ", ".join(f"{count}: {ms:.1f}" for count, ms in entry["latency_ms"].items())
        numbers = (f"{entry['AP']:.4f}", f"{entry['AP50']:.4f}", agree, times)
        yield name, *numbers, f"{entry['megabytes']:.2f}"


def _read_verification(dataset_info, split, count, config):
    """(Examples of the split, its first images); bad records are reported before any conversion."""
    examples = _read_split(dataset_info, split, config)
    images = _take_images(examples, count, dataset_info, split)
    if not images:
        raise ValueError(
            f"split {split} of {dataset_info.folder} has no images to verify with; "
            "--verify_split names another"
        )
    return examples, images


def _read_split(dataset_info, split, config):
    """The Examples of a split, a dataset."""
    skipped = bad_records.scan_bad_records(dataset_info, split, config.data.on_bad_record)
    return split_examples.read_examples(dataset_info.folder, split, skipped)


def _take_images(examples, count, dataset_info, split):
    with bad_records.explain_record_errors(dataset_info.folder, split):
        return [example["image"] for example in examples.take(count).as_numpy_iterator()]


def _read_calibration(dataset_info, split, count, config):
    """Images as `convert_network` takes them."""
    examples = _read_split(dataset_info, split, config)
    images = _take_images(examples, count, dataset_info, split)
    if len(images) < folder.MIN_CALIBRATION_IMAGES:
        raise ValueError(
            f"int8 needs at least {folder.MIN_CALIBRATION_IMAGES} images to calibrate on, split "
            f"{split} of {dataset_info.folder} has {len(images)}; --calibration_split names another"
        )
    return [resize(image, config.model.input_hw).numpy() for image in images]


def _describe_settings(run):
    """Values in use: eval as in the Keras model and the SavedModel, export as in TFLite files."""
    operator = tflite.operator_postprocessor(run.config, run.network.default_boxes)
    limits = operator.eval.model_dump(include={"max_detections", "score_floor"})
    return {"eval": run.config.eval.model_dump(), "export": limits}


def write_formats(run, paths, output, calibration=(), web_files=None, title="Object detector"):
    """Write all formats of a run, {name: path in `output`}, and the files that clients need.

    calibration: as `convert_network` takes it. web_files: see `web.export_page`. title: of the web
    page. Raises what the exporters raise.
    """
    names = run.dataset_info.names
    gray_range = run.dataset_info.gray_range
    files.write_text(output / "labels.txt", format_names(names))
    thresholds = run.thresholds
    if thresholds:
        files.write_json(output / THRESHOLDS_FILE, thresholds.to_json())
    scores = thresholds and thresholds.of(names)
    write_raw_settings(run.config, run.network.default_boxes, output, scores)
    if any(name.endswith("_raw") for name in paths):
        shutil.copyfile(raw_decoder.__file__, output / "raw_decoder.py")
    converter = tflite.Converter(run.config, run.network, names, calibration, thresholds)
    for name, path in paths.items():
        if name == "saved_model":
            saved_model.export_saved_model(
                run.config, run.network, names, path, gray_range, thresholds
            )
        elif name == "web":
            score = tflite.client_score(run.config, thresholds, DEFAULT_SCORE)
            web.export_page(path, converter, web_files, title, score)
        else:
            precision, _, raw = name.removeprefix("tflite_").partition("_")
            converter.export(path, precision, bool(raw))
            write_gray_range(path, gray_range)
        logging.info("converted: %s", path.name)


def _report_differences(run, paths, verified):
    """Log what the operator may find otherwise, as far as the verified images show that it can."""
    most_objects = verified["keras"]["most_objects"] if verified else float("inf")
    differences = tflite.operator_differences(run.config, run.network.default_boxes, most_objects)
    with_operator = [path.name for name, path in paths.items() if folder.has_operator(name)]
    if differences and with_operator:
        logging.info(
            "%s: its post-processing differs from the run's: %s",
            ", ".join(with_operator),
            "; ".join(differences),
        )


def write_raw_settings(config, default_boxes, output, scores=None):
    """Write default_boxes.json, which `raw_decoder.load_settings` reads; see `raw_settings`."""
    content = tflite.raw_settings(config, default_boxes, scores)
    files.write_json(output / "default_boxes.json", content)
