"""Evaluate a model on a split of a data set."""

from absl import logging

from ssd_tf import commandline
from ssd_tf.data import bad_records, dataset_json, split_examples
from ssd_tf.evaluation import metrics, outputs, run_detector
from ssd_tf.evaluation.coco_instances import make_instances
from ssd_tf.inference.loading import load_detector

_NUM_TIMED = 20  # images


def evaluate(
    model,
    data,
    output=None,
    split="val",
    *,
    labels=None,
    input_range=None,
    overrides=(),
    raw_weights=False,
    on_bad_record=None,
    reference=False,
) -> dict:
    """Evaluate a model with the metrics of COCO and PASCAL VOC, and print the numbers.

    model: a run folder, a SavedModel folder or a .tflite file. data: a folder of TFRecords with
    dataset.json. output: a folder for metrics.json, per_class.csv, report.html and, as COCO files,
    detections.json and ground_truth.json; None: nothing is written. labels, input_range, overrides,
    raw_weights: as `load_detector` takes them. on_bad_record: "stop" or "skip"; default:
    data.on_bad_record of the run, else "stop". reference: compute COCO's metrics with pycocotools
    too, from the files in output, and fail if a number differs.

    Returns the content of metrics.json: "coco" (AP, AP50, ...), "voc", "per_class" and more.
    Raises FileNotFoundError, FileExistsError, ConfigError or ValueError.
    """
    folder = outputs.open_folder(output, [model, labels], reference)
    dataset_info = dataset_json.read_dataset(data)
    dataset_info.shards(split)
    for override in overrides:
        if override.startswith("export."):
            logging.warning(
                "--set %s changes nothing here: export.* are limits of TFLite files", override
            )
    detector = load_detector(model, labels, overrides, raw_weights, input_range)
    config = detector.config
    if on_bad_record is None:
        on_bad_record = config.data.on_bad_record if config else "stop"
    skipped = bad_records.scan_bad_records(dataset_info, split, on_bad_record)
    examples = split_examples.read_examples(data, split, skipped)
    truth, found, timed = _detect(detector, dataset_info, split, examples, len(skipped))
    settings = {"model": str(model), "kind": detector.kind, "data": str(data), "split": split}
    settings |= {"images": len(truth.images), "skipped": len(skipped)}
    if config:
        settings |= config.eval.model_dump()
        settings["raw_weights"] = raw_weights
    measured = metrics.measure(truth, found) | {"settings": settings}
    measured["latency_ms"], measured["images_per_second"] = run_detector.measure_latency(
        detector.stages, timed
    )
    measured["model_mb"] = detector.size_mb
    evaluation = outputs.Evaluation(
        measured,
        truth,
        found,
        make_instances(truth),
        list(_describe_settings(settings)),
        lambda indices: run_detector.fetch_images(examples, truth, indices),
        detector.default_boxes,
    )
    return outputs.finish(evaluation, folder, reference)


def _detect(detector, dataset_info, split, examples, num_skipped):
    """The Truth and Found of a split, and a few of its images."""
    detect = run_detector.match_labels(detector, dataset_info.names)
    num_images = dataset_info.splits[split]["images"] - num_skipped
    batch_size = detector.config.eval.batch_size if detector.config else 1
    with bad_records.explain_record_errors(dataset_info.folder, split):
        with commandline.progress("evaluating", num_images) as advance:
            truth, found = run_detector.run_detector(
                lambda images: advance(detect(images), len(images)),
                examples,
                dataset_info.classes,
                batch_size,
            )
        timed = [example["image"] for example in examples.take(_NUM_TIMED).as_numpy_iterator()]
    return truth, found, timed


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
