"""The learning curve: which runs fit into the time, and what they say."""

import pytest

from ssd_tf.config import check_config
from ssd_tf.quickstarting import learning_curve
from ssd_tf.quickstarting.learning_curve import Point, Run


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        # Each takes 100 steps of 1.5 s and 60 s: 3.5 minutes.
        (0, []),
        (6.9, []),
        (7, [Run(0.5, 100), Run(1.0, 100)]),
        (10.4, [Run(0.5, 100), Run(1.0, 100)]),
        (10.5, [Run(0.5, 100), Run(1.0, 100), Run(0.25, 100)]),
        (500, [Run(0.5, 100), Run(1.0, 100), Run(0.25, 100)]),
    ],
)
def test_what_fits_into_the_time(minutes, expected):
    assert learning_curve.plan(minutes, 1.5, 200, 50) == expected


def test_runs_that_would_say_nothing():
    assert learning_curve.plan(500, 1.5, 39, 50) == []  # 19 steps
    assert len(learning_curve.plan(500, 1.5, 40, 50)) == 3
    assert learning_curve.plan(500, 1.5, 200, 7) == []
    assert len(learning_curve.plan(500, 1.5, 200, 8)) == 3


def points(half_images, half_steps, whole, quarter=None):
    found = [Point(1.0, 201, whole), Point(0.5, 100, half_images), Point(1.0, 100, half_steps)]
    return found if quarter is None else [*found, Point(0.25, 100, quarter)]


SENTENCES = {
    "images": "more images would help, longer training hardly",
    "steps": "longer training would help, more images hardly",
    "both": "more images and longer training would both help",
    "neither": "neither more images nor longer training would help much",
}


@pytest.mark.parametrize(
    ("aps", "key", "numbers"),
    [
        ((0.30, 0.35, 0.36), "images", ("+0.050", "+0.010")),
        ((0.30, 0.30, 0.36), "steps", ("+0.000", "+0.060")),
        ((0.30, 0.33, 0.36), "both", ("+0.030", "+0.030")),
        ((0.30, 0.31, 0.29), "neither", ("+0.010", "-0.020")),
    ],
)
def test_what_is_said(aps, key, numbers):
    found = learning_curve.describe(points(*aps))
    assert found.startswith(SENTENCES[key])
    assert f"twice the images brought {numbers[0]} AP and twice the steps {numbers[1]}" in found
    assert all(f"{ap:.3f}" in found for ap in aps)
    assert "after 100 steps" in found and "after 201" in found
    assert "quarter" not in found


def test_a_quarter_is_told_too():
    found = learning_curve.describe(points(0.3, 0.35, 0.36, 0.123))
    assert "0.123 with a quarter" in found and found.startswith(SENTENCES["images"])


@pytest.mark.parametrize("index", [None, 0, 1, 2])
def test_without_all_of_them_it_says_that_it_did_not_look(index):
    found = points(0.3, 0.35, 0.36)
    found = [] if index is None else found[:index] + found[index + 1 :]
    assert "not measured" in learning_curve.describe(found)


VALUES = {
    "boxes": {"preset": "paper"},
    "data": {"fraction": 0.8},
    "train": {
        "steps": 200,
        "warmup_steps": 30,
        "decay_steps": [100, 150, 151],
        "learning_rate": 0.02,
    },
    "eval": {"every": 10, "patience": 2},
}


def test_the_schedule_shrinks_with_the_steps():
    config = learning_curve.shorten(check_config(VALUES, "test"), Run(0.25, 100))
    train = config.train
    assert (train.steps, train.warmup_steps) == (100, 15)
    assert train.decay_steps == (50, 75)
    assert (train.learning_rate, train.seed) == (0.02, 0)
    assert config.data.fraction == 0.2
    assert (config.eval.every, config.eval.patience) == (100, None)


def test_a_schedule_of_constant_rate_stays_one():
    values = {"boxes": {"preset": "paper"}, "train": {"steps": 200}}
    train = learning_curve.shorten(check_config(values, "test"), Run(1.0, 100)).train
    assert (train.warmup_steps, train.decay_steps) == (0, ())
    values["train"] |= {"warmup_steps": 1, "warmup_from": 0.5}
    train = learning_curve.shorten(check_config(values, "test"), Run(1.0, 100)).train
    assert (train.warmup_steps, train.warmup_from) == (1, 0.5)


@pytest.mark.parametrize(("ema", "expected"), [(None, None), (0.987, 0.95), (0.9, 0.9)])
def test_an_average_reaches_over_a_fifth_of_the_steps(ema, expected):
    values = {**VALUES, "train": {**VALUES["train"], "ema": ema}}
    train = learning_curve.shorten(check_config(values, "test"), Run(1.0, 100)).train
    assert train.ema == expected


def test_a_run_that_measured_nothing(tmp_path):
    assert learning_curve.read_points(tmp_path) == []


def test_the_last_ap_counts(tiny_run):
    (point,) = learning_curve.read_points(tiny_run, 0.5)
    assert (point.fraction, point.steps) == (0.5, 80)
    assert 0 <= point.ap <= 1


def test_each_run_has_a_folder(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        learning_curve,
        "train",
        lambda config, data, workdir: calls.append((config.data.fraction, data, workdir)),
    )
    monkeypatch.setattr(
        learning_curve, "read_points", lambda _workdir, fraction: [Point(fraction, 100, 0.5)]
    )
    config = check_config({"boxes": {"preset": "paper"}, "train": {"steps": 200}}, "test")
    runs = [Run(0.5, 100), Run(1.0, 100)]
    found = learning_curve.run(config, "data", tmp_path, runs)
    assert found == [Point(0.5, 100, 0.5), Point(1.0, 100, 0.5)]
    assert calls == [
        (0.5, "data", tmp_path / "fraction_0.5"),
        (1.0, "data", tmp_path / "fraction_1"),
    ]
