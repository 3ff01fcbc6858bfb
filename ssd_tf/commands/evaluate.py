"""python evaluate.py --model M --data DIR --output DIR, or --detections F --annotations F"""

import csv
import io
import json
import pathlib
import typing

from absl import flags, logging
from rich.console import Console

from ssd_tf import commandline, files
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


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("output",), argv)


def _main(values, positional):
    output = pathlib.Path(values.output)
    if values.compare:
        compare(positional, output)
        return
    overrides = commandline.read_overrides(values, positional)
    if values.detections and values.annotations:
        if overrides:
            raise flags.Error(f"--set {overrides[0]} needs --model: detections are fixed in a file")
        evaluation = evaluate_files(values.annotations, values.detections, values.images)
    elif values.model and values.data:
        _warn_of_export_keys(overrides)
        evaluation = evaluate_model(values, overrides)
    else:
        raise flags.Error("give --model and --data, or --detections and --annotations (see --help)")
    metrics = write_evaluation(evaluation, output)
    if values.reference:
        from ssd_tf.evaluation import reference

        reference.check_metrics(
            metrics["coco"], output / "ground_truth.json", output / "detections.json"
        )
    print_evaluation(metrics, evaluation.settings, output, values.reference)


def evaluate_model(values, overrides=()) -> Evaluation:
    """Evaluate a model on a split.

    values: the flags. overrides: as `load_detector` takes them. Raises FileNotFoundError,
    ConfigError or ValueError.
    """
    check_exists(values.model, "model")
    check_exists(values.data, "data folder")
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records, dataset_json, pipeline
    from ssd_tf.evaluation import evaluator, latency
    from ssd_tf.evaluation.class_matching import match_labels
    from ssd_tf.inference.detector import load_detector

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
    examples = pipeline.read_examples(values.data, split, skipped)
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


def evaluate_files(annotations, detections, images=None) -> Evaluation:
    """Evaluate a COCO results file on a COCO instances file, completed by `read_instances`.

    images: a folder, for the report. Raises FileNotFoundError or ValueError.
    """
    from ssd_tf.evaluation import coco_instances, coco_results, evaluator
    from ssd_tf.evaluation.tables import make_truth

    if images and not pathlib.Path(images).is_dir():
        raise FileNotFoundError(f"--images: no folder at {images}")
    ground_truth = coco_instances.read_instances(annotations)
    truth = make_truth(ground_truth)
    found = coco_results.read_results(detections, truth)
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
            return coco_instances.read_images(images, ground_truth, truth, indices)

    return Evaluation(metrics, ground_truth, truth, found, settings, fetch)


def compare(paths, output):
    """Write report.html with the evaluations of several metrics.json beside each other."""
    from ssd_tf.evaluation.report.report import write_comparison

    if len(paths) < 2:
        raise flags.Error("--compare: name at least two metrics.json")
    runs = {name: _read_metrics(path) for name, path in _name_runs(paths).items()}
    output.mkdir(parents=True, exist_ok=True)
    write_comparison(output / "report.html", runs)
    for name, metrics in runs.items():
        coco = metrics["coco"]
        print(f"{name}: AP {coco['AP']:.3f}  AP50 {coco['AP50']:.3f}  AP75 {coco['AP75']:.3f}")
    print(f"written: {output / 'report.html'}")


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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        missing = {"coco", "voc", "per_class", "settings", "errors"} - set(content)
    except (ValueError, TypeError):
        missing = True
    if missing:
        raise ValueError(f"{path} is not a metrics.json of evaluate.py; evaluate again to renew it")
    return content


def _warn_of_export_keys(overrides):
    for override in overrides:
        if override.startswith("export."):
            logging.warning(
                "--set %s changes nothing here: export.* are limits of TFLite files", override
            )


def write_evaluation(evaluation, output) -> dict:
    """Analyse an evaluation and write all its files; returns the content of metrics.json."""
    from ssd_tf.evaluation import analysis, coco_results, tables
    from ssd_tf.evaluation.report import pictures, report

    truth = evaluation.truth
    output.mkdir(parents=True, exist_ok=True)
    files.write_text(output / "ground_truth.json", json.dumps(evaluation.ground_truth))
    coco_results.write_results(
        output / "detections.json", evaluation.found, evaluation.ground_truth, truth
    )
    analysed = analysis.analyse(truth, evaluation.found)
    metrics = {**evaluation.metrics, **analysis.summary(analysed)}
    rows = analysis.class_rows(metrics["per_class"], analysed)
    _write_csv(output / "per_class.csv", rows)
    chosen = pictures.choose_images(analysed)
    shown = None
    if evaluation.fetch:
        shown = evaluation.fetch({index for indices in chosen.values() for index in indices})
    image_rows = tables.image_rows(evaluation.ground_truth, truth)
    names = [row.get("file_name", row["id"]) for row in image_rows]
    images = report.Images(names, chosen, shown)
    covered = _coverage(evaluation, analysed, image_rows)
    report.write_report(
        output / "report.html", metrics, analysed, rows, images, evaluation.settings, covered
    )
    files.write_json(output / "metrics.json", metrics)
    return metrics


def _coverage(evaluation, analysed, image_rows):
    if evaluation.default_boxes is None:
        return []
    from ssd_tf.evaluation import coverage

    sizes = [(row["height"], row["width"]) for row in image_rows]
    return coverage.coverage(evaluation.truth, sizes, analysed.is_found, evaluation.default_boxes)


def _write_csv(path, rows):
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
    files.write_text(path, stream.getvalue())


def print_evaluation(metrics, settings, output, compared=False):
    """Print the numbers, what they were measured on and with which settings."""
    numbers = [f"{name} {value:.3f}" for name, value in metrics["coco"].items()]
    if compared:
        numbers.append("(equal to pycocotools')")
    voc = metrics["voc"]
    lines = [
        "  ".join(numbers[:6]),
        "  ".join(numbers[6:]),
        f"VOC AP50: {voc['AP50_11point']:.3f} (11 points), {voc['AP50_all']:.3f} (all points)",
        *_describe_best(metrics["thresholds"]),
        *settings,
        *_describe_speed(metrics),
        f"written: report.html, metrics.json, per_class.csv and the COCO files in {output}",
    ]
    console = Console()
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


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
