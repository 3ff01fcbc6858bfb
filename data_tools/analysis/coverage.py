"""The fit of default boxes to the objects of a data set: the best IoU of each, by level and class.

Shapes: `N` objects, `L` levels.
"""

import dataclasses

import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table

from ssd_tf.boxes import geometry
from ssd_tf.boxes.matching import POSITIVE_IOU
from ssd_tf.models import ssd

# With less than this fraction covered, training relies on forced matches: fitted boxes help.
ENOUGH = 0.75


@dataclasses.dataclass(frozen=True)
class Row:
    """A group of objects.

    objects: how many; covered: how many of them have an IoU of at least POSITIVE_IOU with a default
    box; mean_iou: the mean of their best IoUs.
    """

    name: str
    objects: int
    covered: int
    mean_iou: float

    @property
    def forced(self):
        """The number that only the forced match serves."""
        return self.objects - self.covered

    @property
    def fraction(self):
        return self.covered / self.objects if self.objects else float("nan")


def measure(config, objects, names) -> tuple[list[Row], list[Row]]:
    """Config, inspection.SplitObjects, class names -> Rows by level, and by class.

    Ignored objects are not counted.
    """
    network = ssd.build_model(config, len(names))
    best, iou = geometry.best_overlaps(objects.real_boxes, network.default_boxes)
    by_level = tabulate_levels(best, iou, network.levels, network.map_shapes)
    return by_level, tabulate(objects.real_labels - 1, iou, names)


def tabulate(groups, iou, names) -> list[Row]:
    """One Row per group and one of all objects.

    groups [N]: the group of each object, an index into names; iou [N]: its best IoU.
    """
    rows = [_row(name, iou[groups == index]) for index, name in enumerate(names)]
    return [*rows, _row("all", iou)]


def tabulate_levels(best, iou, levels, map_shapes) -> list[Row]:
    """Rows by level.

    best [N]: index of the best default box; iou [N]; levels: BoxLevels [L]; map_shapes: (height,
    width) of their maps.
    """
    counts = [
        height * width * len(level.shapes_hw)
        for level, (height, width) in zip(levels, map_shapes, strict=True)
    ]
    names = [f"{height} x {width}" for height, width in map_shapes]
    return tabulate(np.searchsorted(np.cumsum(counts), best, "right"), iou, names)


def _row(name, iou):
    # The matcher compares float32 values, too.
    covered = int(np.sum(iou >= np.float32(POSITIVE_IOU)))
    return Row(name, len(iou), covered, float(np.mean(iou)) if len(iou) else float("nan"))


def judge(rows) -> str:
    """A verdict on the coverage of all objects: the last of the Rows."""
    total = rows[-1]
    if not total.objects:
        return "no objects, so nothing to cover"
    percent = int(100 * total.fraction)  # rounded up, it would contradict the verdict
    text = f"{percent} % of the objects have a default box with IoU >= {POSITIVE_IOU}: "
    if total.fraction >= ENOUGH:
        return f"{text}good (below {ENOUGH:.0%}, ssd fit-boxes would help)"
    return f"{text}low (below {ENOUGH:.0%}); ssd fit-boxes fits default boxes to the objects"


def print_rows(title, rows):
    """Print Rows as a table, without the groups that have no objects."""
    columns = ("objects", f"IoU >= {POSITIVE_IOU}", "fraction", "forced only", "mean best IoU")
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
            f"{row.fraction:.1%}" if row.objects else "",
            f"{row.forced:,}",
            f"{row.mean_iou:.3f}" if row.objects else "",
        )
    rich.console.Console().print(table)
