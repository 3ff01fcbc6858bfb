"""TFRecords -> batches of images and targets, for training; -> pictures and ground truth, for evaluation.

Randomness is stateless, from (seed, position in the stream): the same seed gives the same batches whatever the parallelism,
and a run that goes on from step n skips what was seen without decoding it.
"""

import tensorflow as tf

from ssd_tf.boxes import matching
from ssd_tf.config import Augment, Config
from ssd_tf.data import augment, dataset_json, records


def build_dataset(config: Config, data_dir, split, default_boxes, start_step=0) -> tf.data.Dataset:
    """Endless batches (images [B, H, W, 3] float32 in 0..255, Targets {offsets [B, A, 4], labels [B, A]}) of a split.

    B is the global batch. Each epoch shuffles the shards and then a bounded buffer of encoded records; the stream goes on over
    the epochs' ends, so no batch is short and no record is left out. Raises ValueError or FileNotFoundError for a data set
    that is absent, unfinished or empty.
    """
    info = dataset_json.read_dataset(data_dir)
    shards, images = info.shards(split), info.splits[split]["images"]
    first_epoch, seen = divmod(start_step * config.train.batch_size, images)
    stream = _shuffled_records(shards, config.data.shuffle_buffer, config.train.seed, first_epoch)
    stream = stream.enumerate(first_epoch * images).skip(seen)

    def prepare(position, serialized):
        example = records.parse_example(serialized)
        seed = tf.stack([tf.constant(config.train.seed, tf.int64), position])
        image, example = _augmented(example, config, seed)
        targets = matching.make_targets(example, default_boxes, config.boxes.variances, config.data.train_difficult)
        return image, targets

    batches = stream.map(prepare, tf.data.AUTOTUNE).batch(config.train.batch_size, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def read_examples(data_dir, split) -> tf.data.Dataset:
    """The Examples of a split in file order, once, with `image` decoded to uint8 [H, W, 3]."""
    shards = dataset_json.read_dataset(data_dir).shards(split)

    def prepare(serialized):
        example = records.parse_example(serialized)
        return {**example, "image": records.decode_image(example["image"])}

    return tf.data.TFRecordDataset(shards).map(prepare, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _augmented(example, config, seed):
    if config.data.augment == Augment():
        return augment.plain(example, config.model.input_hw)
    return augment.augment(example, config.model.input_hw, config.data.augment, seed)


def _shuffled_records(shards, buffer, seed, first_epoch):
    def one_epoch(epoch):
        # Seeds the graph of this function alone: the shuffle then depends on (seed, epoch) and on nothing global.
        tf.random.set_seed(seed + 1)
        order = tf.random.experimental.stateless_shuffle(tf.constant(shards), tf.stack([tf.constant(seed, tf.int64), epoch]))
        encoded = tf.data.Dataset.from_tensor_slices(order).interleave(
            tf.data.TFRecordDataset, cycle_length=8, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return encoded.shuffle(buffer, seed=epoch)

    return tf.data.Dataset.range(first_epoch, 2**40).flat_map(one_epoch)
