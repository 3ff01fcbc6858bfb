"""Where the time of the input pipeline goes: milliseconds of CPU per image, stage by stage."""

import statistics
import time

from ssd_tf.data import pipeline

IMAGES = 128  # that each stage runs on, kept in memory
ROUNDS = 5  # of which the median is taken


def stage_times(config, data_dir, split, network, skipped=None) -> dict[str, float]:
    """Return {stage: milliseconds of CPU per image}, in the order of the pipeline.

    Each stage runs alone, on what the one before it made of IMAGES images; the stages take turns.
    `rest` is what the whole pipeline takes in addition: reading, batching, threads.
    network: an SSD. skipped: see `pipeline.open_records`.
    """
    dataset_info, stream = pipeline.open_records(config, data_dir, split, skipped=skipped)
    made = stream.take(IMAGES).cache()
    runs = {"": _discard_elements(made.repeat(), IMAGES)}
    stages = pipeline.make_stages(
        config, network.default_boxes, len(dataset_info.classes), network.level_of_box
    )
    for name, stage in stages.items():
        runs[name] = _discard_elements(made.repeat().map(stage), IMAGES)
        made = made.map(stage).cache()
    times = time_on_demand(runs, IMAGES, ROUNDS)
    empty = times.pop("")
    times = {name: max(0.0, value - empty) for name, value in times.items()}
    # Opening reads the size of a JPEG, but decodes a PNG, BMP or GIF.
    times["decode"] += times.pop("open")
    batches = pipeline.build_dataset(
        config,
        data_dir,
        split,
        network.default_boxes,
        skipped=skipped,
        level_of_box=network.level_of_box,
    )
    total = time_batches(iter(batches), config.train.batch_size, IMAGES * ROUNDS)
    times["rest"] = max(0.0, total - sum(times.values()))
    return times


def time_on_demand(runs, images, rounds) -> dict[str, float]:
    """Median milliseconds of CPU per image of {name: iterator} that work only when asked.

    Each element of an iterator is worth `images` images. The iterators take turns.
    """
    times = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            next(run)
            if turn:  # the first fills the caches
                times[name].append((time.process_time() - start) / images * 1e3)
    return {name: statistics.median_high(values) for name, values in times.items()}


def time_batches(batches, batch_size, images) -> float:
    """Milliseconds of CPU per image of an iterator over batches that works ahead.

    Measured between two moments at which it is equally far ahead.
    """
    for _ in range(8):
        next(batches)
    num_batches = max(1, images // batch_size)
    start = time.process_time()
    for _ in range(num_batches):
        next(batches)
    return (time.process_time() - start) / (num_batches * batch_size) * 1e3


def _discard_elements(dataset, count):
    """An iterator each of whose elements costs `count` of the dataset's.

    Python receives only the last of them.
    """
    options = pipeline.dataset_options()
    # Otherwise the work is done before it is asked for.
    options.experimental_optimization.inject_prefetch = False
    return iter(dataset.shard(count, count - 1).with_options(options))
