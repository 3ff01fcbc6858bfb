"""Records that cannot be used: reported with file, index and source_id, and rejected or skipped.

In the graph a bad record raises an error that does not name it, and catching that error there costs
a third of the time of a good record. So the pipeline lets it fail, and whoever runs the pipeline
then searches the split for the cause (`explain_record_errors`).
"""

import contextlib
import dataclasses
import re

import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from ssd_tf.boxes import validity
from ssd_tf.data import dataset_json, records, shards


class BadRecordError(ValueError):
    """A record cannot be used; the message gives its file, index and source_id."""


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that cannot be used, and why."""

    file: str
    index: int  # in the file, from 0
    message: str  # one line
    can_be_skipped: bool  # False: skipping it would not fix the cause


def check_example(example, num_classes):
    """Return the Example; running the graph fails if it cannot be used.

    It cannot if its lists differ in length, a label is outside 1..num_classes, or a box has no area
    or its centre outside the image.
    """
    boxes = example["boxes"]
    labels = example["labels"]
    lengths = [tf.shape(example[key])[0] for key in ("boxes", "crowd", "difficult", "area")]
    usable = tf.reduce_all((labels >= 1) & (labels <= num_classes))
    usable &= tf.reduce_all(validity.is_valid(boxes))
    usable &= tf.reduce_all(tf.stack(lengths) == tf.shape(labels)[0])
    with tf.control_dependencies([tf.raw_ops.Assert(condition=usable, data=[labels])]):
        return {**example, "boxes": tf.identity(boxes)}


@contextlib.contextmanager
def explain_record_errors(data_dir, split):
    """Turn a dataset iterator's error about a record of the split into a BadRecordError.

    The message is one line.
    """
    try:
        yield
    except (
        tf.errors.InvalidArgumentError,
        tf.errors.DataLossError,
        UnicodeDecodeError,  # raised for the text of a TensorFlow error
    ):
        dataset_info = dataset_json.read_dataset(data_dir)
        logging.warning(
            "a record cannot be used; searching the split %r of %s for it", split, data_dir
        )
        bad = find_bad_records(dataset_info.shards(split), len(dataset_info.classes))
        if not bad:
            raise
        remedy = "; convert it again, or set data.on_bad_record=skip"
        if not bad[0].can_be_skipped:
            remedy = ""
        more = f" ({len(bad) - 1} more records cannot be used)" if len(bad) > 1 else ""
        raise BadRecordError(f"{bad[0].message}{remedy}{more}") from None


def scan_bad_records(dataset_info, split, on_bad_record) -> list[shards.RecordId]:
    """Find the records of a split to skip and log each; decodes the whole split once.

    on_bad_record: data.on_bad_record; with `stop` nothing is read and nothing is skipped.
    Raises BadRecordError for a label outside the class list, which skipping does not fix, and if no
    record is left; ValueError for another on_bad_record.
    """
    if on_bad_record == "stop":
        return []
    if on_bad_record != "skip":
        raise ValueError(f"on_bad_record: expected stop or skip, got {on_bad_record!r}")
    num_images = dataset_info.splits[split]["images"]
    logging.info(
        "looking for records to skip: decoding all %d images of the split %r once",
        num_images,
        split,
    )
    bad = find_bad_records(dataset_info.shards(split), len(dataset_info.classes))
    for record in bad:
        if not record.can_be_skipped:
            raise BadRecordError(record.message)
        logging.warning("skipped: %s", record.message)
    if bad:
        logging.warning("%d of %d records are skipped", len(bad), num_images)
    if len(bad) >= num_images:
        raise BadRecordError(
            f"no record of the split {split!r} of {dataset_info.folder} can be used; "
            f"{bad[0].message}"
        )
    return [shards.RecordId(record.file, record.index) for record in bad]


def find_bad_records(paths, num_classes) -> list[BadRecord]:
    """Find the bad records of some shards; decodes them all.

    Raises BadRecordError for a file that is cut off or has wrong checksums: the records after the
    damage cannot be read.
    """
    usable = _find_usable(paths, num_classes)
    bad = []
    for path in paths:
        for index in range(shards.count_records(path)):
            if shards.RecordId(path, index) not in usable:
                bad.append(describe_record(path, index, _read_record(path, index), num_classes))
    return bad


def describe_record(file, index, serialized, num_classes) -> BadRecord:
    """Say why a record cannot be used and whether it can be skipped."""
    source_id = "unknown"
    reason = "it is not a tf.train.Example"
    can_be_skipped = True
    with contextlib.suppress(DecodeError):
        features = tf.train.Example.FromString(serialized).features.feature
        source_id = b"".join(features["image/source_id"].bytes_list.value).decode(errors="replace")
        labels = features["image/object/class/label"].int64_list.value
        unknown = [label for label in labels if not 1 <= label <= num_classes]
        can_be_skipped = not unknown
        if unknown:
            reason = (
                f"expected labels in [1, {num_classes}], got {unknown[0]}; "
                "is this the dataset.json of another data set?"
            )
        else:
            reason = _explain(serialized)
    message = f"{file}: record {index} (from 0), source_id {source_id!r}, cannot be used: {reason}"
    return BadRecord(file, index, message, can_be_skipped)


def _find_usable(paths, num_classes):
    """The RecordIds of the records that can be parsed, pass the check and can be decoded."""

    @tf.autograph.experimental.do_not_convert
    def identify_usable(file, index, serialized):
        example = check_example(records.parse_example(serialized), num_classes)
        with tf.control_dependencies([example["boxes"], records.decode_stored(example["image"])]):
            return tf.identity(file), index

    usable = (
        shards.indexed_records(paths)
        .map(identify_usable, tf.data.AUTOTUNE, deterministic=True)
        .ignore_errors()
        .batch(256)
    )
    return {
        shards.RecordId(file.decode(), int(index))
        for files, indices in usable.as_numpy_iterator()
        for file, index in zip(files, indices, strict=True)
    }


def _explain(serialized):
    """Say why a record whose labels are valid cannot be used."""
    try:
        example = records.parse_example(serialized)
    except tf.errors.OpError as error:
        return f"its features do not fit together ({_first_line(error)})"
    keys = ("labels", "boxes", "crowd", "difficult", "area")
    lengths = {key: len(example[key]) for key in keys}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        return f"its lists differ in length: {listed}"
    for index, (ymin, xmin, ymax, xmax) in enumerate(example["boxes"].numpy()):
        box = f"(ymin {ymin:g}, xmin {xmin:g}, ymax {ymax:g}, xmax {xmax:g})"
        if not (ymax > ymin and xmax > xmin):
            return f"box {index} has no area {box}"
        if not (0 <= ymin + ymax <= 2 and 0 <= xmin + xmax <= 2):
            return (
                f"box {index} has its centre outside the image {box}; expected coordinates "
                "divided by the image size, are these pixels?"
            )
    try:
        records.decode_stored(example["image"])
    except tf.errors.OpError as error:
        return f"its image cannot be decoded ({_first_line(error)})"
    return "it failed before and is valid now; was the file changed in the meantime?"


def _read_record(path, index):
    try:
        return next(tf.data.TFRecordDataset(path).skip(index).as_numpy_iterator())
    except (tf.errors.DataLossError, StopIteration):
        raise BadRecordError(
            f"{path}: cut off or corrupt at record {index} (from 0) or before; "
            "convert the split again"
        ) from None


def _first_line(error):
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*|\[\[.*", "", error.message.splitlines()[0])
    return " ".join(text.split())[:160]
