"""An analysis as one HTML file, and several evaluations beside each other."""

import pathlib
import typing

import jinja2
import numpy as np

from ssd_tf.evaluation.analysis import Analysis
from ssd_tf.evaluation.report import figures, pictures

_TEMPLATES = pathlib.Path(__file__).with_name("templates")
_MOST_CONFUSIONS = 15
_MOST_LABEL_ERRORS = 30
_ERROR_MEANINGS = {
    "classification": "an object of another class",
    "localisation": "an object of this class, but IoU below 0.5",
    "both": "another class, and IoU below 0.5",
    "duplicate": "an object that was found already",
    "background": "no object: IoU below 0.1",
    "missed": "an object without a detection, even of another class or place",
}


class Images(typing.NamedTuple):
    """names: of all images, in the order of truth.image_ids. chosen: what `pictures.choose_images`
    chose. shown: {index of an image: uint8 [H, W, 3]} of these, or None without images.
    """

    names: list[str]
    chosen: dict
    shown: dict | None


def render_report(metrics, analysis: Analysis, class_rows, images, settings, coverage=()) -> str:
    """The report of one evaluation as HTML.

    metrics: the content of metrics.json. class_rows: of `analysis.class_rows`. images: what to
    show. settings: lines.
    coverage: rows of `coverage.coverage`.
    """
    truth = analysis.truth
    content = {
        "title": f"Evaluation of {settings[0]}",
        "settings": settings[1:],
        "metrics": metrics,
        "curves": analysis.thresholds,
        "classes": class_rows,
        "score": analysis.score,
        "errors": analysis.errors,
        "meanings": _ERROR_MEANINGS,
        "confusions": _confusions(analysis),
        "by_size": analysis.by_size,
        "by_aspect": analysis.by_aspect,
        "calibration": analysis.calibration,
        "coverage": coverage,
        "num_objects": int(np.sum(~truth.ignored)),
        "num_detections": len(analysis.found.scores),
        "figures": _figures(metrics, analysis),
        "label_errors": _label_errors(analysis, images.names)[:_MOST_LABEL_ERRORS],
        "more_label_errors": max(len(analysis.matches.label_errors) - _MOST_LABEL_ERRORS, 0),
        "pictures": _pictures(analysis, images),
        "no_pictures": None
        if images.shown is not None
        else "No images: give --images DIR to see them.",
    }
    return _environment().get_template("report.html").render(content)


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
    return _environment().get_template("comparison.html").render(content)


def _environment():
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["fixed"] = lambda value, digits: f"{value:.{digits}f}"
    return environment


def _figures(metrics, analysis):
    truth = analysis.truth
    drawn = {
        "confusion": figures.confusion(analysis.confusion, truth.names),
        "errors": figures.error_costs(analysis.errors),
        "scores": figures.score_histogram(analysis.found, analysis.matches.status),
        "sizes": figures.size_histogram(truth, analysis.is_found),
        "reliability": figures.reliability(analysis.calibration),
        "by_size": figures.slice_bars(analysis.by_size),
        "by_aspect": figures.slice_bars(analysis.by_aspect),
    }
    if analysis.thresholds:
        drawn["thresholds"] = figures.threshold_curves(analysis.thresholds, analysis.score)
        drawn["recall"] = figures.class_curves(metrics["precision_at_recall"])
    return drawn


def _confusions(analysis):
    """The most frequent confusions of two classes."""
    names = analysis.truth.names
    matrix = analysis.confusion[:-1, :-1].copy()
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    pairs = [np.unravel_index(place, matrix.shape) for place in order]
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


def _pictures(analysis, images):
    if not images.shown:
        return {}
    return {
        kind: [
            {
                "source": pictures.draw_image(analysis, index, images.shown[index]),
                "text": _describe_image(analysis, index, images.names[index]),
            }
            for index in indices
            if index in images.shown
        ]
        for kind, indices in images.chosen.items()
    }


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
    """What makes the numbers of these evaluations hard to compare."""
    for key in ("data", "split", "images"):
        values = {name: run["settings"].get(key) for name, run in runs.items()}
        if len(set(map(str, values.values()))) > 1:
            listed = ", ".join(f"{name} {value}" for name, value in values.items())
            yield f"they were measured on different {key}: {listed}."
