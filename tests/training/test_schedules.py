import pytest

from ssd_tf.config import Train
from ssd_tf.training.schedules import learning_rate

STEPS = Train(
    learning_rate=0.4,
    warmup_steps=4,
    warmup_from=0.25,
    decay_steps=(10, 20),
    decay_factor=0.1,
    steps=30,
)
COSINE = Train(learning_rate=0.4, warmup_steps=4, warmup_from=0.25, schedule="cosine", steps=12)


@pytest.mark.parametrize(
    ("step", "rate"),
    # A quarter of the rate at first; in the middle of the warm-up (0.25 + 1) / 2 of it.
    [(0, 0.1), (2, 0.25), (4, 0.4), (9, 0.4), (10, 0.04), (19, 0.04), (20, 0.004), (1000, 0.004)],
)
def test_warm_up_and_steps(step, rate):
    assert learning_rate(STEPS, step) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("step", "rate"),
    # cos(45 degrees) = 0.7071068 after a quarter of the way from 4 to 12.
    [(0, 0.1), (4, 0.4), (6, 0.2 * 1.7071068), (8, 0.2), (12, 0.0), (13, 0.0)],
)
def test_warm_up_and_cosine(step, rate):
    assert learning_rate(COSINE, step) == pytest.approx(rate, rel=1e-6, abs=1e-9)


def test_without_warm_up():
    assert learning_rate(Train(learning_rate=0.3), 0) == 0.3


def test_a_run_that_is_all_warm_up_does_not_divide_by_zero():
    options = Train(learning_rate=0.3, schedule="cosine", steps=5, warmup_steps=5)
    assert learning_rate(options, 5) == pytest.approx(0.3)
