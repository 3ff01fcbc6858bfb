"""python evaluate.py --model M --data DIR --output DIR, or --detections F --annotations F"""

import csv
import io
import json
import pathlib
import sys
import typing

from absl import flags, logging
from rich.console import Console

from ssd_tf import coco_rows, commandline
from ssd_tf.output_folder import OutputFolder
from ssd_tf.user_files import check_exists

USAGE = """
Evaluate a model, or a file of detections, with the COCO and VOC metrics.
Writes metrics.json, per_class.csv and report.html, which shows what the errors are, and as COCO
files detections.json and the ground_truth.json that it refers to.

  python evaluate.py --model runs/NAME|SAVED_MODEL_DIR|FILE.tflite --data DIR --output DIR
    [--split val] [--labels FILE] [--input_range LOW,HIGH] [--set eval.KEY=VALUE]
  python evaluate.py --detections FILE.json --annotations FILE.json --output DIR [--images DIR]
  python evaluate.py --compare A/metrics.json B/metrics.json ... --output DIR
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "model", None, "Run folder, SavedModel folder or .tflite file.", flag_values=FLAGS
)
flags.DEFINE_string("data", None, "Folder of TFRecords with dataset.json.", flag_values=FLAGS)
flags.DEFINE_string("split", "val", "Split of the data to evaluate on.", flag_values=FLAGS)
flags.DEFINE_string(
    "labels",
    None,
    "Class names for a model that has none: lines of text, .pbtxt or COCO .json.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "detections", None, "COCO results file to evaluate instead of a model.", flag_values=FLAGS
)
flags.DEFINE_string(
    "annotations", None, "COCO instances file that --detections refers to.", flag_values=FLAGS
)
flags.DEFINE_string(
    "images",
    None,
    "Folder of the images that --annotations names, for the report.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "gray_range",
    None,
    "LOW,HIGH: the values of 16-bit --images that become black and white, as given to the "
    "converter. Default: 0,65535.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "reference",
    False,
    "Compute the COCO metrics with pycocotools too, and fail if a number differs.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "compare", False, "Compare the metrics.json files that are named.", flag_values=FLAGS
)
commandline.define_input_range(FLAGS)
flags.DEFINE_enum(
    "on_bad_record",
    None,
    ["stop", "skip"],
    "What to do about an unusable record; default: data.on_bad_record of the run, else stop.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "raw_weights",
    False,
    "Use the weights of the last step, not the averaged ones (train.ema).",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "set",
    [],
    "Replace a value of the run's config, e.g. eval.nms_iou=0.5; may be repeated.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output",
    None,
    "Folder for report.html, metrics.json and the other files.",
    flag_values=FLAGS,
)


class Evaluation(typing.NamedTuple):
    """metrics: the content of metrics.json so far. ground_truth: COCO instances. truth, found:
    their tables. settings: lines that say what was measured. fetch: indices of images -> {index:
    uint8 [H, W, 3]}, or None without images. default_boxes: of a run, else None.
    """

    metrics: dict
    ground_truth: dict
    truth: typing.Any
    found: typing.Any
    settings: list[str]
    fetch: typing.Callable | None
    default_boxes: typing.Any = None


class Measured(typing.NamedTuple):
    """metrics: the content of metrics.json. analysed: as `analysis.analyse` returns it.
    class_rows: of `analysis.class_rows`.
    """

    metrics: dict
    analysed: typing.Any
    class_rows: list[dict]


# What an evaluation writes: the first before it is analysed, the last with images.
_COCO_FILES = ("ground_truth.json", "detections.json")
_TABLES = ("metrics.json", "per_class.csv")
_REPORT = "report.html"
# Keys of the metrics.json that --compare reads.
_METRICS = {"coco", "voc", "per_class", "settings", "errors", "thresholds", "precision_at_recall"}


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("output",), argv)


def _main(values, positional):
    if values.compare:
        compare(positional, values.output)
        return
    overrides = commandline.read_overrides(values, positional)
    is_of_files = bool(values.detections and values.annotations)
    if not is_of_files and not (values.model and values.data):
        raise flags.Error("give --model and --data, or --detections and --annotations (see --help)")
    if is_of_files and overrides:
        raise flags.Error(f"--set {overrides[0]} needs --model: detections are fixed in a file")
    gray_range = commandline.read_gray_range(values)
    if gray_range and not (is_of_files and values.images):
        raise flags.Error("--gray_range needs --detections and --images")
    inputs = [values.detections, values.annotations, values.model, values.labels]
    output = OutputFolder(values.output, filter(None, inputs))
    output.check([*_COCO_FILES, *_TABLES, _REPORT])
    if is_of_files:
        files = (values.annotations, values.detections, values.images)
        evaluation = evaluate_files(*files, gray_range)
    else:
        _warn_of_export_keys(overrides)
        evaluation = evaluate_model(values, overrides)
    measured = write_numbers(evaluation, output)
    if values.reference:
        from ssd_tf.evaluation import reference

        paths = [output.path / name for name in _COCO_FILES]
        reference.check_metrics(measured.metrics["coco"], *paths)
    print_numbers(measured.metrics, evaluation.settings, values.reference)
    write_report(evaluation, measured, output)
    names = f"{_REPORT}, {', '.join(_TABLES)}"
    _print(f"written: {names} and the COCO files in {output.path}")


def evaluate_model(values, overrides=()) -> Evaluation:
    """Evaluate a model on a split.

    values: the flags. overrides: as `load_detector` takes them. Raises FileNotFoundError,
    ConfigError or ValueError.
    """
    check_exists(values.model, "model")
    check_exists(values.data, "data folder")
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records, dataset_json, split_examples
    from ssd_tf.evaluation import evaluator, latency
    from ssd_tf.evaluation.class_matching import match_labels
    from ssd_tf.inference.loading import load_detector

    split = values.split
    dataset_info = dataset_json.read_dataset(values.data)
    dataset_info.shards(split)
    input_range = commandline.read_input_range(values)
    detector = load_detector(
        values.model, values.labels, overrides, values.raw_weights, input_range
    )
    detect = match_labels(detector, dataset_info.names)
    config = detector.config
    on_bad_record = values.on_bad_record
    if on_bad_record is None:  # as in the model's config
        on_bad_record = config.data.on_bad_record if config else "stop"
    skipped = bad_records.scan_bad_records(dataset_info, split, on_bad_record)
    examples = split_examples.read_examples(values.data, split, skipped)
    batch_size = config.eval.batch_size if config else 1
    num_images = dataset_info.splits[split]["images"] - len(skipped)
    with bad_records.explain_record_errors(values.data, split):
        with commandline.progress("evaluating", num_images) as advance:
            ground_truth, truth, found = evaluator.run_detector(
                lambda images: advance(detect(images), len(images)),
                examples,
                dataset_info.classes,
                batch_size,
            )
        some_images = [example["image"] for example in examples.take(20).as_numpy_iterator()]
    settings = _settings(values, detector, len(ground_truth["images"]), len(skipped))
    metrics = evaluator.metrics(truth, found)
    metrics["settings"] = settings
    metrics["latency_ms"], metrics["images_per_second"] = latency.measure_latency(
        detector.stages, some_images
    )
    metrics["model_mb"] = detector.size_mb
    return Evaluation(
        metrics,
        ground_truth,
        truth,
        found,
        list(_describe_settings(settings)),
        lambda indices: evaluator.fetch_images(examples, ground_truth, truth, indices),
        detector.default_boxes,
    )


def _settings(values, detector, num_images, num_skipped):
    """The settings of metrics.json."""
    settings = {"model": str(values.model), "kind": detector.kind, "data": str(values.data)}
    settings |= {"split": values.split, "images": num_images, "skipped": num_skipped}
    if detector.config:
        settings |= detector.config.eval.model_dump()
        settings["raw_weights"] = values.raw_weights
    return settings


def evaluate_files(annotations, detections, images=None, gray_range=None) -> Evaluation:
    """Evaluate a COCO results file on a COCO instances file, completed by `read_instances`.

    images: a folder, for the report; gray_range: of its images of 16 bits, as `pixels.to_rgb` takes
    it. Raises FileNotFoundError or ValueError.
    """
    from ssd_tf.evaluation import coco_instances, coco_results, evaluator, tables, units

    if images and not pathlib.Path(images).is_dir():
        raise FileNotFoundError(f"--images: no folder at {images}")
    ground_truth = coco_instances.read_instances(annotations)
    truth = tables.make_truth(ground_truth)
    found = coco_results.read_results(detections, truth)
    for path, table in ((annotations, truth), (detections, found)):
        hint = units.find_fault(table, tables.image_rows(ground_truth, truth))
        if hint:
            logging.warning("%s: %s", path, hint)
    metrics = evaluator.metrics(truth, found)
    metrics["settings"] = {
        "detections": str(detections),
        "annotations": str(annotations),
        "images": len(ground_truth["images"]),
    }
    metrics |= {"latency_ms": {}, "images_per_second": {}, "model_mb": None}
    settings = [str(detections), f"{len(ground_truth['images'])} images of {annotations}"]
    fetch = None
    if images:

        def fetch(indices):
            return coco_instances.read_images(images, ground_truth, truth, indices, gray_range)

    return Evaluation(metrics, ground_truth, truth, found, settings, fetch)


def compare(paths, output):
    """Write report.html with the evaluations of several metrics.json beside each other."""
    from ssd_tf.evaluation.report.report import render_comparison

    if len(paths) < 2:
        raise flags.Error("--compare: name at least two metrics.json")
    named = _name_runs(paths)
    output = OutputFolder(output, named.values())
    output.check_absent("metrics.json", "an evaluation, which has a report of its own")
    output.check([_REPORT])
    runs = {name: _read_metrics(path) for name, path in named.items()}
    written = output.write_text(_REPORT, render_comparison(runs))
    for name, metrics in runs.items():
        numbers = [_describe(metrics["coco"], key) for key in ("AP", "AP50", "AP75")]
        _print(f"{name}: {'  '.join(numbers)}")
    _print(f"written: {written}")


def _name_runs(paths):
    """{what tells a path from the others: the path}: without the folders that all share."""
    paths = [path / "metrics.json" if path.is_dir() else path for path in map(pathlib.Path, paths)]
    folders = [path.absolute().parts[:-1] for path in paths]
    shared = 0
    while all(len(parts) > shared + 1 for parts in folders) and (
        len({parts[shared] for parts in folders}) == 1
    ):
        shared += 1
    named = {}
    for path, parts in zip(paths, folders, strict=True):
        name = "/".join(parts[shared:])
        named[name if name not in named else f"{name} ({len(named) + 1})"] = path
    return named


def _read_metrics(path):
    if not path.is_file():
        raise FileNotFoundError(f"no metrics.json at {path}")
    from ssd_tf.evaluation import coco_metrics
    from ssd_tf.evaluation.json_files import read_json

    content = read_json(path)
    is_ours = isinstance(content, dict) and content.keys() >= _METRICS
    if (
        not is_ours
        or not isinstance(content["coco"], dict)
        or (set(content["coco"]) != set(coco_metrics.NAMES))
    ):
        raise ValueError(f"{path} is not a metrics.json of evaluate.py; evaluate again to renew it")
    return content


def _warn_of_export_keys(overrides):
    for override in overrides:
        if override.startswith("export."):
            logging.warning(
                "--set %s changes nothing here: export.* are limits of TFLite files", override
            )


def write_numbers(evaluation, output) -> Measured:
    """Analyse an evaluation and write everything but the report, for which images are needed."""
    from ssd_tf.evaluation import analysis, coco_results

    truth = evaluation.truth
    output.write_text("ground_truth.json", json.dumps(evaluation.ground_truth))
    output.write(
        "detections.json",
        lambda path: coco_results.write_results(
            path, evaluation.found, evaluation.ground_truth, truth
        ),
    )
    output.remove([*_TABLES, _REPORT])  # of an earlier evaluation
    analysed = analysis.analyse(truth, evaluation.found)
    metrics = {**evaluation.metrics, **analysis.summary(analysed)}
    output.write_text("metrics.json", json.dumps(metrics, indent=1) + "\n")
    rows = analysis.class_rows(metrics["per_class"], analysed)
    output.write_text("per_class.csv", _to_csv(rows))
    return Measured(metrics, analysed, rows)


def write_report(evaluation, measured, output):
    """Write report.html. Raises ValueError if that fails: the numbers are written all the same."""
    try:
        output.write_text(_REPORT, _render_report(evaluation, measured))
    except Exception as error:
        raise ValueError(
            f"the numbers are in {output.path}, but {_REPORT} could not be made: "
            f"{type(error).__name__}: {error}"
        ) from error


def _render_report(evaluation, measured):
    from ssd_tf.evaluation import tables
    from ssd_tf.evaluation.report import pictures, report

    analysed = measured.analysed
    chosen = pictures.choose_images(analysed)
    shown = None
    if evaluation.fetch:
        shown = evaluation.fetch({index for indices in chosen.values() for index in indices})
    image_rows = tables.image_rows(evaluation.ground_truth, evaluation.truth)
    names = [coco_rows.read_file_name(row) or f"image {row['id']}" for row in image_rows]
    return report.render_report(
        measured.metrics,
        analysed,
        measured.class_rows,
        report.Images(names, chosen, shown),
        evaluation.settings,
        _coverage(evaluation, analysed, image_rows),
    )


def _coverage(evaluation, analysed, image_rows):
    if evaluation.default_boxes is None:
        return []
    from ssd_tf.evaluation import coverage

    sizes = [(row["height"], row["width"]) for row in image_rows]
    return coverage.coverage(evaluation.truth, sizes, analysed.is_found, evaluation.default_boxes)


def _to_csv(rows):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: round(value, 6) if isinstance(value, float) else value
                for key, value in row.items()
            }
        )
    return stream.getvalue()


def print_numbers(metrics, settings, compared=False):
    """Print the numbers, what they were measured on and with which settings."""
    numbers = [_describe(metrics["coco"], name) for name in metrics["coco"]]
    if compared:
        numbers.append("(equal to pycocotools')")
    points, all_points = map(commandline.format_metric, metrics["voc"].values())
    _print("  ".join(numbers[:6]))
    _print("  ".join(numbers[6:]))
    _print(f"VOC AP50: {points} (11 points), {all_points} (all points)")
    if metrics["thresholds"] is None:
        _print("these images have no objects that count, so there is no AP, recall or F1")
    for line in (*_describe_best(metrics["thresholds"]), *settings, *_describe_speed(metrics)):
        _print(line)


def _describe(numbers, name):
    return f"{name} {commandline.format_metric(numbers[name])}"


def _print(line):
    Console().print(line, soft_wrap=True, highlight=False, markup=False)


def _describe_best(thresholds):
    best = thresholds and thresholds["best"]
    if best:
        yield (
            f"best F1 {best['f1']:.3f} at score {best['score']:.2f}: "
            f"precision {best['precision']:.3f}, recall {best['recall']:.3f}"
        )


def _describe_speed(metrics):
    times = metrics["latency_ms"]
    if times:
        yield (
            f"{times['per_image']:.2f} ms per image, one at a time (p90 {times['p90']:.2f}): "
            f"preprocessing {times['preprocessing']:.2f}, network {times['network']:.2f}, "
            f"postprocessing {times['postprocessing']:.2f}; "
            f"{metrics['images_per_second']['batch_8']:.1f} images/s in batches of 8; "
            f"{metrics['model_mb']:.1f} MB"
        )


def _describe_settings(settings):
    counts = f"{settings['images']} images"
    if settings["skipped"]:
        counts += f", {settings['skipped']} unusable records skipped"
    raw = ", raw weights" if settings.get("raw_weights") else ""
    yield f"{settings['model']} ({settings['kind']}{raw})"
    yield f"split {settings['split']} of {settings['data']}: {counts}"
    if "nms_iou" not in settings:
        return  # unknown for an exported model
    clipped = "before" if settings["clip_first"] else "after"
    best = f"best {settings['pre_nms_top_k']}"
    if not settings["class_agnostic"]:
        best += " per class"
    line = (
        f"score floor {settings['score_floor']:g}, NMS at IoU {settings['nms_iou']:g} among the "
        f"{best}, boxes clipped {clipped} NMS, "
        f"at most {settings['max_detections']} detections per image"
    )
    if settings["size_limit"] is not None:
        line += f", sides at most {settings['size_limit']:g} times the default box's"
    yield line


if __name__ == "__main__":
    sys.exit(main())
