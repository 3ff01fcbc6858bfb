"""The pace of a run, measured on a few steps and held-out images."""

import pytest
import tensorflow as tf

from ssd_tf.training import pace as module
from ssd_tf.training.pace import extrapolate, measure_pace


@pytest.mark.parametrize(
    ("times", "count", "seconds"),
    [
        ({5: 3.0}, 5, 3.0),  # all images were timed
        ({8: 2.0, 32: 5.0}, 32, 5.0),
        ({8: 2.0, 32: 5.0}, 112, 15.0),  # an eighth of a second for each image
        ({8: 2.0, 32: 1.5}, 112, 1.5),  # a time per image below 0 is noise
    ],
)
def test_the_time_of_more_images(times, count, seconds):
    assert extrapolate(times, count) == seconds


@pytest.mark.integration
def test_the_pace_of_a_real_run(tiny_config, tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pace = measure_pace(tiny_config, tiny_data)
    assert 0 < pace.seconds_per_step < pace.startup_seconds
    assert 0 < pace.seconds_per_evaluation < pace.startup_seconds
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_without_a_val_split_evaluations_take_no_time(tiny_config, make_data, monkeypatch):
    monkeypatch.setattr(module, "make_run_steps", lambda *_: lambda *_: tf.zeros([]))
    pace = measure_pace(tiny_config, make_data("data", train=range(6)))
    assert pace.seconds_per_evaluation == 0


@pytest.mark.parametrize(("keeps", "rows"), [(True, [1, 2, 3]), (False, None)])
def test_with_classes_that_are_kept_only_rows_are_trained(
    tiny_config, tiny_data, monkeypatch, keeps, rows
):
    """Such a step takes a fraction of the time of others."""
    found = []

    def stop(*_, trained_rows, **__):
        found.append(trained_rows)
        raise InterruptedError

    monkeypatch.setattr(module, "make_train_state", stop)
    data = tiny_config.data.model_copy(update={"keep_classes": keeps})
    with pytest.raises(InterruptedError):
        measure_pace(tiny_config.model_copy(update={"data": data}), tiny_data)
    assert [each if each is None else each.tolist() for each in found] == [rows]
