"""Where the time of the input pipeline goes: milliseconds of CPU a picture, stage by stage."""

import time

import tensorflow as tf

from ssd_tf.boxes import matching
from ssd_tf.data import augment, bad_records, colors, pipeline, records


def stage_times(
    config, data_dir, split, default_boxes, images=128, rounds=5, skipped=None
) -> dict[str, float]:
    """Stage -> milliseconds of CPU a picture, in the order of the pipeline; the median of several rounds, taken in turn.

    Each stage runs alone, on what the one before it made of `images` pictures, kept in memory. `rest` is what the whole
    pipeline takes besides: reading, batching, threads. skipped: as `pipeline.open_records` takes it.
    """
    info, stream = pipeline.open_records(config, data_dir, split, skipped=skipped)
    made = stream.take(images).cache()
    runs = {"": _emptied(made.repeat(), images)}
    for name, stage in _stages(config, default_boxes, len(info.classes)).items():
        runs[name] = _emptied(made.repeat().map(stage), images)
        made = made.map(stage).cache()
    times = _alone(runs, images, rounds)
    empty = times.pop("")
    times = {name: max(0.0, value - empty) for name, value in times.items()}
    times["decode"] += times.pop(
        "open"
    )  # of a JPEG its size is read there, but a PNG, BMP or GIF is decoded
    batches = pipeline.build_dataset(config, data_dir, split, default_boxes, skipped=skipped)
    whole = _steady(iter(batches), config.train.batch_size, images * rounds)
    return {**times, "rest": max(0.0, whole - sum(times.values()))}


def _stages(config, default_boxes, num_classes):
    """name -> function of what the stage before it returns; the first takes an element of the record stream."""
    options, output_hw = config.data.augment, config.model.input_hw

    def parse(position, serialized):
        example = bad_records.check(records.parse_example(serialized), num_classes)
        return tf.stack([tf.constant(config.train.seed, tf.int64), position]), example

    def open_picture(seed, example):
        return seed, *augment.open_picture(example["image"]), example

    def crop(seed, picture, picture_hw, example):
        return (
            seed,
            picture,
            *augment.sample_geometry(example, picture_hw, output_hw, options, seed),
        )

    def decode(seed, picture, placement, flips, example):
        return seed, augment.decode_part(picture, placement), placement, flips, example

    def resize(seed, part, placement, flips, example):
        return seed, augment.resize_part(part, placement), placement, flips, example

    def color(seed, image, placement, flips, example):
        return colors.distort_color(image, options, seed), placement, flips, example

    def finish(image, placement, flips, example):
        return augment.finish(image, placement, flips, output_hw), example

    def match(image, example):
        targets = matching.make_targets(
            example, default_boxes, config.boxes.variances, config.data.train_difficult
        )
        return image, targets

    return {
        "parse": parse,
        "open": open_picture,
        "zoom-out, crop, boxes": crop,
        "decode": decode,
        "resize": resize,
        "colour": color,
        "canvas, flip": finish,
        "match, encode": match,
    }


def _emptied(dataset, number):
    """An iterator each of whose elements costs `number` of the data set's, without handing those to Python."""
    options = pipeline.options()
    options.experimental_optimization.inject_prefetch = (
        False  # else the work is done before it is asked for
    )
    return iter(dataset.shard(number, number - 1).with_options(options))


def _alone(runs, images, rounds):
    """Median milliseconds a picture of iterators that work only when asked."""
    times = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            next(run)
            if turn:  # the first fills the caches
                times[name].append((time.process_time() - start) / images * 1e3)
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}


def _steady(batches, batch, images):
    """Milliseconds a picture of an iterator that works ahead: between two moments at which it is as far ahead."""
    for _ in range(8):
        next(batches)
    start = time.process_time()
    number = max(1, images // batch)
    for _ in range(number):
        next(batches)
    return (time.process_time() - start) / (number * batch) * 1e3
