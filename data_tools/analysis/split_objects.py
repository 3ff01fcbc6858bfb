"""Reads the objects of a converted split, without decoding its pictures. Shapes: `N` objects, `I` images."""

import dataclasses

import numpy as np
import tensorflow as tf

from ssd_tf.data import records


@dataclasses.dataclass(frozen=True)
class SplitObjects:
    """boxes [N, 4] normalised, labels [N] from 1, ignored [N] bool (crowd or difficult), image_of [N], sizes_hw [I, 2] pixels."""

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    image_of: np.ndarray
    sizes_hw: np.ndarray

    @property
    def real_boxes(self):
        return self.boxes[~self.ignored]

    @property
    def real_labels(self):
        return self.labels[~self.ignored]


def read_split(shards) -> SplitObjects:
    """Paths of a split's shards -> its objects, pictures counted in file order."""
    parsed = tf.data.TFRecordDataset(shards).map(_without_picture, tf.data.AUTOTUNE)
    boxes, labels, ignored, image_of, sizes_hw = [], [], [], [], []
    for index, example in enumerate(parsed.as_numpy_iterator()):
        boxes.append(example["boxes"])
        labels.append(example["labels"])
        ignored.append(example["crowd"] | example["difficult"])
        image_of.append(np.full(len(example["labels"]), index))
        sizes_hw.append((example["height"], example["width"]))
    return SplitObjects(
        np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
        np.concatenate([np.zeros(0, np.int32), *labels]),
        np.concatenate([np.zeros(0, bool), *ignored]),
        np.concatenate([np.zeros(0, np.int64), *image_of]),
        np.array(sizes_hw, np.int64).reshape(-1, 2),
    )


def _without_picture(serialized):
    example = records.parse_example(serialized)
    return {key: value for key, value in example.items() if key != "image"}
