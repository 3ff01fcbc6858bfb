"""Data sets as a converter writes them: shards of serialized Examples, and dataset.json."""

import io

import tensorflow as tf
from PIL import Image

from ssd_tf.files import write_json


def encode(image, image_format="PNG"):
    """The bytes of an image file; image: uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format)
    return buffer.getvalue()


def write_split(folder, split, shards, num_boxes):
    """Write lists of serialized Examples, a file for each; returns the entry of dataset.json."""
    names = [f"{split}-{i:05d}-of-{len(shards):05d}.tfrecord" for i in range(len(shards))]
    for name, records in zip(names, shards, strict=True):
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for record in records:
                writer.write(record)
    return {
        "images": sum(map(len, shards)),
        "boxes": num_boxes,
        "ignored": 0,
        "shards": names,
        "repaired": {},
        "dropped": [],
    }


def write_classes(folder, classes, splits):
    """Write dataset.json; classes: [{"name", "id"}], splits: {name: its entry}."""
    content = {"version": 1, "classes": list(classes), "splits": splits}
    write_json(folder / "dataset.json", content)
    return folder
