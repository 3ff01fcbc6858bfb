"""python evaluate.py --model M --data DIR --output DIR, or --detections F --annotations F --output DIR"""

import json
import pathlib

from absl import flags, logging
from rich.console import Console

from ssd_tf import commandline

USAGE = """
Measure a model, or a file of detections, by the rules of COCO and VOC; writes metrics.json and detections.json.

  python evaluate.py --model runs/NAME|SAVED_MODEL_DIR|FILE.tflite --data DIR [--split val] --output DIR [--labels FILE]
  python evaluate.py --detections FILE.json --annotations FILE.json --output DIR
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "model", None, "Run folder, SavedModel folder or .tflite file.", flag_values=FLAGS
)
flags.DEFINE_string("data", None, "Folder of TFRecords with dataset.json.", flag_values=FLAGS)
flags.DEFINE_string("split", "val", "Split of the data to measure on.", flag_values=FLAGS)
flags.DEFINE_string(
    "labels",
    None,
    "Class names of a model that does not carry them, one a line.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "detections", None, "COCO results file to measure instead of a model.", flag_values=FLAGS
)
flags.DEFINE_string(
    "annotations", None, "COCO instances file that --detections belong to.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "on_bad_record",
    None,
    ["stop", "skip"],
    "What to do with a record that cannot be used; default: data.on_bad_record of the model's config, else stop.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output", None, "Folder for metrics.json and detections.json.", flag_values=FLAGS
)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("output",), argv)


def _main(options, rest):
    if rest:
        raise flags.Error(f"unexpected {rest[0]!r} (see --help)")
    if options.detections and options.annotations:
        content, found = _from_files(options.annotations, options.detections)
    elif options.model and options.data:
        content, found = evaluate_model(
            options.model, options.data, options.split, options.labels, options.on_bad_record
        )
    else:
        raise flags.Error("give --model and --data, or --detections and --annotations (see --help)")
    write(content, found, pathlib.Path(options.output))


def evaluate_model(model, data, split, labels=None, on_bad_record=None):
    """A model on a split -> the content of metrics.json and the COCO results.

    on_bad_record: `stop` or `skip`; default: as the model's config has it, else `stop`.
    """
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records, dataset_json, pipeline
    from ssd_tf.evaluation import evaluator
    from ssd_tf.inference.detector import load_detector

    info = dataset_json.read_dataset(data)
    info.shards(split)
    detector = load_detector(model, labels)
    run = _in_order_of(detector, info.names)
    on_bad_record = on_bad_record or (
        detector.config.data.on_bad_record if detector.config else "stop"
    )
    skipped = bad_records.scan_bad_records(info, split, on_bad_record)
    examples = pipeline.read_examples(data, split, skipped)
    batch = detector.config.eval.batch_size if detector.config else 1
    with bad_records.explain_record_errors(data, split):
        truth, found = evaluator.run_detector(run, examples, info.classes, batch)
    some = [example["image"] for example in examples.take(20).as_numpy_iterator()]
    settings = {"model": str(model), "kind": detector.kind, "split": split}
    settings.update(images=len(truth["images"]), skipped=len(skipped))
    if detector.config:
        settings.update(detector.config.eval.model_dump())
    latency = {"per_image": evaluator.latency_ms(detector.batch, some)}
    return {**evaluator.metrics(truth, found), "settings": settings, "latency_ms": latency}, found


def write(content, found, output):
    from ssd_tf.files import write_json

    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "detections.json", found)
    write_json(output / "metrics.json", content)
    console = Console()
    numbers = [f"{name} {value:.3f}" for name, value in content["coco"].items()]
    for row in (numbers[:6], numbers[6:]):
        console.print("  ".join(row), soft_wrap=True, highlight=False)
    voc = content["voc"]
    console.print(
        f"VOC AP50: {voc['AP50_11point']:.3f} (11 points), {voc['AP50_all']:.3f} (all points)"
    )
    settings = {
        **content["settings"],
        **{f"{k}_ms": round(v, 2) for k, v in content["latency_ms"].items()},
    }
    console.print(
        ", ".join(f"{key} {value}" for key, value in settings.items()),
        soft_wrap=True,
        highlight=False,
    )
    console.print(
        f"written: {output / 'metrics.json'}, {output / 'detections.json'}",
        soft_wrap=True,
        highlight=False,
    )


def _from_files(annotations, detections):
    from ssd_tf.evaluation import evaluator

    truth = _read(annotations)
    for key, wanted in _INSTANCES.items():
        if not (isinstance(truth, dict) and _are_rows(truth.get(key), wanted)):
            raise ValueError(
                f"{annotations} is not a COCO instances file: wanted {key!r}, a list of {', '.join(sorted(wanted))}"
            )
    found = _read(detections)
    if not _are_rows(found, _KEYS):
        raise ValueError(
            f"{detections} is not a COCO results file: wanted a list of rows with {', '.join(sorted(_KEYS))}"
        )
    unknown = {row["image_id"] for row in found} - {image["id"] for image in truth["images"]}
    if unknown:
        raise ValueError(
            f"{detections} has detections of image {min(unknown)} that {annotations} does not know"
        )
    settings = {"detections": str(detections), "annotations": str(annotations)}
    return {**evaluator.metrics(truth, found), "settings": settings, "latency_ms": {}}, found


_KEYS = {"image_id", "category_id", "bbox", "score"}
_INSTANCES = {
    "images": {"id"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area"},
    "categories": {"id", "name"},
}


def _are_rows(rows, wanted):
    return isinstance(rows, list) and all(
        isinstance(row, dict) and row.keys() >= wanted for row in rows
    )


def _read(path):
    try:
        return json.loads(pathlib.Path(path).read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"no file at {path}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _in_order_of(detector, names):
    """The detector's `batch` with labels of the data set, matched by name; classes without a partner are named."""
    if detector.classes is None:
        raise ValueError(
            "the model does not tell its class names; give them with --labels FILE, one a line"
        )
    if detector.classes == names:
        return detector.batch
    unmatched = [name for name in detector.classes if name not in names]
    if len(unmatched) == len(detector.classes):
        both = (
            f"the model knows {', '.join(unmatched[:5])}, ..., the data {', '.join(names[:5])}, ..."
        )
        raise ValueError(f"the model and the data have no class in common: {both}")
    missing = [name for name in names if name not in detector.classes]
    for what, which in (
        ("the model's classes that the data lacks", unmatched),
        ("the data's that the model lacks", missing),
    ):
        if which:
            logging.warning("%s: %s", what, ", ".join(which))
    label_of = [names.index(name) + 1 if name in names else 0 for name in detector.classes]

    def batch(images):
        return [_relabel(found, label_of) for found in detector.batch(images)]

    return batch


def _relabel(found, label_of):
    """Detections with labels through the table `label_of`; those of label 0, or beyond the table, are dropped."""
    labels = [label_of[label - 1] if label <= len(label_of) else 0 for label in found["labels"]]
    keep = [row for row, label in enumerate(labels) if label]
    return {
        "boxes": found["boxes"][keep],
        "scores": found["scores"][keep],
        "labels": [labels[row] for row in keep],
    }
