"""The plots of a report, drawn by matplotlib, as data URIs of SVG images."""

import base64
import contextlib
import io
import warnings

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ssd_tf.draw import plain_text
from ssd_tf.evaluation.analysis import RIGHT, WRONG

_BLUE = "#1f5fa8"
_ORANGE = "#d9730d"
_GRAY = "#b8bec6"
_INK = "#1c2126"
_MAX_NAMED_CURVES = 6
_MIN_COST = 0.05  # of AP50: costs are drawn on an axis that is no shorter
_LINES = (_BLUE, _ORANGE, "#2e8540", "#8250a0", "#b02a37", "#5c6670")
_SIZE = (5.2, 3.4)
RECALLS = np.arange(101) / 100
# Of a confusion matrix; above the second number there is no room for the counts.
_MAX_CLASSES = 25
_CLASSES_WITH_NUMBERS = 12
_MAX_LABEL = 40  # characters
# No legend has loc="best", which takes the longer the more points there are.
_LEGEND = {"frameon": False, "fontsize": 8}
# A row above the plot, where it covers no curve; for short names.
_LEGEND_ABOVE = {**_LEGEND, "loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3}
_STYLE = {
    "text.parse_math": False,  # a $ in a class name is a dollar
    "text.usetex": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "ssd-tf",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
}


def compare_curves(x_label, y_label, curves: dict) -> str:
    """{name: (x, y)} -> one plot, both axes from 0 to 1."""
    with _plot(x_label, y_label) as (axes, done):
        lines = [
            axes.plot(x, y, color=_line(index))[0] for index, (x, y) in enumerate(curves.values())
        ]
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(lines, list(map(_label, curves)), loc="lower left", **_LEGEND)
    return done[0]


def class_curves(curves: dict, colors: dict) -> str:
    """{class: precision at the recalls 0, 0.01, ..., 1} -> each of them, and their mean.

    colors: of the classes, in which they are drawn if there are few. One class has no legend.
    """
    with _plot("recall", "precision") as (axes, done):
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        is_named = len(curves) <= _MAX_NAMED_CURVES
        handles = []
        for name, curve in curves.items():
            color = colors[name] if is_named else _GRAY
            handles += axes.plot(RECALLS, curve, color=color, linewidth=1.5)
        if len(curves) > 1:
            mean = np.mean(list(curves.values()), 0)
            mean_line = axes.plot(RECALLS, mean, color=_INK, linewidth=2.5)
            handles = handles * is_named + mean_line
            labels = [_label(name) for name in curves if is_named]
            axes.legend(handles, [*labels, "mean of the classes"], loc="lower left", **_LEGEND)
    return done[0]


def threshold_curves(curves: dict, best_score) -> str:
    """Curves of `thresholds.make_curves` -> precision, recall and F1 over the score."""
    with _plot("score", "") as (axes, done):
        for index, name in enumerate(("precision", "recall", "f1")):
            label = name.upper() if name == "f1" else name
            axes.plot(curves["score"], curves[name], color=_line(index), label=label)
        axes.axvline(best_score, color=_GRAY, linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(**_LEGEND_ABOVE)
    return done[0]


def confusion(matrix, names) -> str:
    """A confusion matrix; numbers are counts, shades are fractions.

    Of the objects of a row; in the last row, whose detections have no object, of the detections of
    a column. Of many classes, those with the most errors are shown.
    """
    errors = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
    shown = np.sort(np.argsort(-errors[:-1], kind="stable")[:_MAX_CLASSES])
    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    fractions[-1] = matrix[-1] / np.maximum(matrix.sum(0), 1)
    shown = np.append(shown, len(names))
    fractions = fractions[np.ix_(shown, shown)]
    labels = [_label([*names, "background"][index]) for index in shown]
    side = min(4.2 + 0.16 * len(labels), 8)
    with _plot("detected as", "object", (side, side * 0.9)) as (axes, done):
        axes.grid(False)
        axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=9)
        axes.set_yticks(range(len(labels)), labels, fontsize=9)
        if len(labels) <= _CLASSES_WITH_NUMBERS:
            for (row, column), count in np.ndenumerate(matrix[np.ix_(shown, shown)]):
                color = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=color)
    return done[0]


def error_costs(errors: dict) -> str:
    """AP50 that each kind of error costs."""
    with _plot("AP50 that it costs", "") as (axes, done):
        names = list(errors)[::-1]
        costs = [errors[name]["cost"] for name in names]
        axes.barh(names, costs, color=_BLUE)
        axes.set_xlim(0, max(1.05 * max(costs), _MIN_COST))
    return done[0]


def score_histogram(found, status) -> str:
    """Detections by score, right and wrong."""
    edges = np.linspace(0, 1, 41)
    with _plot("score", "detections") as (axes, done):
        right = found.scores[status == RIGHT]
        wrong = found.scores[status == WRONG]
        axes.hist([right, wrong], edges, stacked=True, color=[_BLUE, _ORANGE])
        axes.set_yscale("symlog", linthresh=10)
        axes.yaxis.set_major_formatter("{x:,.0f}")  # by itself it writes formulas of mathtext
        axes.set(xlim=(0, 1))
        axes.legend(["right", "wrong"], **_LEGEND_ABOVE)
    return done[0]


def size_histogram(truth, is_found) -> str:
    """Objects by the square root of their area, found and missed."""
    counted = ~truth.ignored
    sizes = np.sqrt(np.maximum(truth.area, 0))
    edges = np.linspace(0, max(sizes[counted].max(initial=1), 1), 31)
    with _plot("square root of the area, pixels", "objects") as (axes, done):
        groups = [sizes[counted & is_found], sizes[counted & ~is_found]]
        axes.hist(groups, edges, stacked=True, color=[_BLUE, _ORANGE])
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(["found", "missed"], **_LEGEND_ABOVE)
    return done[0]


def reliability(calibration: dict) -> str:
    """Precision over the mean score of each bin; on the diagonal scores are probabilities."""
    bins = [row for row in calibration["bins"] if row["count"]]
    with _plot("mean score", "fraction that is right") as (axes, done):
        axes.plot([0, 1], [0, 1], color=_GRAY, linestyle="--", linewidth=1)
        scores = [row["avg_confidence"] for row in bins]
        axes.plot(scores, [row["avg_accuracy"] for row in bins], "o-", color=_BLUE)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
    return done[0]


def slice_bars(rows) -> str:
    """AP of each slice that has objects."""
    with _plot("", "AP") as (axes, done):
        rows = [row for row in rows if row["AP"] >= 0]
        axes.bar([row["name"] for row in rows], [row["AP"] for row in rows], color=_BLUE)
        axes.tick_params(axis="x", labelsize=8)
    return done[0]


@contextlib.contextmanager
def _plot(x_label, y_label, size=_SIZE):
    """Axes to draw on, and a list that holds the data URI afterwards."""
    done = []
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The font measures the text; whoever opens the SVG image has others for its letters.
        warnings.filterwarnings("ignore", "Glyph .* missing|Matplotlib currently does not support")
        figure = Figure(size, layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlabel=x_label, ylabel=y_label)
        yield axes, done
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
        done.append(f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode()}")


def _line(index):
    return _LINES[index % len(_LINES)]


def _label(name):
    """A name without the characters that an SVG image cannot hold, and not longer than fits."""
    text = plain_text(name)
    half = _MAX_LABEL // 2
    return text if len(text) <= _MAX_LABEL else f"{text[: half - 1]}\u2026{text[-half:]}"
