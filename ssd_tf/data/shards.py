"""The files of a split: their records numbered, counted, and in the shuffled order of an endless stream."""

import tensorflow as tf

from ssd_tf.config import ConfigError

OPEN_SHARDS = 8  # read in turn, so that neighbours in a shard are not neighbours in the stream


def record_stream(shards, images, buffer, seed, start=0, leave_out=()) -> tf.data.Dataset:
    """Endless (position, serialized) from position `start` on; position = epoch * images + place in the epoch's order.

    Each epoch shuffles the shards and then a buffer of that many records, still encoded, by (seed, epoch) alone.
    images: records of an epoch; leave_out: pairs (file, number from 0) that are no part of it.
    """

    def one_epoch(epoch):
        # Seeds the graph of this function alone: the shuffle then depends on (seed, epoch) and on nothing global.
        tf.random.set_seed(seed + 1)
        order = tf.random.experimental.stateless_shuffle(tf.constant(shards), tf.stack([tf.constant(seed, tf.int64), epoch]))
        encoded = tf.data.Dataset.from_tensor_slices(order).interleave(
            lambda path: _without(path, leave_out) if leave_out else tf.data.TFRecordDataset(path),
            cycle_length=OPEN_SHARDS,
            num_parallel_calls=2,
            deterministic=True,
        )
        return encoded.shuffle(buffer, seed=epoch)

    first_epoch, seen = divmod(start, images)
    return tf.data.Dataset.range(first_epoch, 2**40).flat_map(one_epoch).enumerate(first_epoch * images).skip(seen)


def numbered_records(shards) -> tf.data.Dataset:
    """(file, number from 0, serialized) of every record, in file order, once."""
    return tf.data.Dataset.from_tensor_slices(shards).flat_map(_numbered)


def count_records(path) -> int:
    """The number of records of a TFRecord file, from their lengths alone; a last one that is cut off counts."""
    count, position = 0, 0
    with open(path, "rb") as file:
        while length := file.read(8):
            count += 1
            position += 8 + 4 + int.from_bytes(length, "little") + 4  # length, its checksum, the record, its checksum
            file.seek(position)
    return count


def own_shards(shards, num_workers, worker) -> list[str]:
    """Every num_workers-th shard. Raises ConfigError where there is none for some worker."""
    if len(shards) < num_workers:
        raise ConfigError(f"data.shard=file wants a shard a worker, found {len(shards)} for {num_workers}; convert with --shards")
    return shards[worker::num_workers]


def _numbered(path):
    dataset = tf.data.TFRecordDataset(path).enumerate()
    return dataset.map(lambda number, serialized: (path, number, serialized))


def _without(path, leave_out):
    files, numbers = tf.constant([file for file, _ in leave_out]), tf.constant([number for _, number in leave_out], tf.int64)
    kept = _numbered(path).filter(lambda file, number, _: ~tf.reduce_any((files == file) & (numbers == number)))
    return kept.map(lambda *parts: parts[2])
