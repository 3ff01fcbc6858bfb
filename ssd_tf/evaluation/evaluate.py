"""Evaluate a model on a split of a data set."""

import itertools
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from ssd_tf import long_tasks
from ssd_tf.boxes.geometry import best_overlaps
from ssd_tf.data import bad_records, dataset_json, split_examples
from ssd_tf.draw import draw_held_out, jpeg_uri, side_by_side
from ssd_tf.evaluation import metrics, outputs, run_detector, thresholds
from ssd_tf.evaluation.coco_instances import make_instances
from ssd_tf.inference.detections import from_xywh_pixels
from ssd_tf.inference.loading import load_detector
from ssd_tf.results import Result
from ssd_tf.weights import run_files

_NUM_TIMED = 20  # images
_NUM_DRAWN = 4  # images, for notebooks
_SHOWN = ("AP", "AP50", "AP75")  # in their table
_DEFAULT_SCORE = 0.5  # as of `ssd detect`
_COVERAGES = (0, 0.3, 0.4, 0.5, 0.6, 0.7, 1)


def evaluate(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    split: str = "val",
    *,
    labels: str | os.PathLike[str] | None = None,
    input_range: tuple[float, float] | None = None,
    overrides: Sequence[str] = (),
    raw_weights: bool = False,
    on_bad_record: str | None = None,
    reference: bool = False,
    precision: float | None = None,
) -> Result:
    """Evaluate a model with the metrics of COCO and PASCAL VOC, and print the numbers.

    model: a run folder, a SavedModel folder or a .tflite file. data: a folder of TFRecords with
    dataset.json. output: a folder for metrics.json, per_class.csv, thresholds.json, report.html
    and, as COCO files, detections.json and ground_truth.json; None: none of them. labels,
    input_range, overrides, raw_weights: as `load_detector` takes them. on_bad_record: "stop" or
    "skip"; default: data.on_bad_record of the run, else "stop". reference: compute COCO's metrics
    with pycocotools too, from the files in output, and fail if a number differs. precision: the
    thresholds are the lowest scores with at least this precision; default: those with the best F1.

    A run folder gets the thresholds, too, unless the split is `train`; see
    `thresholds.may_choose`. Returns a Result with the content of metrics.json: "coco" (AP, AP50,
    ...), "voc", "per_class" and more.
    Raises FileNotFoundError, FileExistsError, ConfigError or ValueError.
    """
    folder = outputs.open_folder(output, [model, labels], reference)
    dataset_info = dataset_json.read_dataset(data)
    dataset_info.shards(split)
    for override in (text for text in overrides if text.startswith("export.")):
        logging.warning("--set %s has no effect: export.* are limits of TFLite files", override)
    detector = load_detector(model, labels, overrides, raw_weights, input_range)
    config = detector.config
    if on_bad_record is None:
        on_bad_record = config.data.on_bad_record if config else "stop"
    detect = run_detector.match_labels(detector, dataset_info.names)
    truth, found, examples, num_skipped = _detect(
        detect, detector, dataset_info, split, on_bad_record
    )
    timed = [example["image"] for example in examples.take(_NUM_TIMED).as_numpy_iterator()]
    latency_ms, images_per_second = run_detector.measure_latency(detector.stages, timed)
    settings = {"model": str(model), "kind": detector.kind, "data": str(data), "split": split}
    settings |= {"images": len(truth.images), "skipped": num_skipped}
    if config:
        settings |= {**config.eval.model_dump(), "raw_weights": raw_weights}
    measured = {
        **metrics.measure(truth, found),
        "settings": settings,
        "latency_ms": latency_ms,
        "images_per_second": images_per_second,
        "model_mb": detector.size_mb,
    }
    may_choose = thresholds.may_choose(detector.thresholds, split)
    evaluation = outputs.Evaluation(
        measured,
        truth,
        found,
        make_instances(truth),
        list(_describe_settings(settings)),
        fetch=lambda indices: run_detector.fetch_images(examples, truth, indices),
        coverage=lambda analysed: coverage(analysed, detector.default_boxes),
        precision=precision,
        thresholds=None if may_choose or precision is not None else detector.thresholds,
        run=model if config and split != "train" and not raw_weights and may_choose else None,
        input_hw=config.model.input_hw if config else None,
        peak=run_files.find_peak(model) if config else None,
    )
    content = outputs.finish(evaluation, folder, reference)
    best = (content["thresholds"] or {}).get("best") or {"score": _DEFAULT_SCORE}
    drawn = draw_held_out(detect, examples, dataset_info.names, _NUM_DRAWN, best["score"])
    return _make_result(content, folder and folder.path, best, drawn)


def _make_result(content, folder, best, drawn):
    """The Result of an evaluation. best: the score to show detections from, and its F1 if known."""
    numbers = {**{name: content["coco"][name] for name in _SHOWN}, "F1": best.get("f1", -1)}
    rows = [("in words", content["verdict"]["sentence"])]
    rows += [(name, long_tasks.format_metric(value)) for name, value in numbers.items()]
    rows += [("at score", f"{best['score']:.2f}")]
    if content["latency_ms"]:
        rows += [("ms per image", f"{content['latency_ms']['per_image']:.1f}")]
    paths = {pathlib.Path(name).stem: folder / name for name in outputs.FILES} if folder else {}
    images = {each.name: jpeg_uri(side_by_side(each.truth, each.found)) for each in drawn}
    return Result(folder, content, paths, ("number", "value"), tuple(rows), images)


def _detect(detect, detector, dataset_info, split, on_bad_record):
    """The Truth, the Found, the usable Examples of a split, and the number of the others."""
    skipped = bad_records.scan_bad_records(dataset_info, split, on_bad_record)
    examples = split_examples.read_examples(dataset_info.folder, split, skipped)
    num_images = dataset_info.splits[split]["images"] - len(skipped)
    batch_size = detector.config.eval.batch_size if detector.config else 1
    explained = bad_records.explain_record_errors(dataset_info.folder, split)
    with explained, long_tasks.progress("evaluating", num_images) as advance:
        truth, found = run_detector.run_detector(
            lambda images: advance(detect(images), len(images)),
            examples,
            dataset_info.classes,
            batch_size,
        )
    return truth, found, examples, len(skipped)


def coverage(analysis, default_boxes) -> list[dict]:
    """[{"name", "objects", "found"}] by the IoU of each object's best default box.

    analysis: as `analysis.analyse` returns it. default_boxes: [A, 4] normalised corners, or
    None: no rows. Ignored objects are left out.
    """
    if default_boxes is None:
        return []
    truth = analysis.truth
    rows = np.flatnonzero(~truth.ignored)
    sizes = [(row["height"], row["width"]) for row in truth.image_rows]
    sizes = np.array(sizes, float).reshape(-1, 2)[truth.image[rows]]
    _, best = best_overlaps(from_xywh_pixels(truth.boxes[rows], sizes), default_boxes)
    slices = []
    for low, high in itertools.pairwise(_COVERAGES):
        inside = (best >= low) & ((best < high) | (high == 1))
        name = f"{low:.1f} to {high:.1f}"
        num_found = int(analysis.is_found[rows][inside].sum())
        slices.append({"name": name, "objects": int(inside.sum()), "found": num_found})
    return slices


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
