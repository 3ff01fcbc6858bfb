"""Classes of an old detector that training keeps: the longer list, and labels in new images.

With data.keep_classes, what the old detector found in the training images joins their ground
truth. `ssd_tf/training/old_detector.py` runs it, once, and writes files; this module reads them.

Shapes: `M` images, `K` detections of all images, `N` objects of one image.
"""

import io
import pathlib
import typing
import zipfile

import numpy as np
import tensorflow as tf

from ssd_tf import files
from ssd_tf.boxes import geometry
from ssd_tf.data import records

# A detection that overlaps an object of the new data by at least this IoU is a second opinion on
# that object, and wrong: a turtle taken for a bird. It is ignored rather than left out: the default
# boxes on the turtle learn that it is no bird; those beside it would be the hardest negatives of
# the image, and unlearn birds.
SAME_OBJECT_IOU = 0.5


class Detected(typing.NamedTuple):
    """What the old detector found in some images.

    keys [M] int64: `records.image_key` of each image; counts [M] int64: its number of detections.
    Of all detections, image by image: boxes [K, 4] float32, labels [K] int32 from 1, as the old
    detector has them, scores [K] float32.
    """

    keys: np.ndarray
    counts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


class KeptClasses(typing.NamedTuple):
    """The detections for the input pipeline.

    detected: of images in ascending order of their keys, each once. label_of [C]: the label in the
    run of each class of the data set.
    """

    detected: Detected
    label_of: np.ndarray


def extend_classes(old, new) -> tuple[dict, ...]:
    """The classes of the old run, then those of the new data that it lacks by name.

    Both: {"name", "id"} in label order. An id that is taken becomes the first free one above all.
    """
    classes = list(old)
    names = {entry["name"] for entry in old}
    ids = {entry["id"] for entry in old}
    for entry in new:
        if entry["name"] in names:
            continue
        class_id = max(ids) + 1 if entry["id"] in ids else entry["id"]
        ids.add(class_id)
        classes.append({"name": entry["name"], "id": class_id})
    return tuple(classes)


def labels_in(names, data_names) -> np.ndarray:
    """The label from 1 in `names` of each class of a data set [C], int32."""
    return np.array([names.index(name) + 1 for name in data_names], np.int32)


def make_add(kept: KeptClasses, min_score, train_difficult):
    """A function: Example -> the same with the labels of the run, and with the detections.

    Detections of classes that the data set has are left out, as its own labels are complete. Those
    that score less than min_score, or overlap an object that is no crowd by SAME_OBJECT_IOU, become
    difficult objects, for `matching.make_targets` to ignore. train_difficult: the difficult objects
    of the data set become ordinary ones.
    Running the graph fails for an image that the detector has not seen.
    """
    detected = _without_labels(kept.detected, kept.label_of)
    keys = tf.constant(detected.keys)
    ends = tf.constant(np.cumsum(detected.counts))
    counts = tf.constant(detected.counts)
    columns = {
        "boxes": tf.constant(detected.boxes),
        "labels": tf.constant(detected.labels),
        "difficult": tf.constant(detected.scores < min_score),
    }
    label_of = tf.constant(kept.label_of)

    def add(example):
        key = records.image_key(example["image"])
        row = tf.minimum(tf.searchsorted(keys, [key])[0], len(detected.keys) - 1)
        with tf.control_dependencies([tf.raw_ops.Assert(condition=keys[row] == key, data=[key])]):
            end = tf.identity(ends[row])
        found = {name: values[end - counts[row] : end] for name, values in columns.items()}
        objects = tf.boolean_mask(example["boxes"], ~example["crowd"])
        overlaps = geometry.iou(found["boxes"], objects)  # [K, N]
        found["difficult"] |= tf.reduce_any(overlaps >= SAME_OBJECT_IOU, 1)
        pixels = tf.cast(example["height"] * example["width"], tf.float32)
        found["area"] = geometry.area(found["boxes"]) * pixels
        found["crowd"] = tf.zeros_like(found["difficult"])
        own = {
            **example,
            "labels": tf.gather(label_of, example["labels"] - 1),
            "difficult": example["difficult"] & (not train_difficult),
        }
        return own | {name: tf.concat([own[name], found[name]], 0) for name in found}

    return add


def _without_labels(detected: Detected, labels) -> Detected:
    """The detections without those of some labels."""
    image = np.repeat(np.arange(len(detected.keys)), detected.counts)
    rows = np.flatnonzero(~np.isin(detected.labels, labels))
    return detected._replace(
        counts=np.bincount(image[rows], minlength=len(detected.keys)),
        boxes=detected.boxes[rows],
        labels=detected.labels[rows],
        scores=detected.scores[rows],
    )


def write_part(folder, index, detected: Detected):
    """Write the detections of some images into a folder, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, **detected._asdict())
    files.write_bytes(_part_path(folder, index), buffer.getvalue())


def read_part(folder, index) -> Detected | None:
    """What `write_part` wrote; None if there is no such file, or if it is corrupt."""
    try:
        # From memory, as NumPy leaves a corrupt file open.
        with np.load(io.BytesIO(_part_path(folder, index).read_bytes())) as content:
            return Detected(*(content[name] for name in Detected._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _part_path(folder, index):
    return pathlib.Path(folder) / f"part-{index:05d}.npz"


def concatenate(parts) -> Detected:
    """The Detected of several, one after the other."""
    return Detected(*map(np.concatenate, zip(*parts, strict=True)))


def join_parts(parts) -> Detected:
    """The Detected of all parts, in ascending order of the keys; of equal images the first."""
    joined = concatenate(parts)
    keys, first = np.unique(joined.keys, return_index=True)
    ends = np.cumsum(joined.counts)
    starts = ends - joined.counts
    rows = np.concatenate([np.arange(starts[image], ends[image]) for image in first])
    return Detected(
        keys, joined.counts[first], joined.boxes[rows], joined.labels[rows], joined.scores[rows]
    )
