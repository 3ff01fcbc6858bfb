"""The size of a run, its pace, and the time that is left."""

import pytest

from ssd_tf.training.progress import Plan, Stopwatch, show_seconds

NAN = float("nan")


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the stopwatch reads, in a list of one."""
    seconds = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: seconds[0])
    return seconds


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (
            Plan(2000, 16, 160),
            "160 images, 16 per step: 10 steps per pass, 2,000 steps = 200 passes",
        ),
        (Plan(1, 32, 20), "20 images, 32 per step: 0.6 steps per pass, 1 steps = 1.6 passes"),
        (
            Plan(120000, 32, 117266),
            "117,266 images, 32 per step: 3,665 steps per pass, 120,000 steps = 32.7 passes",
        ),
    ],
)
def test_the_size_of_a_run(plan, text):
    assert plan.describe() == text


@pytest.mark.parametrize(
    ("num_steps", "every", "step", "count"),
    [
        (10, None, 0, 0),
        (10, 3, 0, 4),  # after 3, 6, 9 and the last
        (10, 3, 2, 4),
        (10, 3, 3, 3),
        (10, 3, 9, 1),
        (10, 3, 10, 0),
        (9, 3, 0, 3),  # the last is one of them
        (9, 3, 8, 1),
        (9, 20, 0, 1),
    ],
)
def test_evaluations_to_come(num_steps, every, step, count):
    assert Plan(num_steps, 8, 100, every).evaluations_after(step) == count


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (2640, "44 min"),
        (12000, "3 h 20 min"),
        (190800, "2 d 5 h"),
    ],
)
def test_durations(seconds, text):
    assert show_seconds(seconds) == text


def test_without_steps_nothing_is_known(clock):
    watch = Stopwatch(Plan(100, 8, 80, 50))
    clock[0] += 60
    assert watch.measure_steps() == {}
    assert (watch.seconds_per_step(), watch.seconds_left(0)) == (None, None)
    assert watch.describe_rest(0) == ""


def test_the_pace_is_known_after_three_steps(clock):
    watch = Stopwatch(Plan(100, 8, 80, 50))
    for _ in range(2):
        clock[0] += 2
        watch.count_steps(1, 0.0)
        assert watch.seconds_per_step() is None
    clock[0] += 5
    watch.count_steps(1, 0.0)
    assert watch.seconds_per_step() == 3.0
    assert watch.seconds_left(3) == 291.0  # 97 steps, evaluations are not known yet
    assert watch.describe_rest(3) == "about 5 min (3 s per step), plus 2 evaluations"


def test_the_pace_is_the_mean_of_the_latest_ten_intervals(clock):
    watch = Stopwatch(Plan(1000, 4, 80))
    for seconds in (100.0, *[1.0] * 9, 3.0):
        watch.restart()
        watch.count_steps(2, NAN)
        clock[0] += seconds
        assert watch.measure_steps() == {"images_per_second": 8 / seconds}
    # Nine intervals of a second and one of three, each of two steps.
    assert watch.seconds_per_step() == 12.0 / 20
    assert watch.describe_rest(990) == "about 6 s (0.6 s per step)"


def test_evaluations_count_in_what_is_left(clock):
    watch = Stopwatch(Plan(100, 8, 80, 25))
    watch.count_steps(10, 1.0)
    clock[0] += 5
    assert watch.measure_steps() == {"images_per_second": 16.0, "input_share": 0.2}
    watch.restart()
    clock[0] += 30  # with compilation
    watch.measure_evaluation()
    watch.restart()
    clock[0] += 7
    watch.measure_evaluation()
    # Half a second for each of 50 steps; the evaluations after 75 and 100 take 7 s each.
    assert watch.seconds_left(50) == 39.0
    assert watch.seconds_left(100) == 0.0


def test_waiting_is_at_most_all_of_the_time(clock):
    watch = Stopwatch(Plan(100, 8, 80))
    watch.count_steps(10, 6.0)
    clock[0] += 5
    assert watch.measure_steps()["input_share"] == 1.0
