"""Names of any kind in the plots, and the shades of the confusion matrix."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from PIL import Image

from ssd_tf.evaluation.report import figures

NAMES = [
    "US$ {1$}",
    "$^$",
    "a$$b",
    "cost $\\foo$",
    "dog $5 & $6",
    "_hidden",
    "__init__",
    "\u4eba\u7269",
    "\u0410\u0431\u0432",
    "\u0642\u0637\u0629",
    "<b>&",
    "\U0001f600",
    "%s {0} \\n",
]
CURVE = [1.0] * 101
COLORS = {"cat": "#e6194b", "b": "#3cb44b", "$x$": "#4363d8"}


def texts_of(uri):
    """The texts of an SVG image in a data URI, which must be XML."""
    data = base64.b64decode(uri.partition(",")[2])
    root = ElementTree.fromstring(data)
    return [
        "".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(name):
    colors = {name: "#e6194b", "other": "#3cb44b"}
    assert name in texts_of(figures.class_curves({name: CURVE, "other": CURVE}, colors))
    assert texts_of(figures.confusion(np.eye(2, dtype=int), [name])).count(name) == 2
    curves = {name: (np.arange(101) / 100, CURVE), "b": (np.arange(101) / 100, CURVE)}
    assert name in texts_of(figures.compare_curves("recall", "precision", curves))


def test_names_that_no_image_can_hold():
    names = ["a\x00b\x1f", "\ud800", "x" * 500 + "end", "two\nlines"]
    texts = texts_of(figures.confusion(np.eye(5, dtype=int), names))
    assert "a\ufffdb\ufffd" in texts and "\ufffd" in texts and "two\ufffdlines" in texts
    (shortened,) = {text for text in texts if text.startswith("xxx")}
    assert shortened.endswith("end") and len(shortened) <= 40


def test_settings_of_the_user_change_nothing():
    with matplotlib.rc_context({"text.usetex": True, "text.parse_math": True}):
        assert "$x$" in texts_of(figures.class_curves({"$x$": CURVE, "b": CURVE}, COLORS))


def test_no_legend_searches_for_its_place(monkeypatch):
    # The search takes as long as there are points, and matplotlib warns when that is a second.
    def search(*_arguments):
        raise AssertionError("a legend has no place of its own")

    monkeypatch.setattr(Legend, "_find_best_position", search)
    found = type("Found", (), {"scores": np.array([0.2, 0.9])})
    truth = type("Truth", (), {"ignored": np.zeros(1, bool), "area": np.ones(1)})
    thresholds = {"score": CURVE, "precision": CURVE, "recall": CURVE, "f1": CURVE}
    drawn = [
        figures.class_curves({"cat": CURVE, "b": CURVE}, COLORS),
        figures.compare_curves("recall", "precision", {"a": (CURVE, CURVE)}),
        figures.threshold_curves(thresholds, 0.5),
        figures.score_histogram(found, np.array([0, 1])),
        figures.size_histogram(truth, np.ones(1, bool)),
    ]
    legends = [
        ["cat", "b", "mean of the classes"],
        ["a"],
        ["precision", "recall", "F1"],
        ["right", "wrong"],
        ["found", "missed"],
    ]
    for uri, names in zip(drawn, legends, strict=True):
        assert set(names) <= set(texts_of(uri))


def test_numbers_on_a_logarithmic_axis_are_no_formulas():
    found = type("Found", (), {"scores": np.full(2000, 0.5)})
    texts = texts_of(figures.score_histogram(found, np.zeros(2000, int)))
    assert {"10", "100", "1,000"} <= set(texts)
    assert not any("$" in text for text in texts)


def svg_of(uri):
    return base64.b64decode(uri.partition(",")[2]).decode()


def test_one_class_has_a_curve_in_its_colour_and_no_legend():
    drawn = figures.class_curves({"cat": CURVE}, COLORS)
    assert texts_of(drawn).count("cat") == 0
    assert "#e6194b" in svg_of(drawn)
    few = svg_of(figures.class_curves({"cat": CURVE, "b": CURVE}, COLORS))
    assert "#e6194b" in few and "#3cb44b" in few
    many = {str(index): CURVE for index in range(7)}
    drawn = figures.class_curves(many, dict.fromkeys(many, "#e6194b"))
    assert "#e6194b" not in svg_of(drawn) and texts_of(drawn).count("3") == 0


@pytest.mark.parametrize(
    ("costs", "end"), [([0, 0.0], 0.05), ([0.001, 0.04], 0.05), ([0.4, 0], 0.42)]
)
def test_the_axis_of_error_costs_is_never_short(monkeypatch, costs, end):
    limits = []
    monkeypatch.setattr(Axes, "set_xlim", lambda _axes, low, high: limits.append((low, high)))
    figures.error_costs({str(index): {"cost": cost} for index, cost in enumerate(costs)})
    assert limits == [(0, pytest.approx(end))]


def shades(matrix, names):
    """The gray level of each cell: 255 is white."""
    svg = base64.b64decode(figures.confusion(np.array(matrix), names).partition(",")[2]).decode()
    encoded = re.search(r"data:image/png;base64,([^\"]+)", svg).group(1)
    drawn = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("L")
    count = len(matrix)
    step = drawn.width / count
    places = [int((i + 0.5) * step) for i in range(count)]
    return [[drawn.getpixel((x, y)) for x in places] for y in reversed(places)]  # from below


def test_false_alarms_of_one_class_are_not_the_darkest_cell():
    # 38 of 41 found, and 2 of 40 detections wrong.
    (right, missed), (false, nothing) = shades([[38, 3], [2, 0]], ["raccoon"])
    assert right < 100 and missed > 220 and false > 220 and nothing > 240


def test_false_alarms_are_shaded_by_the_detections_of_their_class():
    # All detections of the second class are wrong.
    cells = shades([[9, 0, 1], [0, 0, 4], [1, 3, 0]], ["cat", "dog"])
    assert cells[2][1] < 100 and cells[2][0] > 220
