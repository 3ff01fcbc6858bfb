"""The report of an evaluation as one HTML file, and of several evaluations side by side."""

import pathlib

import numpy as np
from PIL import Image

from ssd_tf.draw import color_of, draw_comparison, jpeg_uri
from ssd_tf.evaluation.analysis import Analysis, at_score, image_names
from ssd_tf.evaluation.report import figures
from ssd_tf.evaluation.verdict import count
from ssd_tf.inference.detections import Detections, from_xywh_pixels
from ssd_tf.pages import make_environment

_TEMPLATES = pathlib.Path(__file__).with_name("templates")
_MAX_IMAGES = 6
_MAX_SIDE = 560  # pixels, of each of the two drawn images
_MAX_CONFUSIONS = 15
_MAX_LABEL_ERRORS = 30
_ERROR_MEANINGS = {
    "classification": "an object of another class",
    "localisation": "an object of this class, but IoU below 0.5",
    "both": "another class, and IoU below 0.5",
    "duplicate": "an object that was found already",
    "background": "no object: IoU below 0.1",
    "missed": "an object without a detection, not even of another class or too far away",
}


_METRIC_MEANINGS = {
    "AP": "mean over the IoUs 0.5, 0.55, ..., 0.95: COCO's first number",
    "AP50": "at an IoU of 0.5: boxes may be loose",
    "AP75": "at an IoU of 0.75: boxes must be tight",
    "APs": "AP of objects below 32 x 32 pixels",
    "APm": "AP of objects from 32 x 32 to 96 x 96 pixels",
    "APl": "AP of objects above 96 x 96 pixels",
    "AR1": "mean recall over the same IoUs, at most 1 detection of each class in an image",
    "AR10": "the same, at most 10 detections",
    "AR100": "the same, at most 100 detections",
    "ARs": "AR100 of objects below 32 x 32 pixels",
    "ARm": "AR100 of objects from 32 x 32 to 96 x 96 pixels",
    "ARl": "AR100 of objects above 96 x 96 pixels",
    "AP50_11point": "VOC2007: mean precision at 11 recalls, IoU 0.5",
    "AP50_all": "VOC2010: area under the precision, IoU 0.5",
}
_TIME_MEANINGS = {
    "per_image": "median, one image at a time",
    "p90": "what 90 % of the images stay below",
    "preprocessing": "median, of one image",
    "network": "median, of one image",
    "postprocessing": "median, of one image",
}


def render_report(
    analysis: Analysis, metrics, class_rows, settings, fetch=None, coverage=()
) -> str:
    """The report of one evaluation as HTML.

    metrics: the content of metrics.json. class_rows: of `analysis.class_rows`. settings: lines.
    fetch: indices of images -> {index: uint8 [H, W, 3]}, without those that cannot be read; None
    without images. coverage: rows of `evaluate.coverage`.
    """
    names = image_names(analysis.truth)
    truth = analysis.truth
    counts = count(analysis)
    content = {
        "title": f"Evaluation of {settings[0]}",
        "settings": settings[1:],
        "metrics": metrics,
        "numbers": list(_number_rows(metrics)),
        "curves": analysis.thresholds,
        "chosen": analysis.chosen,
        "reached": at_score(analysis),
        "classes": [
            {**row, "color": color_of(label)} for label, row in enumerate(class_rows, start=1)
        ],
        "num_found": int(counts.found.sum()),
        "num_false": int(counts.wrong.sum()),
        "score": analysis.score,
        "errors": [
            {"name": name, "count": counts.errors[name], "cost": row["cost"]}
            for name, row in analysis.errors.items()
        ],
        "meanings": _ERROR_MEANINGS,
        "confusions": _confusions(analysis),
        "by_size": analysis.by_size,
        "by_aspect": analysis.by_aspect,
        "calibration": analysis.calibration,
        "coverage": coverage,
        "num_objects": int(np.sum(~truth.ignored)),
        "num_detections": len(analysis.found.scores),
        "figures": _figures(metrics, analysis),
        "label_errors": _label_errors(analysis, names)[:_MAX_LABEL_ERRORS],
        "more_label_errors": max(len(analysis.matches.label_errors) - _MAX_LABEL_ERRORS, 0),
        "images": _draw_images(analysis, names, fetch),
        "no_images": "" if fetch else "No images: give --images DIR to see them.",
    }
    return make_environment(_TEMPLATES).get_template("report.html").render(content)


def render_comparison(runs: dict) -> str:
    """The comparison of evaluations, {name: the content of its metrics.json}, as HTML."""
    rows = [_run_row(name, metrics) for name, metrics in runs.items()]
    # Of the same evaluations: without objects there is neither curve.
    measured = {name: run for name, run in runs.items() if run["thresholds"]}
    recall = {
        name: (figures.RECALLS, np.mean(list(run["precision_at_recall"].values()), 0))
        for name, run in measured.items()
    }
    f1 = {
        name: (run["thresholds"]["score"], run["thresholds"]["f1"])
        for name, run in measured.items()
    }
    content = {
        "runs": rows,
        "warnings": list(_warnings(runs)),
        "classes": _compare_classes(runs),
        "error_names": list(_ERROR_MEANINGS),
        "figures": measured
        and {
            "recall": figures.compare_curves("recall", "precision", recall),
            "f1": figures.compare_curves("score", "F1", f1),
        },
    }
    return make_environment(_TEMPLATES).get_template("comparison.html").render(content)


def _number_rows(metrics):
    """Yield (name, value, digits, meaning) of the numbers of metrics.json."""
    for name, value in {**metrics["coco"], **metrics["voc"]}.items():
        yield name, value, 3, _METRIC_MEANINGS[name]
    best = (metrics["thresholds"] or {}).get("best")
    if best:
        for name in ("precision", "recall", "f1"):
            yield name, best[name], 3, f"of all classes together, at a score of {best['score']:.2f}"
    for name, value in metrics["latency_ms"].items():
        yield f"{name}, ms", value, 2, _TIME_MEANINGS[name]
    if metrics["images_per_second"]:
        yield "images per second", metrics["images_per_second"]["batch_8"], 1, "in batches of 8"
    if metrics["model_mb"]:
        yield "MB", metrics["model_mb"], 1, "size of the model"


def _figures(metrics, analysis):
    truth = analysis.truth
    drawn = {
        "errors": figures.error_costs(analysis.errors),
        "scores": figures.score_histogram(analysis.found, analysis.matches.status),
        "sizes": figures.size_histogram(truth, analysis.is_found),
        "reliability": figures.reliability(analysis.calibration),
        "by_size": figures.slice_bars(analysis.by_size),
        "by_aspect": figures.slice_bars(analysis.by_aspect),
    }
    if len(truth.names) > 1:
        drawn["confusion"] = figures.confusion(analysis.confusion, truth.names)
    if analysis.thresholds:
        colors = {name: color_of(label) for label, name in enumerate(truth.names, start=1)}
        drawn["thresholds"] = figures.threshold_curves(analysis.thresholds, analysis.score)
        drawn["recall"] = figures.class_curves(metrics["precision_at_recall"], colors)
    return drawn


def _confusions(analysis):
    """The most frequent confusions of two classes."""
    names = analysis.truth.names
    matrix = analysis.confusion[:-1, :-1].copy()
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    pairs = [np.unravel_index(index, matrix.shape) for index in order]
    return [
        {"object": names[row], "detected": names[column], "count": int(matrix[row, column])}
        for row, column in pairs
        if matrix[row, column]
    ]


def _label_errors(analysis, image_names):
    truth = analysis.truth
    found = analysis.found
    return [
        {
            "image": image_names[found.image[row["detection"]]],
            "detected": truth.names[found.category[row["detection"]]],
            "score": float(found.scores[row["detection"]]),
            "labelled": None
            if row["object"] is None
            else truth.names[truth.category[row["object"]]],
        }
        for row in analysis.matches.label_errors
    ]


def choose_images(analysis: Analysis) -> dict:
    """{"worst", "best", "label_errors": indices of images}, a few of each.

    The worst have the most errors for their objects (F1). The best have no errors, the most objects
    and, among equals, the highest of the scores that their least certain object has.
    """
    right, wrong, missed = (analysis.image_counts[key] for key in ("right", "wrong", "missed"))
    num_errors = wrong + missed
    f1 = 2 * right / np.maximum(2 * right + num_errors, 1)
    worst = np.lexsort((-num_errors, f1))
    best = np.lexsort((-_lowest_scores(analysis), -right, -f1))
    suspects = dict.fromkeys(
        int(analysis.found.image[row["detection"]]) for row in analysis.matches.label_errors
    )
    return {
        "worst": [int(i) for i in worst if num_errors[i]][:_MAX_IMAGES],
        "best": [int(i) for i in best if right[i] and not num_errors[i]][:_MAX_IMAGES],
        "label_errors": list(suspects)[:_MAX_IMAGES],
    }


def _lowest_scores(analysis):
    """The lowest score of the detections by which objects of each image were found; 1 without."""
    lowest = np.ones(len(analysis.truth.images))
    partner = analysis.matches.partner[analysis.is_found]
    np.minimum.at(lowest, analysis.truth.image[analysis.is_found], analysis.found.scores[partner])
    return lowest


def _draw_images(analysis, names, fetch):
    """{kind: [{"source": a data URI, "aspect": width / height, "text"}]} of the chosen images."""
    chosen = choose_images(analysis)
    images = fetch({index for indices in chosen.values() for index in indices}) if fetch else {}

    def make_row(index):
        drawn = _draw_image(analysis, index, images[index])
        text = _describe_image(analysis, index, names[index])
        return {"source": jpeg_uri(drawn), "aspect": drawn.width / drawn.height, "text": text}

    return {
        kind: [make_row(index) for index in indices if index in images]
        for kind, indices in chosen.items()
    }


def _draw_image(analysis, index, image):
    """One image with its objects, and with its detections at the analysis' score (Pillow)."""
    truth = analysis.truth
    image_hw = image.shape[:2]
    rows = np.flatnonzero(truth.image == index)
    example = {
        "boxes": from_xywh_pixels(truth.boxes[rows], image_hw),
        "labels": truth.category[rows] + 1,
        "crowd": truth.crowd[rows],
        "difficult": truth.difficult[rows],
    }
    rows = np.flatnonzero(analysis.found.image == index)
    found = analysis.found.select(rows[np.argsort(-analysis.found.scores[rows], kind="stable")])
    boxes = from_xywh_pixels(found.boxes, image_hw)
    detections = Detections(boxes, found.scores, found.category + 1)
    small = Image.fromarray(image)
    small.thumbnail((_MAX_SIDE, _MAX_SIDE))
    return draw_comparison(np.asarray(small), example, detections, truth.names, analysis.score)


def _describe_image(analysis, index, name):
    counts = ", ".join(f"{values[index]} {kind}" for kind, values in analysis.image_counts.items())
    return f"{name}: {counts}"


def _run_row(name, metrics):
    best = (metrics["thresholds"] or {}).get("best")
    settings = [f"{key} {value}" for key, value in metrics["settings"].items()]
    return {**metrics, "name": name, "best": best, "settings": settings}


def _compare_classes(runs):
    names = list(dict.fromkeys(name for run in runs.values() for name in run["per_class"]))
    rows = []
    for name in names:
        values = [run["per_class"].get(name, {}).get("AP") for run in runs.values()]
        known = [value for value in values if value is not None]
        rows.append({"name": name, "APs": values, "spread": max(known) - min(known)})
    return rows


def _warnings(runs):
    """Yield the reasons why the numbers of these evaluations are hard to compare."""
    for key in ("data", "split", "images"):
        values = {name: run["settings"].get(key) for name, run in runs.items()}
        if len(set(map(str, values.values()))) > 1:
            listed = ", ".join(f"{name} {value}" for name, value in values.items())
            yield f"measured on different {key}: {listed}."
