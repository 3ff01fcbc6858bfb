"""Measures how long the steps and evaluations of a run will take, without starting the run."""

import os
import pathlib
import statistics
import time
import typing

import tensorflow as tf

from ssd_tf.config import Config
from ssd_tf.data import bad_records, dataset_json
from ssd_tf.training import distribution, kept_classes
from ssd_tf.training.run_evaluation import make_evaluate
from ssd_tf.training.state import make_train_state
from ssd_tf.training.step import make_run_steps
from ssd_tf.training.train import dataset_maker

_WARMUP_STEPS = 4  # they use batches that were made while the first step compiled
_TIMED_STEPS = 9
_FEW_IMAGES = 8  # of the two short evaluations, whose difference is the time per image
_MORE_IMAGES = 32


class Pace(typing.NamedTuple):
    """The times of a run, in seconds.

    seconds_per_step: the median of some steps, waiting for input included. startup_seconds: until
    the first step and the first evaluation have been compiled. seconds_per_evaluation: of the val
    split; 0 without one.
    """

    seconds_per_step: float
    startup_seconds: float
    seconds_per_evaluation: float


def measure_pace(config: Config, data: str | os.PathLike[str]) -> Pace:
    """Measure the Pace of a run by a few of its steps and of its held-out images.

    config: of the run. data: a folder of TFRecords with its dataset.json. Network, batches and
    updates are those of the run, but for the initial weights, which are random: they do not change
    the time. Writes no files. Raises what `train` raises for settings and data that cannot be used.
    """
    start = time.perf_counter()
    dataset_info = dataset_json.read_dataset(pathlib.Path(data))
    strategy = distribution.make_strategy(config.train.strategy)
    names = dataset_info.names
    rows = kept_classes.find_trained_rows(config, names, names)
    state = make_train_state(config, names, strategy, new_layers=(), trained_rows=rows)
    make_dataset = dataset_maker(config, data, state.network)
    train = config.train
    with bad_records.explain_record_errors(data, config.data.train_split):
        batches = distribution.distribute(
            strategy, make_dataset, 0, train.batch_size, train.accumulate
        )
        run_steps = make_run_steps(config, state)
        _time_step(run_steps, batches)
        startup_seconds = time.perf_counter() - start
        times = [_time_step(run_steps, batches) for _ in range(_WARMUP_STEPS + _TIMED_STEPS)]
    compilation, evaluation = _time_evaluation(config, dataset_info, state.network)
    return Pace(
        seconds_per_step=statistics.median(times[_WARMUP_STEPS:]),
        startup_seconds=startup_seconds + compilation,
        seconds_per_evaluation=evaluation,
    )


def _time_step(run_steps, batches):
    start = time.perf_counter()
    run_steps(batches, tf.constant(1)).numpy()
    return time.perf_counter() - start


def _time_evaluation(config, dataset_info, network):
    """(seconds of its compilation, seconds of an evaluation of all held-out images)."""
    start = time.perf_counter()
    evaluate = make_evaluate(config, dataset_info, network)
    if evaluate is None:
        return 0.0, 0.0
    num_images = dataset_info.splits[config.data.val_split]["images"]
    evaluate(_FEW_IMAGES)
    compilation = time.perf_counter() - start
    times = {}
    for count in (min(_FEW_IMAGES, num_images), min(_MORE_IMAGES, num_images)):
        start = time.perf_counter()
        evaluate(count)
        times[count] = time.perf_counter() - start
    return max(compilation - min(times.values()), 0.0), extrapolate(times, num_images)


def extrapolate(times, count) -> float:
    """The time of `count` images from {number of images: seconds}, on the line through the ends."""
    few = min(times)
    more = max(times)
    if few == more:
        return times[more]
    per_image = max(times[more] - times[few], 0) / (more - few)
    return times[more] + per_image * (count - more)
