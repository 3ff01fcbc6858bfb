"""Evaluate COCO files of detections, and compare evaluations; without TensorFlow."""

import os
import pathlib

from absl import logging

from ssd_tf import coco_rows, pixels
from ssd_tf.evaluation import coco_instances, coco_results, metrics, outputs
from ssd_tf.evaluation.json_files import read_json
from ssd_tf.evaluation.report.report import render_comparison
from ssd_tf.output_folder import OutputFolder

# Keys of the metrics.json that are compared.
_KEYS = {"coco", "voc", "per_class", "settings", "errors", "thresholds", "precision_at_recall"}


def evaluate_files(
    annotations,
    detections,
    output=None,
    images=None,
    gray_range=None,
    reference=False,
    precision=None,
) -> dict:
    """Evaluate a COCO results file on a COCO instances file; returns the metrics.

    images: the folder of the images that annotations names, for the report; gray_range: of those of
    16 bits, as `pixels.to_rgb` takes it. output, reference, precision: as in `evaluate.evaluate`.
    Raises FileNotFoundError, FileExistsError, or ValueError for files that are not COCO's.
    """
    folder = outputs.open_folder(output, [annotations, detections], reference)
    if images and not pathlib.Path(images).is_dir():
        raise FileNotFoundError(f"--images: no folder at {images}")
    instances = coco_instances.read_instances(annotations)
    truth = coco_instances.make_truth(instances)
    found = coco_results.read_results(detections, truth)
    for path, table in ((annotations, truth), (detections, found)):
        hint = coco_instances.find_unit_fault(table, truth.image_rows)
        if hint:
            logging.warning("%s: %s", path, hint)
    measured = metrics.measure(truth, found)
    measured["settings"] = {
        "detections": str(detections),
        "annotations": str(annotations),
        "images": len(truth.images),
    }
    measured |= {"latency_ms": {}, "images_per_second": {}, "model_mb": None}
    settings = [str(detections), f"{len(truth.images)} images of {annotations}"]
    fetch = None
    if images:

        def fetch(indices):
            return _read_images(images, truth, indices, gray_range)

    evaluation = outputs.Evaluation(
        measured, truth, found, instances, settings, fetch, precision=precision
    )
    return outputs.finish(evaluation, folder, reference)


def _read_images(folder, truth, indices, gray_range):
    """{index into truth.image_ids: its image}; a warning names each that cannot be read."""
    rows = truth.image_rows
    images = {}
    for index in sorted(indices):
        name = coco_rows.read_file_name(rows[index])
        try:
            if name is None:
                raise ValueError("it has no file_name")
            path = _locate(folder, name)
            images[index] = pixels.read_image(path, gray_range or pixels.FULL_RANGE)
        except (OSError, ValueError) as error:
            image = name or f"image {rows[index]['id']}"
            logging.warning("%s cannot be read for the report (%s)", image, error)
    return images


def _locate(folder, name):
    """The path of an image in the folder: of its whole name, or of the last part only.

    Backslashes may stand for slashes. Raises ValueError if a name leads out of the folder; its text
    decides, as in the converters, since folders of symbolic links are common.
    """
    slashed = name.replace("\\", "/")
    parts = (name, slashed, slashed.rsplit("/", 1)[-1])
    paths = [os.path.normpath(os.path.join(folder, part)) for part in parts]
    root = os.path.abspath(folder)
    allowed = [path for path in paths if pathlib.Path(os.path.abspath(path)).is_relative_to(root)]
    found = next(filter(os.path.isfile, allowed), None)
    if found is None and paths[0] not in allowed:
        raise ValueError(f"{paths[0]} is outside {folder}")
    return found or paths[0]


def compare(paths, output):
    """Write report.html with the evaluations of several metrics.json files side by side.

    Raises FileNotFoundError, FileExistsError, or ValueError for other files and fewer than two.
    """
    if len(paths) < 2:
        raise ValueError(f"expected at least two metrics.json files to compare, got {len(paths)}")
    named = _name_runs(paths)
    folder = OutputFolder(output, named.values())
    folder.check_absent("metrics.json", "an evaluation, which has a report of its own")
    folder.check([outputs.REPORT])
    runs = {name: _read_metrics(path) for name, path in named.items()}
    written = folder.write_text(outputs.REPORT, render_comparison(runs))
    for name, content in runs.items():
        numbers = [outputs.describe_metric(content["coco"], key) for key in ("AP", "AP50", "AP75")]
        outputs.print_line(f"{name}: {'  '.join(numbers)}")
    outputs.print_line(f"written: {written}")


def _name_runs(paths):
    """{a folder without the parents that all of them share: its metrics.json}."""
    paths = [path / "metrics.json" if path.is_dir() else path for path in map(pathlib.Path, paths)]
    folders = [path.absolute().parent for path in paths]
    shared = os.path.commonpath([folder.parent for folder in folders])
    named = {}
    for path, folder in zip(paths, folders, strict=True):
        name = folder.relative_to(shared).as_posix()
        named[name if name not in named else f"{name} ({len(named) + 1})"] = path
    return named


def _read_metrics(path):
    if not path.is_file():
        raise FileNotFoundError(f"no metrics.json at {path}")
    content = read_json(path)
    coco = content.get("coco") if isinstance(content, dict) else None
    if not isinstance(coco, dict) or set(coco) != set(metrics.NAMES) or _KEYS - content.keys():
        raise ValueError(
            f"{path} is not a metrics.json of `ssd evaluate`; evaluate again to renew it"
        )
    return content
