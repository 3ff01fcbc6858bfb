"""All formats of a run, and what their clients need beside them."""

import shutil

from absl import logging

from ssd_tf import files
from ssd_tf.exporting import saved_model, tflite, web
from ssd_tf.exporting.formats import has_operator
from ssd_tf.inference import raw_decoder
from ssd_tf.inference.gray_range import write_gray_range
from ssd_tf.weights.label_files import format_names


def write_formats(run, paths, folder, calibration=(), web_files=None):
    """Write all formats of a run, {name: path in the folder}, and the files that clients need.

    calibration: float32 images at input_hw, for int8. web_files: see `web.export_page`. Raises what
    the exporters raise.
    """
    names = run.dataset_info.names
    files.write_text(folder / "labels.txt", format_names(names))
    gray_range = run.dataset_info.gray_range
    write_raw_settings(run.config, run.network.default_boxes, folder)
    if any(name.endswith("_raw") for name in paths):
        shutil.copyfile(raw_decoder.__file__, folder / "raw_decoder.py")
    converter = tflite.Converter(run.config, run.network, names, calibration)
    for name, path in paths.items():
        if name == "saved_model":
            saved_model.export_saved_model(run.config, run.network, names, path, gray_range)
        elif name == "web":
            web.export_page(path, converter, web_files)
        else:
            precision, _, raw = name.removeprefix("tflite_").partition("_")
            converter.export(path, tflite.Form(precision, bool(raw)))
            write_gray_range(path, gray_range)
        logging.info("converted: %s", path.name)
    differences = tflite.operator_differences(run.config, run.network.default_boxes)
    with_operator = [path.name for name, path in paths.items() if has_operator(name)]
    if differences and with_operator:
        logging.info(
            "%s: its operator differs from the Keras model: %s",
            ", ".join(with_operator),
            "; ".join(differences),
        )


def write_raw_settings(config, default_boxes, folder):
    """Write default_boxes.json, which `raw_decoder.load_settings` reads."""
    files.write_json(folder / "default_boxes.json", tflite.raw_settings(config, default_boxes))
