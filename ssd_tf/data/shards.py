"""The TFRecord files of a split: indexed, counted, and read as an endless shuffled stream."""

import dataclasses
import functools
import hashlib
import os

import numpy as np
import tensorflow as tf

from ssd_tf.errors import ConfigError

OPEN_SHARDS = 8  # read in turn, so that neighbours in a shard are not neighbours in the stream


@dataclasses.dataclass(frozen=True)
class RecordId:
    """Identifies a record: path of its file, index in the file from 0."""

    file: str
    index: int


def record_stream(
    paths, num_images, buffer, seed, start=0, skipped=(), repeats=None
) -> tf.data.Dataset:
    """Endless (position, serialized) from position `start` on.

    position = epoch * num_images + index in the epoch's order. Each epoch shuffles the shards, then
    a buffer of that many encoded records; both depend on (seed, epoch) only.
    num_images: records per epoch, without those `skipped` (RecordIds). repeats: the Repeats of
    the paths, which leaves out what is skipped and has a num_images of its own.
    """
    read_file = _make_read(paths, skipped)

    def one_epoch(epoch):
        # Seeds the graph of this function only: the shuffle then depends on (seed, epoch) and on no
        # global state.
        tf.random.set_seed(seed + 1)
        order = tf.random.experimental.stateless_shuffle(
            tf.constant(paths), tf.stack([tf.constant(seed, tf.int64), epoch])
        )
        counts = repeats.draw(seed, epoch) if repeats else None

        def read(path):
            if repeats:
                return _read_repeated(path, repeats.select(counts, path))
            return read_file(path)

        encoded = tf.data.Dataset.from_tensor_slices(order).interleave(
            read,
            cycle_length=OPEN_SHARDS,
            num_parallel_calls=2,
            deterministic=True,
        )
        return encoded.shuffle(buffer, seed=epoch)

    first_epoch, seen = divmod(start, num_images)
    return (
        tf.data.Dataset.range(first_epoch, 2**40)
        .flat_map(one_epoch)
        .enumerate(first_epoch * num_images)
        .skip(seen)
    )


def indexed_records(paths, skipped=()) -> tf.data.Dataset:
    """(file, index, serialized) of every record but the `skipped` (RecordIds), in file order."""
    dataset = tf.data.Dataset.from_tensor_slices(paths).flat_map(_read_indexed)
    if not skipped:
        return dataset
    files = tf.constant([record.file for record in skipped])
    indices = tf.constant([record.index for record in skipped], tf.int64)
    return dataset.filter(
        lambda file, index, _: ~tf.reduce_any((files == file) & (indices == index))
    )


def records_in_file_order(paths, skipped=()) -> tf.data.Dataset:
    """The serialized records, once, without those `skipped` (RecordIds)."""
    if not skipped:
        return tf.data.TFRecordDataset(paths)
    return tf.data.Dataset.from_tensor_slices(paths).flat_map(_make_read(paths, skipped))


def count_records(path) -> int:
    """Count the records of a TFRecord file by their lengths only; a truncated last one counts."""
    return len(_read_checksums(path))


def fingerprint(dataset_info, split) -> str:
    """A hash of a split's records and classes, from the checksum that each record ends with.

    Two data sets with the same fingerprint give the same training. Neither the folder nor the
    names of the shards matter. Raises ValueError or FileNotFoundError like `count_split`.
    """
    digest = hashlib.sha256("\n".join(dataset_info.names).encode())
    for path in dataset_info.shards(split):
        for checksum in _read_checksums(path):
            digest.update(checksum)
        digest.update(b"end of shard")  # shards are shuffled apart
    return digest.hexdigest()


def _read_checksums(path):
    """The checksum of each record of a TFRecord file; the records themselves are passed over."""
    status = os.stat(path)
    return _read_checksums_once(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _read_checksums_once(path, _size, _time):
    """A pass over a large file on a network disk takes long, and each start wants several."""
    checksums = []
    with open(path, "rb") as file:
        while length := file.read(8):
            # A length, its checksum, the record, its checksum.
            file.seek(4 + int.from_bytes(length, "little"), os.SEEK_CUR)
            checksums.append(file.read(4))
    return checksums


def count_split(dataset_info, split) -> dict[str, int]:
    """Count the records of each shard of a split: {path: count}.

    Raises ValueError if their sum differs from dataset.json.
    """
    counts = {path: count_records(path) for path in dataset_info.shards(split)}
    expected = dataset_info.splits[split]["images"]
    total = sum(counts.values())
    if total != expected:
        raise ValueError(
            f"the dataset.json of {dataset_info.folder} says that the split {split!r} has "
            f"{expected} images, its shards hold {total} records; convert the split again"
        )
    return counts


def records_outside(counts, fraction, skipped=()) -> list[RecordId]:
    """The records that a fraction of a split leaves out, at random but always the same.

    counts: {path: number of records}. The fraction is that of the records that are not `skipped`
    (RecordIds); at least one is kept. What a smaller fraction keeps, a larger one keeps too.
    """
    skipped = set(skipped)
    records = [RecordId(path, index) for path, count in counts.items() for index in range(count)]
    usable = [record for record in records if record not in skipped]
    # Unlike a Generator's, its numbers are the same in all versions of NumPy.
    order = np.random.RandomState(0).permutation(len(usable))
    num_kept = max(round(fraction * len(usable)), 1)
    return [usable[index] for index in order[num_kept:]]


def shards_of_worker(usable, num_workers, worker) -> list[str]:
    """Every num_workers-th shard of {path: number of usable records}.

    Raises ConfigError if any worker would have no record.
    """
    paths = list(usable)
    if len(paths) < num_workers:
        raise ConfigError(
            f"data.shard=file: expected at least one shard per worker, got {len(paths)} for "
            f"{num_workers} workers; set data.shard=record, or convert with --shards"
        )
    for other in range(num_workers):
        others = paths[other::num_workers]
        if not sum(usable[path] for path in others):
            raise ConfigError(
                f"data.shard=file: no usable record in the shards of worker {other} of "
                f"{num_workers} (the first is {others[0]}); set data.shard=record, or convert the "
                "split again"
            )
    return paths[worker::num_workers]


def _read_indexed(path):
    dataset = tf.data.TFRecordDataset(path).enumerate()
    return dataset.map(lambda index, serialized: (path, index, serialized))


def _read_repeated(path, counts):
    """The records of a file, each as many times as counts says, which may be longer."""
    return (
        tf.data.TFRecordDataset(path)
        .enumerate()
        .map(lambda index, serialized: tf.repeat([serialized], counts[index]))
        .unbatch()
    )


def _make_read(paths, skipped):
    """A function: the path of one of these files -> its records without those `skipped`."""
    if not skipped:
        return lambda path: tf.data.TFRecordDataset(path)
    starts = np.cumsum([0, *map(count_records, paths)])
    start_of = dict(zip(paths, starts, strict=False))
    kept = np.ones(starts[-1], bool)
    for record in skipped:
        if record.file in start_of:
            kept[start_of[record.file] + record.index] = False
    is_kept = tf.constant(kept)

    def read(path):
        start = tf.constant(starts)[tf.argmax(tf.constant(paths) == path)]
        records = tf.data.TFRecordDataset(path).enumerate()
        left = records.filter(lambda index, _: is_kept[start + index])
        return left.map(lambda _index, serialized: serialized)

    return read
