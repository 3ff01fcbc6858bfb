"""Read the objects of a converted split without decoding its images. Shapes: `N` objects."""

import dataclasses

import numpy as np
import tensorflow as tf

from ssd_tf.data import records


@dataclasses.dataclass(frozen=True)
class SplitObjects:
    """The objects of a split, image after image.

    boxes: [N, 4] normalised corners.
    labels: [N] from 1.
    ignored: [N] bool, crowd or difficult.
    image_of: [N] index of the image.
    sizes_hw: [images, 2] height and width of each image, pixels.
    """

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
    """Read the objects of a split from the paths of its shards; images count in file order."""
    parsed = tf.data.TFRecordDataset(shards).map(_without_image, tf.data.AUTOTUNE)
    boxes = [np.zeros((0, 4), np.float32)]
    labels = [np.zeros(0, np.int32)]
    ignored = [np.zeros(0, bool)]
    image_of = [np.zeros(0, np.int64)]
    sizes_hw = []
    for index, example in enumerate(parsed.as_numpy_iterator()):
        boxes.append(example["boxes"])
        labels.append(example["labels"])
        ignored.append(example["crowd"] | example["difficult"])
        image_of.append(np.full(len(example["labels"]), index))
        sizes_hw.append((example["height"], example["width"]))
    return SplitObjects(
        boxes=np.concatenate(boxes),
        labels=np.concatenate(labels),
        ignored=np.concatenate(ignored),
        image_of=np.concatenate(image_of),
        sizes_hw=np.array(sizes_hw, np.int64).reshape(-1, 2),
    )


def _without_image(serialized):
    example = records.parse_example(serialized)
    return {key: value for key, value in example.items() if key != "image"}
