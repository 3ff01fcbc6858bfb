"""TFRecords -> batches of images and targets for training, or Examples for evaluation.

Randomness is stateless, derived from the seed and the position in the endless stream of records:
the same seed gives the same batches at any parallelism, and a run that resumes from step n skips
the records before it without decoding them.
"""

import functools
import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ssd_tf import processor
from ssd_tf.boxes import atss, matching
from ssd_tf.config import Config
from ssd_tf.data import (
    augment,
    bad_records,
    dataset_json,
    records,
    repeats,
    shards,
)
from ssd_tf.errors import ConfigError


class StreamSlice(NamedTuple):
    """The part of the endless stream that one worker reads, from a step on."""

    start_step: int = 0
    num_workers: int = 1
    worker: int = 0  # index of this one


WHOLE_STREAM = StreamSlice()


def build_dataset(
    config: Config,
    data_dir: str | os.PathLike[str],
    split: str,
    default_boxes: np.ndarray,
    stream_slice: StreamSlice = WHOLE_STREAM,
    skipped: list[shards.RecordId] | None = None,
    level_of_box: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Endless batches (images, Targets) of a split.

    images [B, H, W, 3] float32 in 0..255; Targets: offsets [B, A, 4], labels [B, A]. B is
    train.batch_size / num_workers. Each epoch shuffles the shards and then a bounded buffer of
    encoded records; batches cross the ends of epochs, so none is short and no record is left out.
    data.shard: with `record` every worker reads everything and keeps its slice of each global
    batch, so the batches do not depend on num_workers; with `file` each worker reads every
    num_workers-th shard as an endless stream of its own.

    stream_slice: default all, from step 0; skipped: see `open_records`. level_of_box:
    `SSD.level_of_box`, which ATSS needs.
    Raises ValueError or FileNotFoundError if the data set is missing, incomplete or empty. Run its
    iterator inside `bad_records.explain_record_errors`.
    """
    dataset_info, stream = open_records(config, data_dir, split, stream_slice, skipped)
    prepare = make_prepare(config, default_boxes, len(dataset_info.classes), level_of_box)
    local_batch = config.train.batch_size // stream_slice.num_workers
    batches = stream.map(prepare, processor.usable_cores(), deterministic=True).batch(
        local_batch, drop_remainder=True
    )
    return batches.prefetch(2).with_options(dataset_options())


def open_records(config, data_dir, split, stream_slice=WHOLE_STREAM, skipped=None):
    """Return DatasetInfo and the endless stream (position, serialized) behind `build_dataset`.

    skipped: RecordIds to leave out, as `list_skipped` finds them.
    """
    start_step, num_workers, worker = stream_slice
    batch_size = config.train.batch_size
    _check_workers(batch_size, num_workers, worker)
    dataset_info = dataset_json.read_dataset(data_dir)
    usable = shards.count_split(dataset_info, split)
    skipped = list_skipped(config, dataset_info, split, skipped)
    for record in skipped:
        usable[record.file] -= 1
    local_batch = batch_size // num_workers
    by_file = config.data.shard == "file"
    paths = shards.shards_of_worker(usable, num_workers, worker) if by_file else list(usable)
    repeated = _read_repeats(config.data, paths, list(usable), skipped)
    stream = shards.record_stream(
        paths,
        num_images=repeated.num_images if repeated else sum(usable[path] for path in paths),
        buffer=config.data.shuffle_buffer,
        seed=config.train.seed,
        start=start_step * (local_batch if by_file else batch_size),
        skipped=skipped,
        repeats=repeated,
    )
    if num_workers > 1 and not by_file:
        stream = stream.filter(lambda position, _: position % batch_size // local_batch == worker)
    return dataset_info, stream


def _read_repeats(data, paths, all_paths, skipped):
    """The Repeats of the paths that data.repeat_threshold asks for, or None."""
    if data.repeat_threshold is None:
        return None
    factors = repeats.read_factors(all_paths, data.repeat_threshold, data.train_difficult, skipped)
    return repeats.Repeats({path: factors[path] for path in paths})


def list_skipped(config, dataset_info, split, bad=None) -> list[shards.RecordId]:
    """The records of a split that training leaves out: bad ones, and what data.fraction excludes.

    bad: from `bad_records.scan_bad_records`, which is called if they are not given (with
    data.on_bad_record=skip it decodes the whole split).
    """
    if bad is None:
        bad = bad_records.scan_bad_records(dataset_info, split, config.data.on_bad_record)
    if split != config.data.train_split or config.data.fraction == 1:
        return bad
    counts = shards.count_split(dataset_info, split)
    return [*bad, *shards.records_outside(counts, config.data.fraction, bad)]


def name_batch(config: Config, data_dir, split, step, num_workers=1) -> list[str]:
    """The source_ids of the images of a step's global batch; the first step is 1.

    They are in the order of the workers. Raises as `build_dataset` does.
    """
    names = []
    for worker in range(num_workers):
        stream_slice = StreamSlice(step - 1, num_workers, worker)
        _, stream = open_records(config, data_dir, split, stream_slice)
        names += [
            records.parse_example(serialized)["source_id"].numpy().decode()
            for _, serialized in stream.take(config.train.batch_size // num_workers)
        ]
    return names


def make_prepare(config, default_boxes, num_classes, level_of_box=None, with_example=False):
    """Make the function (position, serialized) -> image [H, W, 3], Targets.

    with_example: it also returns the augmented Example.
    """
    made = make_stages(config, default_boxes, num_classes, level_of_box)
    stages = list(made.values())

    def prepare(*value):
        for stage in stages:
            value = stage(*value)
        return value if with_example else value[:2]

    return tf.autograph.experimental.do_not_convert(prepare)


def make_stages(config, default_boxes, num_classes, level_of_box=None) -> dict:
    """The steps of `make_prepare`: {name: function of what the step before it returned}.

    The first takes (position, serialized), the last returns (image, Targets, Example).
    """
    num_boxes = len(default_boxes)
    assign = make_assign(config, default_boxes, level_of_box)

    def parse(position, serialized):
        example = bad_records.check_example(records.parse_example(serialized), num_classes)
        return tf.stack([tf.constant(config.train.seed, tf.int64), position]), example

    def match(image, example):
        targets = matching.make_targets(
            example, default_boxes, config.boxes.variances, config.data.train_difficult, assign
        )
        targets = {
            "offsets": tf.ensure_shape(targets["offsets"], [num_boxes, 4]),
            "labels": tf.ensure_shape(targets["labels"], [num_boxes]),
        }
        return image, targets, example

    augmenting = augment.make_stages(config.model.input_hw, config.data.augment)
    stages = {"parse": parse, **augmenting, "match, encode": match}
    return {name: tf.autograph.experimental.do_not_convert(each) for name, each in stages.items()}


def make_assign(config, default_boxes, level_of_box):
    """The function objects [N, 4] -> object of each default box [A] that boxes.assigner names."""
    if config.assigner == "multibox":
        return functools.partial(matching.match, default_boxes=tf.constant(default_boxes))
    if level_of_box is None:
        raise ValueError("boxes.assigner=atss needs level_of_box, as SSD.level_of_box gives it")
    return atss.make_match(default_boxes, level_of_box, config.model.input_hw)


def dataset_options() -> tf.data.Options:
    """Keep the order; one thread per operation, as the images of a batch keep every core busy."""
    options = tf.data.Options()
    options.deterministic = True
    options.threading.max_intra_op_parallelism = 1
    # Autotuning takes a tenth of the time and lets buffers grow; all it could find out here is the
    # number of cores.
    options.autotune.enabled = False
    return options


def _check_workers(batch_size, num_workers, worker):
    if batch_size % num_workers:
        raise ConfigError(
            f"train.batch_size {batch_size} must be a multiple of the {num_workers} workers"
        )
    if not 0 <= worker < num_workers:
        raise ConfigError(
            f"expected worker in [0, {num_workers - 1}] for {num_workers} workers, got {worker}"
        )
