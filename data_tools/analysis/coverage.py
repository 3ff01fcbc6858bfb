"""How well default boxes fit the objects of a data set: the best overlap of each object, by level and by class.

Shapes: `N` objects, `A` default boxes, `L` levels.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from ssd_tf.boxes import geometry

THRESHOLD = 0.5  # of matching: below it only the forced match serves an object
_CHUNK = 256  # objects at a time


@dataclasses.dataclass(frozen=True)
class Row:
    """Of a group of objects: how many, how many that a default box overlaps by the threshold, the mean of their best overlaps."""

    name: str
    objects: int
    covered: int
    mean_iou: float

    @property
    def forced(self):
        return self.objects - self.covered

    @property
    def share(self):
        return self.covered / self.objects if self.objects else float("nan")


def best_overlaps(boxes, default_boxes):
    """boxes [N, 4], default_boxes [A, 4] -> the best default box of each object [N] and its IoU [N]."""
    default_boxes = tf.constant(default_boxes, tf.float32)
    index, overlap = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(boxes), _CHUNK):
        overlaps = geometry.iou(
            tf.constant(boxes[start : start + _CHUNK], tf.float32), default_boxes
        )
        index.append(tf.argmax(overlaps, 1).numpy())
        overlap.append(tf.reduce_max(overlaps, 1).numpy())
    return np.concatenate(index), np.concatenate(overlap)


def level_of_boxes(levels, map_shapes):
    """BoxLevels [L] and their maps' (height, width) -> the level of each default box [A]."""
    counts = [
        height * width * len(level.shapes_hw)
        for level, (height, width) in zip(levels, map_shapes, strict=True)
    ]
    return np.repeat(np.arange(len(counts)), counts)


def tabulate(groups, overlaps, names) -> list[Row]:
    """groups [N] of each object, their best overlaps [N], names of the groups 0.. -> one Row each, and one of all."""
    rows = [_row(name, overlaps[groups == number]) for number, name in enumerate(names)]
    return [*rows, _row("all", overlaps)]


def _row(name, overlaps):
    # The matcher compares float32 values, too.
    covered = int(np.sum(overlaps >= np.float32(THRESHOLD)))
    return Row(
        name, len(overlaps), covered, float(np.mean(overlaps)) if len(overlaps) else float("nan")
    )
