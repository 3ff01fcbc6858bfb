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
        order = tf.random.experimental.stateless_shuffle(
            tf.constant(shards), tf.stack([tf.constant(seed, tf.int64), epoch])
        )
        encoded = tf.data.Dataset.from_tensor_slices(order).interleave(
            lambda path: _without(path, leave_out) if leave_out else tf.data.TFRecordDataset(path),
            cycle_length=OPEN_SHARDS,
            num_parallel_calls=2,
            deterministic=True,
        )
        return encoded.shuffle(buffer, seed=epoch)

    first_epoch, seen = divmod(start, images)
    return (
        tf.data.Dataset.range(first_epoch, 2**40)
        .flat_map(one_epoch)
        .enumerate(first_epoch * images)
        .skip(seen)
    )


def numbered_records(shards) -> tf.data.Dataset:
    """(file, number from 0, serialized) of every record, in file order, once."""
    return tf.data.Dataset.from_tensor_slices(shards).flat_map(_numbered)


def count_records(path) -> int:
    """The number of records of a TFRecord file, from their lengths alone; a last one that is cut off counts."""
    count, position = 0, 0
    with open(path, "rb") as file:
        while length := file.read(8):
            count += 1
            position += (
                8 + 4 + int.from_bytes(length, "little") + 4
            )  # length, its checksum, the record, its checksum
            file.seek(position)
    return count


def count_split(info, split) -> dict[str, int]:
    """{path: records} of a split's shards. Raises ValueError where they are not as many in all as dataset.json says."""
    counts = {path: count_records(path) for path in info.shards(split)}
    wanted, found = info.splits[split]["images"], sum(counts.values())
    if found != wanted:
        raise ValueError(
            f"the dataset.json of {info.folder} says that the split {split!r} has {wanted} images, "
            f"its shards hold {found} records; convert the split again"
        )
    return counts


def own_shards(usable, num_workers, worker) -> list[str]:
    """Every num_workers-th shard of those in {path: usable records}. Raises ConfigError where some worker would have none."""
    paths = list(usable)
    if len(paths) < num_workers:
        raise ConfigError(
            f"data.shard=file wants a shard a worker, found {len(paths)} for {num_workers}; convert with --shards"
        )
    for other in range(num_workers):
        if not sum(usable[path] for path in paths[other::num_workers]):
            raise ConfigError(
                f"data.shard=file: no record that can be used in the shards of worker {other} of {num_workers} (the first is "
                f"{paths[other]}); set data.shard=record, or convert the split again"
            )
    return paths[worker::num_workers]


def in_file_order(shards, leave_out=()) -> tf.data.Dataset:
    """The serialized records, once, but for the pairs (file, number from 0) of leave_out."""
    if not leave_out:
        return tf.data.TFRecordDataset(shards)
    return tf.data.Dataset.from_tensor_slices(shards).flat_map(
        lambda path: _without(path, leave_out)
    )


def _numbered(path):
    dataset = tf.data.TFRecordDataset(path).enumerate()
    return dataset.map(lambda number, serialized: (path, number, serialized))


def _without(path, leave_out):
    files, numbers = (
        tf.constant([file for file, _ in leave_out]),
        tf.constant([number for _, number in leave_out], tf.int64),
    )
    kept = _numbered(path).filter(
        lambda file, number, _: ~tf.reduce_any((files == file) & (numbers == number))
    )
    return kept.map(lambda *parts: parts[2])
