"""Records that cannot be used: named by file, number and source_id, and refused or left out.

Inside the graph a bad record is an error without a name, and catching it there costs a third of the time of a good one. So the
pipeline lets it fail; whoever runs it then looks through the split for what is wrong (`explain_record_errors`).
"""

import contextlib
import re

import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from ssd_tf.data import dataset_json, records, shards
from ssd_tf.data.images import decode_image


class BadRecord(ValueError):
    """A record that cannot be used; the message names its file, its number and its source_id."""


def check(example, num_classes):
    """The Example, or an error where its lists differ in length, a label lies outside 1..num_classes, or a box has no area or
    its centre outside the picture.
    """
    boxes, labels = example["boxes"], example["labels"]
    twice_centre = boxes[:, :2] + boxes[:, 2:]
    lengths = tf.stack(
        [tf.shape(example[key])[0] for key in ("boxes", "crowd", "difficult", "area")]
    )
    sound = tf.reduce_all((labels >= 1) & (labels <= num_classes)) & tf.reduce_all(
        boxes[:, 2:] > boxes[:, :2]
    )
    sound &= tf.reduce_all(lengths == tf.shape(labels)[0]) & tf.reduce_all(
        (twice_centre >= 0) & (twice_centre <= 2)
    )
    with tf.control_dependencies([tf.raw_ops.Assert(condition=sound, data=[labels])]):
        return {**example, "boxes": tf.identity(boxes)}


@contextlib.contextmanager
def explain_record_errors(data_dir, split):
    """Inside, an error about a record of the split, raised by a data set's iterator, comes out as BadRecord: one line."""
    try:
        yield
    except (
        tf.errors.InvalidArgumentError,
        tf.errors.DataLossError,
        UnicodeDecodeError,
    ):  # the last: of TensorFlow's message
        info = dataset_json.read_dataset(data_dir)
        logging.warning(
            "a record cannot be used; looking for it in the split %r of %s", split, data_dir
        )
        found = find(info.shards(split), len(info.classes))
        if not found:
            raise
        more = f" ({len(found) - 1} more records cannot be used)" if len(found) > 1 else ""
        cure = "" if found[0][3] else "; convert it again, or set data.on_bad_record=skip"
        raise BadRecord(f"{found[0][2]}{cure}{more}") from None


def scan_bad_records(info, split, on_bad_record="skip") -> list[tuple[str, int]]:
    """The records of a split that are to be skipped, each logged: (file, number). One pass that decodes everything.

    on_bad_record: data.on_bad_record; `stop` skips nothing and looks at nothing. Raises BadRecord for a label beyond the class
    list, which no skipping mends, and where nothing is left.
    """
    if on_bad_record == "stop":
        return []
    images = info.splits[split]["images"]
    logging.info(
        "looking for records to skip: all %d pictures of the split %r are decoded once",
        images,
        split,
    )
    found = find(info.shards(split), len(info.classes))
    for _, _, line, refused in found:
        if refused:
            raise BadRecord(line)
        logging.warning("skipped: %s", line)
    if found:
        logging.warning("%d of %d records are skipped", len(found), images)
    if len(found) >= images:
        raise BadRecord(
            f"no record of the split {split!r} of {info.folder} can be used; {found[0][2]}"
        )
    return [(file, number) for file, number, _, _ in found]


def find(paths, num_classes) -> list[tuple[str, int, str, bool]]:
    """The bad records of some shards: file, number, what is wrong in a line, whether skipping it is no cure.

    Raises BadRecord for a file that is cut off or whose checksums are wrong: what follows in it cannot be read.
    """

    @tf.autograph.experimental.do_not_convert
    def sound(file, number, serialized):
        example = check(records.parse_example(serialized), num_classes)
        with tf.control_dependencies([example["boxes"], decode_image(example["image"])]):
            return tf.identity(file), number

    passed = (
        shards.numbered_records(paths)
        .map(sound, tf.data.AUTOTUNE, deterministic=True)
        .ignore_errors()
        .batch(256)
    )
    good = {
        (file, number)
        for batch in passed.as_numpy_iterator()
        for file, number in zip(*batch, strict=True)
    }
    bad = []
    for path in paths:
        missing = [
            number
            for number in range(shards.count_records(path))
            if (path.encode(), number) not in good
        ]
        bad += [
            (path, number, *describe(path, number, _read(path, number), num_classes))
            for number in missing
        ]
    return bad


def describe(file, number, serialized, num_classes) -> tuple[str, bool]:
    """What is wrong with a record, in a line, and whether it is to be refused even where bad records are skipped."""
    source_id, reason, refused = "unknown", "it is no tf.train.Example", False
    with contextlib.suppress(DecodeError):
        features = tf.train.Example.FromString(serialized).features.feature
        source_id = b"".join(features["image/source_id"].bytes_list.value).decode(errors="replace")
        labels = features["image/object/class/label"].int64_list.value
        beyond = [label for label in labels if not 1 <= label <= num_classes]
        refused = bool(beyond)
        if refused:
            reason = f"labels must lie in [1, {num_classes}], found {beyond[0]}; was the dataset.json of other data put here?"
        else:
            reason = _fault(serialized)
    return (
        f"{file}: record {number} (from 0), source_id {source_id!r}, cannot be used: {reason}",
        refused,
    )


def _fault(serialized):
    try:
        example = records.parse_example(serialized)
    except tf.errors.OpError as error:
        return f"its keys do not fit together ({_first_line(error)})"
    lengths = {key: len(example[key]) for key in ("labels", "boxes", "crowd", "difficult", "area")}
    if len(set(lengths.values())) > 1:
        return "its lists differ in length: " + ", ".join(
            f"{key} {length}" for key, length in lengths.items()
        )
    for index, (ymin, xmin, ymax, xmax) in enumerate(example["boxes"].numpy()):
        where = f"(ymin {ymin:g}, xmin {xmin:g}, ymax {ymax:g}, xmax {xmax:g})"
        if not (ymax > ymin and xmax > xmin):
            return f"box {index} has no area {where}"
        if not (0 <= ymin + ymax <= 2 and 0 <= xmin + xmax <= 2):
            cause = "are these pixels? boxes are wanted in shares of the picture"
            return f"box {index} has its centre outside the picture {where}; {cause}"
    try:
        decode_image(example["image"])
    except tf.errors.OpError as error:
        return f"its image cannot be decoded ({_first_line(error)})"
    return "it failed once and is sound now; was it changed meanwhile?"


def _read(path, number):
    try:
        return next(tf.data.TFRecordDataset(path).skip(number).as_numpy_iterator())
    except (tf.errors.DataLossError, StopIteration):
        raise BadRecord(
            f"{path}: cut off or damaged at record {number} (from 0) or before; convert the split again"
        ) from None


def _first_line(error):
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*|\[\[.*", "", error.message.splitlines()[0])
    return " ".join(text.split())[:160]
