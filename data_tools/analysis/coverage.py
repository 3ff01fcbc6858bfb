"""How well default boxes fit the objects of a data set: the best IoU of each, by level and class.

Shapes: `N` objects, `A` default boxes, `L` levels.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table
import tensorflow as tf

from ssd_tf.boxes import geometry

THRESHOLD = 0.5  # of matching: below it, only the forced match serves an object
_CHUNK = 256  # objects at a time


class BestMatches(NamedTuple):
    """Of each object the index of its best default box [N] and their IoU [N]."""

    index: np.ndarray
    iou: np.ndarray


@dataclasses.dataclass(frozen=True)
class Row:
    """A group of objects.

    objects: how many; covered: how many of them have an IoU of at least THRESHOLD with a default
    box; mean_iou: the mean of their best IoUs.
    """

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


def find_best_matches(boxes, default_boxes) -> BestMatches:
    """Find the best of the default boxes [A, 4] for each of the boxes [N, 4]."""
    default_boxes = tf.constant(default_boxes, tf.float32)
    index = [np.zeros(0, np.int64)]
    iou = [np.zeros(0, np.float32)]
    for start in range(0, len(boxes), _CHUNK):
        chunk = tf.constant(boxes[start : start + _CHUNK], tf.float32)
        overlaps = geometry.iou(chunk, default_boxes)
        index.append(tf.argmax(overlaps, 1).numpy())
        iou.append(tf.reduce_max(overlaps, 1).numpy())
    return BestMatches(np.concatenate(index), np.concatenate(iou))


def tabulate(groups, iou, names) -> list[Row]:
    """One Row per group and one of all objects.

    groups [N]: the group of each object, an index into names; iou [N]: its best IoU.
    """
    rows = [_row(name, iou[groups == index]) for index, name in enumerate(names)]
    return [*rows, _row("all", iou)]


def tabulate_levels(best, levels, map_shapes) -> list[Row]:
    """BestMatches, BoxLevels [L], the (height, width) of their maps -> Rows by level."""
    counts = [
        height * width * len(level.shapes_hw)
        for level, (height, width) in zip(levels, map_shapes, strict=True)
    ]
    level_of_boxes = np.repeat(np.arange(len(counts)), counts)  # [A]
    names = [f"{height} x {width}" for height, width in map_shapes]
    return tabulate(level_of_boxes[best.index], best.iou, names)


def _row(name, iou):
    # The matcher compares float32 values, too.
    covered = int(np.sum(iou >= np.float32(THRESHOLD)))
    return Row(name, len(iou), covered, float(np.mean(iou)) if len(iou) else float("nan"))


def print_rows(title, rows):
    """Print Rows as a table, without the groups that have no objects."""
    columns = ("objects", f"IoU >= {THRESHOLD}", "share", "forced only", "mean best IoU")
    table = rich.table.Table(title, box=rich.box.SIMPLE)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        if not row.objects and row.name != "all":
            continue
        table.add_row(
            rich.markup.escape(row.name),
            f"{row.objects:,}",
            f"{row.covered:,}",
            f"{row.share:.1%}" if row.objects else "",
            f"{row.forced:,}",
            f"{row.mean_iou:.3f}" if row.objects else "",
        )
    rich.console.Console().print(table)
