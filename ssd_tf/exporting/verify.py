"""Checks of an export: its class names, and its detections beside those of the Keras model."""

import itertools

import numpy as np
from absl import logging

from ssd_tf import processor
from ssd_tf.errors import shorten
from ssd_tf.evaluation.metrics import coco_metrics
from ssd_tf.evaluation.run_detector import match_labels, measure_latency, run_detector
from ssd_tf.inference.detector import keras_detector
from ssd_tf.inference.loading import load_detector
from ssd_tf.inference.tflite import read_label_file


def check_names(paths, folder, names):
    """Raise ValueError unless all label files and exports name the classes as the run does.

    paths: {format: its path}. folder: of the labels.txt that clients read.
    """
    texts = {folder / "labels.txt": (folder / "labels.txt").read_bytes().decode()}
    for name, path in paths.items():
        path = path / "model.tflite" if name == "web" else path
        _check_equal(load_detector(path).classes, names, path)
        if name == "saved_model":
            label_file = path / "assets.extra" / "labels.txt"
            texts[label_file] = label_file.read_bytes().decode()
        else:
            _, texts[path] = read_label_file(path)
    for path, text in texts.items():
        # Most clients split at every line break that they know, MediaPipe at this one.
        _check_equal(text.split("\n")[:-1], names, path)
        _check_equal(text.splitlines(), names, path)


def _check_equal(found, names, path):
    if found != names:
        raise ValueError(
            f"{path.name} does not name the classes as the run does: expected "
            f"{shorten(names)}, got {shorten(found)}; nothing was exported"
        )


def verify_formats(run, paths, examples, images, classes) -> dict:
    """Measure the Keras model and all exports; {"keras" or a format's name: what was measured}.

    paths: {format: its path}. examples: Examples of a split. images: those on which detections are
    paired. classes: those of dataset.json. Each entry has what `measure` returns, megabytes and
    latency_ms; those of exports have what `compare` returns too.
    """
    logging.info("verifying: the run's own model")
    reference = keras_detector(run.config, run.network, run.dataset_info.names)
    report = {"keras": _measure_all(examples, classes, reference)}
    report["keras"]["latency_ms"] = {"all": time_once(reference, images)}
    for name, path in paths.items():
        if name == "web":  # the page has the file of another format
            continue
        logging.info("verifying: %s", name)
        detector = load_detector(path)
        entry = _measure_all(examples, classes, detector)
        if detector.kind == "tflite":
            entry["latency_ms"] = time_by_threads(path, images)
        else:
            entry["latency_ms"] = {"all": time_once(detector, images)}
        report[name] = entry | compare(reference, detector, images)
        logging.info(
            "%s: AP %.3f, the run's is %.3f; %d of %d detections agree (images: %d)",
            name,
            report[name]["AP"],
            report["keras"]["AP"],
            report[name]["detections"] - report[name]["unpaired"],
            report[name]["detections"],
            len(images),
        )
    return report


def check_drop(report, max_ap_drop):
    """Raise ValueError if an export loses more AP than max_ap_drop; None: no limit."""
    if max_ap_drop is None:
        return
    expected = report["keras"]["AP"]
    low = [
        f"{name} {entry['AP']:.4f}"
        for name, entry in report.items()
        if entry["AP"] < expected - max_ap_drop
    ]
    if low:
        raise ValueError(
            f"AP drops by more than {max_ap_drop:g} from {expected:.4f}: {', '.join(low)}; "
            "nothing was exported"
        )


def _measure_all(examples, classes, detector):
    return {**measure(examples, classes, detector), "megabytes": detector.size_mb}


def measure(examples, classes, detector) -> dict:
    """{"AP", "AP50", "most_objects": of one image} of a Detector on Examples.

    classes: those of dataset.json.
    """
    detect = match_labels(detector, [entry["name"] for entry in classes])
    truth, found = run_detector(detect, examples, classes, batch_size=8)
    stats, _, _ = coco_metrics(truth, found)
    most_objects = int(np.bincount(truth.image[~truth.ignored]).max(initial=0))
    return {"AP": stats["AP"], "AP50": stats["AP50"], "most_objects": most_objects}


def time_once(detector, images) -> float:
    """Milliseconds per image, with the threads that TensorFlow takes."""
    measured, _ = measure_latency(detector.stages, images)
    return measured["per_image"]


def time_by_threads(path, images) -> dict:
    """Milliseconds per image of a .tflite file: {"1": with one thread, "N": one for each core}."""
    return {
        str(count): time_once(load_detector(path, num_threads=count), images)
        for count in dict.fromkeys((1, processor.usable_cores()))
    }


def compare(reference, other, images, score=0.35, partner_score=0.30, tolerance=0.01) -> dict:
    """Run two Detectors over images and pair their detections, in both directions.

    A detection that scores at least `score` on one side is paired if the other side has one of the
    same class that scores at least `partner_score` and whose corners all lie within `tolerance` of
    its own, in normalised coordinates. Returns {"images", "detections", "unpaired",
    "first_unpaired" (up to 20), "largest_corner_difference" (of the paired)}.
    """
    unpaired = []
    distances = []
    for index, image in enumerate(images):
        found = {"reference": reference(image), "other": other(image)}
        for side, opposite in itertools.permutations(found):
            for row in np.flatnonzero(found[side].scores >= score):
                distance = _nearest(found[side], row, found[opposite], partner_score)
                if distance <= tolerance:
                    distances.append(distance)
                else:
                    unpaired.append(_describe(index, side, found[side], row))
    return {
        "images": len(images),
        "detections": len(distances) + len(unpaired),
        "unpaired": len(unpaired),
        "first_unpaired": unpaired[:20],
        "largest_corner_difference": max(distances, default=0.0),
    }


def _nearest(detections, row, others, partner_score):
    """The largest corner difference to the nearest partner, infinite if there is none."""
    is_candidate = others.labels == detections.labels[row]
    is_candidate &= others.scores >= partner_score
    if not is_candidate.any():
        return np.inf
    differences = np.abs(others.boxes[is_candidate] - detections.boxes[row])
    return float(differences.max(1).min())


def _describe(index, side, detections, row):
    return {
        "image": index,
        "side": side,
        "box": np.round(detections.boxes[row].astype(float), 4).tolist(),
        "label": int(detections.labels[row]),
    }
