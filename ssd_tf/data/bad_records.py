"""Records that cannot be used: found inside the graph, then named with file, number and source_id, and refused or skipped."""

import contextlib
import os
import re

import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from ssd_tf.data import dataset_json, records


class BadRecord(ValueError):
    """A record that cannot be used; the message names its file, its number and its source_id."""


def guard(prepare, fallback, num_classes, skip=False):
    """prepare(position, serialized) -> a function of (position, (file, (number, serialized))) that survives bad records.

    Where prepare raises, the element becomes `fallback` and a line is logged (skip), or BadRecord is raised in the iterator,
    which `named_errors` brings out. A label beyond num_classes is always refused. Python runs for bad records only.
    """
    skipped = []

    def report(file, number, serialized):
        line, refused = describe(file.decode(), int(number), serialized, num_classes)
        if refused or not skip:
            raise BadRecord(line)
        skipped.append(line)
        logging.warning("bad record %d skipped: %s", len(skipped), line)
        return True

    def guarded(position, record):
        file, (number, serialized) = record
        # A data set of one record: ignore_errors is the one way to catch an error inside the graph.
        attempt = tf.data.Dataset.from_tensors((position, serialized)).map(lambda *args: (prepare(*args), True)).ignore_errors()
        either = attempt.concatenate(tf.data.Dataset.from_tensors((fallback, False))).take(1)
        result, sound = either.get_single_element()
        tf.cond(sound, lambda: True, lambda: tf.numpy_function(report, [file, number, serialized], tf.bool))
        return result

    return guarded


def check(example, num_classes):
    """The Example, or an error where its lists differ in length, a label lies outside 1..num_classes or a box is empty."""
    boxes, labels = example["boxes"], example["labels"]
    number = tf.shape(labels)[0]
    lengths = tf.stack([tf.shape(example[key])[0] for key in ("boxes", "crowd", "difficult", "area")])
    sound = tf.reduce_all((labels >= 1) & (labels <= num_classes)) & tf.reduce_all(boxes[:, 2:] > boxes[:, :2])
    with tf.control_dependencies([tf.raw_ops.Assert(condition=sound & tf.reduce_all(lengths == number), data=[labels])]):
        return {**example, "boxes": tf.identity(boxes)}


def describe(file, number, serialized, num_classes) -> tuple[str, bool]:
    """What is wrong with a record, in a line, and whether it is to be refused even where bad records are skipped."""
    source_id, reason, refused = "unknown", "it is no tf.train.Example", False
    with contextlib.suppress(DecodeError):
        features = tf.train.Example.FromString(serialized).features.feature
        source_id = _text(features["image/source_id"].bytes_list.value)
        labels = features["image/object/class/label"].int64_list.value
        beyond = [label for label in labels if not 1 <= label <= num_classes]
        refused = bool(beyond)
        reason = f"labels must lie in [1, {num_classes}], found {beyond[0]}" if beyond else _fault(serialized)
    todo = "was dataset.json of other data put here?" if refused else "convert it again, or set data.on_bad_record=skip"
    return f"{file}: record {number} (from 0), source_id {source_id!r}, cannot be used: {reason}; {todo}", refused


@contextlib.contextmanager
def named_errors(data_dir, split):
    """Inside, what a data set's iterator raises about records of a split comes out as BadRecord, one line."""
    try:
        yield
    except tf.errors.DataLossError as error:
        raise BadRecord(_broken_shard(dataset_json.read_dataset(data_dir).shards(split)) or error.message) from None
    except tf.errors.InvalidArgumentError as error:
        found = re.search(r"BadRecord: (.+?)$", error.message, re.MULTILINE)
        if found is None:
            raise
        raise BadRecord(found[1]) from None


def _fault(serialized):
    try:
        example = records.parse_example(serialized)
    except tf.errors.OpError as error:
        return f"its keys do not fit together ({_first_line(error)})"
    lengths = {key: len(example[key]) for key in ("labels", "boxes", "crowd", "difficult", "area")}
    if len(set(lengths.values())) > 1:
        return "its lists differ in length: " + ", ".join(f"{key} {length}" for key, length in lengths.items())
    for index, (ymin, xmin, ymax, xmax) in enumerate(example["boxes"].numpy()):
        if not (ymax > ymin and xmax > xmin):
            return f"box {index} has no area (ymin {ymin:g}, xmin {xmin:g}, ymax {ymax:g}, xmax {xmax:g})"
    try:
        records.decode_image(example["image"])
    except tf.errors.OpError as error:
        return f"its image cannot be decoded ({_first_line(error)})"
    return "it cannot be prepared (its image and its boxes are sound)"


def _broken_shard(paths):
    for path in paths:
        number = 0
        try:
            for _ in tf.data.TFRecordDataset(path):
                number += 1
        except tf.errors.DataLossError:
            size = os.path.getsize(path)
            return f"{path}: record {number} (from 0) is cut off or damaged (the file has {size} bytes); convert the split again"
    return None


def _first_line(error):
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*|\[\[.*", "", error.message.splitlines()[0])
    return " ".join(text.split())[:160]


def _text(values):
    return values[0].decode(errors="replace") if values else ""
