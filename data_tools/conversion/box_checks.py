"""From boxes as the labels write them to corners [ymin, xmin, ymax, xmax] in shares of the picture, or a reason to drop them."""

import dataclasses
import math

import numpy as np

from data_tools.readers import labels

_ROUNDING = 1e-6  # shares of the picture: what sums of written decimals may lie over its edge
# EXIF orientation -> stored x, y in shares of the stored picture to x, y of the picture as it is shown.
_TURNS = {
    1: lambda x, y: (x, y),
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (y, 1 - x),
}


@dataclasses.dataclass(frozen=True)
class NormalizedBox:
    """corners: normalised; area: the annotation's, else the box's own, in pixels; clipped: whether the picture's edge cut it."""

    corners: tuple[float, float, float, float]
    area: float
    clipped: bool


def normalize_box(thing: labels.LabeledObject, unit, image, turn) -> NormalizedBox | str:
    """An object's box -> NormalizedBox, or the reason to drop it. `turn`: the EXIF orientation that the box has still to follow."""
    fault = thing.fault or find_fault(thing.box, unit)
    if fault:
        return fault
    xmin, ymin, xmax, ymax = _turn(_to_shares(thing.box, unit, image, turn), turn)
    if xmin >= 1 or ymin >= 1 or xmax <= 0 or ymax <= 0:
        return "outside"
    corners = tuple(min(max(value, 0.0), 1.0) for value in (ymin, xmin, ymax, xmax))
    # Records hold float32, in which a sliver can lose its last width.
    low_y, low_x, high_y, high_x = map(np.float32, corners)
    if high_y <= low_y or high_x <= low_x:
        return "degenerate"
    own_area = (corners[2] - corners[0]) * image.height * (corners[3] - corners[1]) * image.width
    area = thing.area if thing.area is not None and 0 < thing.area < math.inf else own_area
    over = max(-xmin, -ymin, xmax - 1, ymax - 1)
    return NormalizedBox(corners, area, over > _ROUNDING)


def find_fault(box, unit):
    """What is wrong with a box as it is written; empty where nothing is."""
    xmin, ymin, xmax, ymax = box
    if not all(map(math.isfinite, box)):
        return "not a number"
    if unit != labels.PIXELS_FROM_ONE and (xmax < xmin or ymax < ymin):
        return "negative"
    return "degenerate" if xmax <= xmin or ymax <= ymin else ""


def boxes_orientation(size_hw, image, assume):
    """-> (the EXIF orientation that the boxes have still to follow: 1 where they were drawn on the picture as it is shown,
    whether that was assumed).

    The size that the labels give tells which; where it cannot, `assume` does: "stored" or "shown".
    """
    shown_hw = (image.height, image.width)
    if image.stored_hw != shown_hw and size_hw in (image.stored_hw, shown_hw):
        return 1 if size_hw == shown_hw else image.orientation, False
    return 1 if assume == "shown" else image.orientation, image.orientation != 1


def _to_shares(box, unit, image, turn):
    xmin, ymin, xmax, ymax = box
    if unit == labels.SHARES:
        return box
    first = 1 if unit == labels.PIXELS_FROM_ONE else 0
    height, width = (image.height, image.width) if turn == 1 else image.stored_hw
    return (xmin - first) / width, (ymin - first) / height, xmax / width, ymax / height


def _turn(shares, orientation):
    x1, y1 = _TURNS[orientation](*shares[:2])
    x2, y2 = _TURNS[orientation](*shares[2:])
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
