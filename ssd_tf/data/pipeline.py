"""TFRecords -> batches of images and targets, for training; -> pictures and ground truth, for evaluation.

Randomness is stateless, from the seed and the position in the endless stream, which is epoch * images + place in the epoch's
order: the same seed gives the same batches whatever the parallelism, and a run that goes on from step n skips what was seen
without decoding it.
"""

import tensorflow as tf

from ssd_tf.boxes import matching
from ssd_tf.config import Config, ConfigError
from ssd_tf.data import augment, bad_records, dataset_json, records

OPEN_SHARDS = 8  # read in turn, so that neighbours in a shard are not neighbours in the stream


def build_dataset(
    config: Config, data_dir, split, default_boxes, start_step=0, num_workers=1, worker=0, parallelism=tf.data.AUTOTUNE
) -> tf.data.Dataset:
    """Endless batches (images [b, H, W, 3] float32 in 0..255, Targets {offsets [b, A, 4], labels [b, A]}) of a split.

    b is the global batch over num_workers. Each epoch shuffles the shards and then a bounded buffer of encoded records; the
    stream goes on over the epochs' ends, so no batch is short and no record is left out. data.shard: `record`, every worker
    reads all and keeps slice `worker` of each global batch, so that the batches do not depend on their number; `file`, each
    reads every num_workers-th shard, an endless stream of its own. A record that is skipped (data.on_bad_record) leaves a black
    picture of ignored default boxes, so that no other record moves. Raises ValueError or FileNotFoundError for a data set that
    is absent, unfinished or empty; its iterator raises what `bad_records.named_errors` names.
    """
    info = dataset_json.read_dataset(data_dir)
    shards, images = info.shards(split), info.splits[split]["images"]
    if config.train.batch_size % num_workers:
        raise ConfigError(f"train.batch_size {config.train.batch_size} must be a multiple of the {num_workers} workers")
    local, step_size = config.train.batch_size // num_workers, config.train.batch_size
    if config.data.shard == "file":
        shards = _own_shards(shards, num_workers, worker)
        images, step_size = sum(map(count_records, shards)), local
    stream = record_stream(shards, images, config.data.shuffle_buffer, config.train.seed, start_step * step_size)
    if step_size > local:
        stream = stream.filter(lambda position, _: position % step_size // local == worker)
    prepare, nothing = make_prepare(config, default_boxes, len(info.classes))
    skip = config.data.on_bad_record == "skip"
    ready = stream.map(bad_records.guard(prepare, nothing, len(info.classes), skip), parallelism, deterministic=True)
    return ready.batch(local, drop_remainder=True).prefetch(2).with_options(options())


def read_examples(data_dir, split) -> tf.data.Dataset:
    """The Examples of a split in file order, once, with `image` decoded to uint8 [H, W, 3]."""
    info = dataset_json.read_dataset(data_dir)

    def prepare(_, serialized):
        example = bad_records.check(records.parse_example(serialized), len(info.classes))
        return {**example, "image": records.decode_image(example["image"])}

    stream = tf.data.Dataset.from_tensor_slices(info.shards(split)).flat_map(_numbered).enumerate()
    ready = stream.map(bad_records.guard(prepare, _NO_EXAMPLE, len(info.classes)), tf.data.AUTOTUNE, deterministic=True)
    return ready.prefetch(tf.data.AUTOTUNE)


def record_stream(shards, images, buffer, seed, start=0) -> tf.data.Dataset:
    """Endless (position, (file, (number, serialized))) from position `start` on; each epoch has its own order."""

    def one_epoch(epoch):
        # Seeds the graph of this function alone: the shuffle then depends on (seed, epoch) and on nothing global.
        tf.random.set_seed(seed + 1)
        order = tf.random.experimental.stateless_shuffle(tf.constant(shards), tf.stack([tf.constant(seed, tf.int64), epoch]))
        encoded = tf.data.Dataset.from_tensor_slices(order).interleave(
            _numbered, cycle_length=OPEN_SHARDS, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return encoded.shuffle(buffer, seed=epoch)

    first_epoch, seen = divmod(start, images)
    return tf.data.Dataset.range(first_epoch, 2**40).flat_map(one_epoch).enumerate(first_epoch * images).skip(seen)


def make_prepare(config, default_boxes, num_classes):
    """The function (position, serialized) -> (image, Targets), and what stands in for a record that was skipped."""
    height, width = config.model.input_hw
    number = len(default_boxes)

    def prepare(position, serialized):
        example = bad_records.check(records.parse_example(serialized), num_classes)
        seed = tf.stack([tf.constant(config.train.seed, tf.int64), position])
        image, example = augment.augment(example, (height, width), config.data.augment, seed)
        targets = matching.make_targets(example, default_boxes, config.boxes.variances, config.data.train_difficult)
        shapes = {"offsets": [number, 4], "labels": [number]}
        return image, {key: tf.ensure_shape(targets[key], shape) for key, shape in shapes.items()}

    nothing = tf.zeros([height, width, 3]), {"offsets": tf.zeros([number, 4]), "labels": tf.fill([number], -1)}
    return prepare, nothing


def options() -> tf.data.Options:
    """Order kept; one thread an operation, as the pictures of a batch keep every core busy."""
    chosen = tf.data.Options()
    chosen.deterministic = True
    chosen.threading.max_intra_op_parallelism = 1
    return chosen


def count_records(path) -> int:
    """The number of records of a TFRecord file, from their lengths alone; a last one that is cut off counts."""
    count, position = 0, 0
    with open(path, "rb") as file:
        while length := file.read(8):
            count += 1
            position += 8 + 4 + int.from_bytes(length, "little") + 4  # length, its checksum, the record, its checksum
            file.seek(position)
    return count


def _own_shards(shards, num_workers, worker):
    if len(shards) < num_workers:
        raise ConfigError(f"data.shard=file wants a shard a worker, found {len(shards)} for {num_workers}; convert with --shards")
    return shards[worker::num_workers]


def _numbered(path):
    return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(path).repeat(), tf.data.TFRecordDataset(path).enumerate())


_NO_EXAMPLE = {
    "image": tf.zeros([0, 0, 3], tf.uint8),
    "boxes": tf.zeros([0, 4]),
    "labels": tf.zeros([0], tf.int32),
    "crowd": tf.zeros([0], tf.bool),
    "difficult": tf.zeros([0], tf.bool),
    "area": tf.zeros([0]),
    "source_id": "",
    "height": 0,
    "width": 0,
}
