import pytest

from ssd_tf.config import Train
from ssd_tf.training.optimizer import (
    cosine_decay,
    full_learning_rate,
    make_schedule,
    step_decay,
)


@pytest.mark.parametrize(
    ("step", "fraction"), [(0, 1.0), (9, 1.0), (10, 0.1), (19, 0.1), (20, 0.01), (1000, 0.01)]
)
def test_step_decay(step, fraction):
    assert float(step_decay(step, (10, 20))) == pytest.approx(fraction)


def test_without_decay_steps_the_rate_is_constant():
    assert float(step_decay(7, ())) == 1.0


@pytest.mark.parametrize(
    ("step", "fraction"),
    # cos(45 degrees) = 0.7071068 after a quarter of the steps.
    [(0, 1.0), (2, 0.5 * 1.7071068), (4, 0.5), (8, 0.0)],
)
def test_cosine_decay(step, fraction):
    assert float(cosine_decay(step / 8)) == pytest.approx(fraction, rel=1e-6, abs=1e-7)


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
        steps=30,
    )
    assert float(make_schedule(train)(step)) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("step", "rate"),
    # cos(45 degrees) = 0.7071068 after a quarter of the way from 4 to 12.
    [(0, 0.1), (4, 0.4), (6, 0.2 * 1.7071068), (8, 0.2), (12, 0.0), (13, 0.0)],
)
def test_warmup_and_cosine(step, rate):
    train = Train(learning_rate=0.4, warmup_steps=4, warmup_from=0.25, schedule="cosine", steps=12)
    assert float(make_schedule(train)(step)) == pytest.approx(rate, rel=1e-6, abs=1e-8)


def test_without_warmup():
    assert float(make_schedule(Train(learning_rate=0.3))(0)) == pytest.approx(0.3)


def test_the_rate_is_scaled_from_the_base_batch():
    train = Train(learning_rate=0.1, base_batch=8, batch_size=32)
    assert full_learning_rate(train) == pytest.approx(0.4)
    assert float(make_schedule(train)(100)) == pytest.approx(0.4)
