import pytest

from ssd_tf.config import check_config
from ssd_tf.training.events import Timetable, evaluation_interval

TIMETABLE = Timetable(num_steps=10, report_every=4, save_every=3, evaluate_every=6, others=(7,))


@pytest.mark.parametrize(
    ("step", "report", "save", "evaluate"),
    [
        (1, False, False, False),
        (3, True, True, False),
        (4, True, False, False),
        (6, True, True, True),
        (7, False, False, False),
        (10, True, True, True),
    ],
)
def test_what_follows_a_step(step, report, save, evaluate):
    assert TIMETABLE.actions(step) == (report, save, evaluate)


def test_a_call_ends_before_the_next_event():
    stops = []
    step = 0
    while step < 10:
        step = TIMETABLE.next_stop(step)
        stops.append(step)
    assert stops == [3, 4, 6, 7, 8, 9, 10]


def test_without_evaluation():
    timetable = Timetable(num_steps=5, report_every=100, save_every=100, evaluate_every=None)
    assert timetable.next_stop(0) == 5
    assert timetable.actions(5) == (True, True, False)


@pytest.mark.parametrize(
    ("every", "steps"),
    # 100 images in batches of 8: 12.5 steps per epoch.
    [(None, 20), (7, 7), ("1 epoch", 12), ("2 epochs", 25), ("0.01 epochs", 1)],
)
def test_the_interval_of_evaluations(every, steps):
    config = check_config(
        {
            "boxes": {"preset": "paper"},
            "train": {"steps": 200, "batch_size": 8},
            "eval": {"every": every},
        },
        "test",
    )
    assert evaluation_interval(config, 100) == steps


def test_a_short_run_is_evaluated_after_each_step():
    config = check_config({"boxes": {"preset": "paper"}, "train": {"steps": 3}}, "test")
    assert evaluation_interval(config, 100) == 1
