"""python evaluate.py --model M --data DIR --output DIR, or --detections F --annotations F"""

import pathlib
import typing

from absl import flags, logging
from rich.console import Console

from ssd_tf import commandline, files

USAGE = """
Evaluate a model, or a file of detections, with the COCO and VOC metrics.
Writes metrics.json, and as COCO files detections.json and the ground_truth.json that it refers to.

  python evaluate.py --model runs/NAME|SAVED_MODEL_DIR|FILE.tflite --data DIR --output DIR
    [--split val] [--labels FILE] [--set eval.KEY=VALUE]
  python evaluate.py --detections FILE.json --annotations FILE.json --output DIR
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
    "File of class names, one per line, for a model that has none.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "detections", None, "COCO results file to evaluate instead of a model.", flag_values=FLAGS
)
flags.DEFINE_string(
    "annotations", None, "COCO instances file that --detections refers to.", flag_values=FLAGS
)
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
    "Folder for metrics.json, detections.json and ground_truth.json.",
    flag_values=FLAGS,
)


class Evaluation(typing.NamedTuple):
    """metrics: the content of metrics.json; the others in COCO format."""

    metrics: dict
    ground_truth: dict
    results: list[dict]


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("output",), argv)


def _main(values, positional):
    overrides = commandline.read_overrides(values, positional)
    if values.detections and values.annotations:
        if overrides:
            raise flags.Error(f"--set {overrides[0]} needs --model: detections are fixed in a file")
        evaluation = evaluate_files(values.annotations, values.detections)
    elif values.model and values.data:
        _warn_of_export_keys(overrides)
        evaluation = evaluate_model(values, overrides)
    else:
        raise flags.Error("give --model and --data, or --detections and --annotations (see --help)")
    output = pathlib.Path(values.output)
    write_evaluation(evaluation, output)
    print_evaluation(evaluation.metrics, output)


def evaluate_model(values, overrides=()) -> Evaluation:
    """Evaluate a model on a split.

    values: the flags. overrides: as `load_detector` takes them. Raises FileNotFoundError,
    ConfigError or ValueError.
    """
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records, dataset_json, pipeline
    from ssd_tf.evaluation import evaluator
    from ssd_tf.evaluation.class_matching import match_labels
    from ssd_tf.inference.detector import load_detector

    split = values.split
    dataset_info = dataset_json.read_dataset(values.data)
    dataset_info.shards(split)
    detector = load_detector(values.model, values.labels, overrides, values.raw_weights)
    detect = match_labels(detector, dataset_info.names)
    config = detector.config
    on_bad_record = values.on_bad_record
    if on_bad_record is None:  # as in the model's config
        on_bad_record = config.data.on_bad_record if config else "stop"
    skipped = bad_records.scan_bad_records(dataset_info, split, on_bad_record)
    examples = pipeline.read_examples(values.data, split, skipped)
    batch_size = config.eval.batch_size if config else 1
    with bad_records.explain_record_errors(values.data, split):
        ground_truth, results = evaluator.run_detector(
            detect, examples, dataset_info.classes, batch_size
        )
    some_images = [example["image"] for example in examples.take(20).as_numpy_iterator()]
    settings = {"model": str(values.model), "kind": detector.kind, "split": split}
    settings |= {"images": len(ground_truth["images"]), "skipped": len(skipped)}
    if config:
        settings |= config.eval.model_dump()
        settings["raw_weights"] = values.raw_weights
    latency = {"per_image": evaluator.latency_ms(detector.batch, some_images)}
    metrics = evaluator.metrics(ground_truth, results)
    metrics |= {"settings": settings, "latency_ms": latency}
    return Evaluation(metrics, ground_truth, results)


def evaluate_files(annotations, detections) -> Evaluation:
    """Evaluate a COCO results file on a COCO instances file, completed by `read_instances`.

    Raises FileNotFoundError or ValueError.
    """
    from ssd_tf.evaluation import coco_format, evaluator

    ground_truth = coco_format.read_instances(annotations)
    results = coco_format.read_results(detections)
    known_ids = {image["id"] for image in ground_truth["images"]}
    for row in results:
        if row["image_id"] not in known_ids:
            raise ValueError(
                f"{detections} has detections of image {row['image_id']!r}, "
                f"which is not among the images of {annotations}"
            )
    metrics = evaluator.metrics(ground_truth, results)
    metrics["settings"] = {"detections": str(detections), "annotations": str(annotations)}
    metrics["latency_ms"] = {}
    return Evaluation(metrics, ground_truth, results)


def _warn_of_export_keys(overrides):
    for override in overrides:
        if override.startswith("export."):
            logging.warning(
                "--set %s changes nothing here: export.* are limits of TFLite files", override
            )


def write_evaluation(evaluation, output):
    output.mkdir(parents=True, exist_ok=True)
    files.write_json(output / "ground_truth.json", evaluation.ground_truth)
    files.write_json(output / "detections.json", evaluation.results)
    files.write_json(output / "metrics.json", evaluation.metrics)


def print_evaluation(metrics, output):
    """Print the numbers, what they were measured on and with which settings."""
    numbers = [f"{name} {value:.3f}" for name, value in metrics["coco"].items()]
    voc = metrics["voc"]
    lines = [
        "  ".join(numbers[:6]),
        "  ".join(numbers[6:]),
        f"VOC AP50: {voc['AP50_11point']:.3f} (11 points), {voc['AP50_all']:.3f} (all points)",
        *_describe_settings(metrics["settings"]),
    ]
    if metrics["latency_ms"]:
        lines.append(f"{metrics['latency_ms']['per_image']:.2f} ms per image, one at a time")
    lines.append(f"written: metrics.json, detections.json and ground_truth.json in {output}")
    console = Console()
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _describe_settings(settings):
    if "model" not in settings:
        yield f"{settings['detections']} on {settings['annotations']}"
        return
    counts = f"{settings['images']} images"
    if settings["skipped"]:
        counts += f", {settings['skipped']} unusable records skipped"
    raw = ", raw weights" if settings.get("raw_weights") else ""
    yield f"{settings['model']} ({settings['kind']}{raw}) on split {settings['split']}: {counts}"
    if "nms_iou" not in settings:
        return  # unknown for an exported model
    clipped = "before" if settings["clip_first"] else "after"
    line = (
        f"score floor {settings['score_floor']:g}, NMS at IoU {settings['nms_iou']:g} among the "
        f"best {settings['pre_nms_top_k']} per class, boxes clipped {clipped} NMS, "
        f"at most {settings['max_detections']} detections per image"
    )
    if settings["size_limit"] is not None:
        line += f", sides at most {settings['size_limit']:g} times the default box's"
    yield line
