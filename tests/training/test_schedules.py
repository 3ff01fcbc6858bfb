import pytest

from ssd_tf.config import Train
from ssd_tf.training import schedules
from ssd_tf.training.trainer import make_schedule


@pytest.mark.parametrize(("step", "fraction"), [(0, 0.25), (2, 0.625), (4, 1.0)])
def test_linear_warmup(step, fraction):
    # Halfway: (0.25 + 1) / 2.
    assert schedules.linear_warmup(step, 4, 0.25) == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("step", "fraction"), [(0, 1.0), (9, 1.0), (10, 0.1), (19, 0.1), (20, 0.01), (1000, 0.01)]
)
def test_step_decay(step, fraction):
    assert schedules.step_decay(step, (10, 20), 0.1) == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("step", "fraction"),
    # cos(45 degrees) = 0.7071068 after a quarter of the steps.
    [(0, 1.0), (2, 0.5 * 1.7071068), (4, 0.5), (8, 0.0), (9, 0.0)],
)
def test_cosine_decay(step, fraction):
    assert schedules.cosine_decay(step, 8) == pytest.approx(fraction, rel=1e-6, abs=1e-9)


def test_cosine_of_no_steps():
    assert schedules.cosine_decay(0, 0) == 1.0


@pytest.mark.parametrize(
    ("step", "rate"),
    # A quarter of the rate at first; halfway through the warm-up, (0.25 + 1) / 2 of it.
    [(0, 0.1), (2, 0.25), (4, 0.4), (9, 0.4), (10, 0.04), (19, 0.04), (20, 0.004), (1000, 0.004)],
)
def test_warmup_and_steps(step, rate):
    train = Train(
        learning_rate=0.4,
        warmup_steps=4,
        warmup_from=0.25,
        schedule="step",
        decay_steps=(10, 20),
        decay_factor=0.1,
        steps=30,
    )
    assert make_schedule(train)(step) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("step", "rate"),
    # cos(45 degrees) = 0.7071068 after a quarter of the way from 4 to 12.
    [(0, 0.1), (4, 0.4), (6, 0.2 * 1.7071068), (8, 0.2), (12, 0.0), (13, 0.0)],
)
def test_warmup_and_cosine(step, rate):
    train = Train(learning_rate=0.4, warmup_steps=4, warmup_from=0.25, schedule="cosine", steps=12)
    assert make_schedule(train)(step) == pytest.approx(rate, rel=1e-6, abs=1e-9)


def test_without_warmup():
    assert make_schedule(Train(learning_rate=0.3))(0) == 0.3


def test_a_run_that_is_all_warmup_does_not_divide_by_zero():
    train = Train(learning_rate=0.3, schedule="cosine", steps=5, warmup_steps=5)
    assert make_schedule(train)(5) == pytest.approx(0.3)
