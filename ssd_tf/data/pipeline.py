"""TFRecords -> batches of images and targets, for training; -> pictures and ground truth, for evaluation.

Randomness is stateless, from the seed and the position in the endless stream of records: the same seed gives the same batches
whatever the parallelism, and a run that goes on from step n skips what was seen without decoding it.
"""

import os

import tensorflow as tf

from ssd_tf.boxes import matching
from ssd_tf.config import Config, ConfigError
from ssd_tf.data import augment, bad_records, dataset_json, records, shards
from ssd_tf.data.images import decode_image


def build_dataset(
    config: Config,
    data_dir,
    split,
    default_boxes,
    start_step=0,
    num_workers=1,
    worker=0,
    parallelism=None,
    skipped=None,
) -> tf.data.Dataset:
    """Endless batches (images [b, H, W, 3] float32 in 0..255, Targets {offsets [b, A, 4], labels [b, A]}) of a split.

    b is the global batch over num_workers. Each epoch shuffles the shards and then a bounded buffer of encoded records; the
    stream goes on over the epochs' ends, so no batch is short and no record is left out. data.shard: `record`, every worker
    reads all and keeps slice `worker` of each global batch, so that the batches do not depend on their number; `file`, each
    reads every num_workers-th shard, an endless stream of its own. parallelism: pictures prepared at once, by default as many as
    there are cores; it changes no number. skipped: as `open_records` takes it. Raises ValueError or FileNotFoundError for a data
    set that is absent, unfinished or empty; run its iterator under `bad_records.explain_record_errors`.
    """
    info, stream = open_records(config, data_dir, split, start_step, num_workers, worker, skipped)
    prepare, local = (
        make_prepare(config, default_boxes, len(info.classes)),
        config.train.batch_size // num_workers,
    )
    batches = stream.map(prepare, parallelism or usable_cores(), deterministic=True).batch(
        local, drop_remainder=True
    )
    return batches.prefetch(2).with_options(options())


def open_records(config, data_dir, split, start_step=0, num_workers=1, worker=0, skipped=None):
    """DatasetInfo and the endless stream (position, serialized) of the records that `build_dataset` makes batches of.

    skipped: the records to leave out, as `bad_records.scan_bad_records` found them; by default it is asked, which takes a pass over
    the split where data.on_bad_record is `skip`.
    """
    batch = config.train.batch_size
    if batch % num_workers:
        raise ConfigError(
            f"train.batch_size {batch} must be a multiple of the {num_workers} workers"
        )
    if not 0 <= worker < num_workers:
        raise ConfigError(
            f"worker must lie in [0, {num_workers - 1}], as there are {num_workers}, found {worker}"
        )
    info = dataset_json.read_dataset(data_dir)
    usable = shards.count_split(info, split)
    skipped = (
        bad_records.scan_bad_records(info, split, config.data.on_bad_record)
        if skipped is None
        else skipped
    )
    for file, _ in skipped:
        usable[file] -= 1
    by_file, local = config.data.shard == "file", batch // num_workers
    paths = shards.own_shards(usable, num_workers, worker) if by_file else list(usable)
    start, images = start_step * (local if by_file else batch), sum(usable[path] for path in paths)
    stream = shards.record_stream(
        paths, images, config.data.shuffle_buffer, config.train.seed, start, skipped
    )
    if num_workers > 1 and not by_file:
        stream = stream.filter(lambda position, _: position % batch // local == worker)
    return info, stream


def read_examples(data_dir, split, skipped=()) -> tf.data.Dataset:
    """The Examples of a split in file order, once, with `image` decoded to uint8 [H, W, 3], but for those skipped.

    skipped: as `bad_records.scan_bad_records` found them. Raises ValueError or FileNotFoundError as `build_dataset` does; run its
    iterator under `bad_records.explain_record_errors`.
    """
    info = dataset_json.read_dataset(data_dir)
    encoded = shards.in_file_order(list(shards.count_split(info, split)), skipped)

    @tf.autograph.experimental.do_not_convert
    def prepare(serialized):
        example = bad_records.check(records.parse_example(serialized), len(info.classes))
        return {**example, "image": decode_image(example["image"])}

    return encoded.map(prepare, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def make_prepare(config, default_boxes, num_classes, with_example=False):
    """The function (position, serialized) -> image [H, W, 3], Targets and, with_example, the augmented Example."""
    output_hw, number = config.model.input_hw, len(default_boxes)

    def prepare(position, serialized):
        example = bad_records.check(records.parse_example(serialized), num_classes)
        seed = tf.stack([tf.constant(config.train.seed, tf.int64), position])
        image, example = augment.augment(example, output_hw, config.data.augment, seed)
        targets = matching.make_targets(
            example, default_boxes, config.boxes.variances, config.data.train_difficult
        )
        shapes = {"offsets": [number, 4], "labels": [number]}
        targets = {key: tf.ensure_shape(targets[key], shape) for key, shape in shapes.items()}
        return (image, targets, example) if with_example else (image, targets)

    return tf.autograph.experimental.do_not_convert(prepare)


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def options() -> tf.data.Options:
    """Order kept; one thread an operation, as the pictures of a batch keep every core busy."""
    chosen = tf.data.Options()
    chosen.deterministic = True
    chosen.threading.max_intra_op_parallelism = 1
    # Its book-keeping takes a tenth of the time, and its buffers grow; all it could find out here is the number of cores.
    chosen.autotune.enabled = False
    return chosen
