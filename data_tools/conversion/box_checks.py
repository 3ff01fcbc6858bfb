"""Boxes as the labels write them -> normalised corners [ymin, xmin, ymax, xmax], or a fault."""

import dataclasses
import math

import numpy as np

from data_tools.readers import labels
from ssd_tf.boxes import validity

# By how much a box may cross the edge of the image, as a fraction of it: a box in another unit that
# is one pixel, and any box.
_OVERHANG = 0.1
_FAR_OUTSIDE = 1.0
# Drops that say nothing against the rest of the labels: the image may have no other object.
HARMLESS = ("degenerate", "outside")
_ROUNDING = 1e-6  # of the image: sums of written decimals may cross its edge by this much
# EXIF orientation -> normalised x, y in the stored image to x, y in the image as shown.
_TO_SHOWN = {
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
    """A box of a record.

    corners: [ymin, xmin, ymax, xmax], normalised; area: the annotation's, else the box's own, in
    pixels; clipped: whether it crossed the edge of the image.
    """

    corners: tuple[float, float, float, float]
    area: float
    clipped: bool


def choose_unit(unit, requested) -> str:
    """The unit to read boxes in. unit: of the label format; requested: by --boxes, or None."""
    if requested in (None, labels.PIXELS) and unit in (labels.PIXELS, labels.PIXELS_FROM_ONE):
        return unit
    return requested or unit


def doubt_unit(box, unit) -> str:
    """The reason to doubt that a box is written in that unit; empty if there is none."""
    lowest = min(box)
    highest = max(box)
    if unit == labels.NORMALISED:
        is_fraction = lowest >= -_FAR_OUTSIDE and highest <= 1 + _FAR_OUTSIDE
        return "" if is_fraction else "not fractions of the image"
    if unit == labels.PERCENT:
        is_percent = lowest >= 100 * -_FAR_OUTSIDE and highest <= 100 * (1 + _FAR_OUTSIDE)
        return "" if is_percent else "not percent of the image"
    is_one_pixel = lowest >= -_OVERHANG and highest <= 1 + _OVERHANG  # the first of the image
    return "not pixels" if is_one_pixel else ""


def normalize_box(
    obj: labels.LabeledObject, unit, image, orientation, is_unit_certain=False
) -> NormalizedBox | str:
    """Normalise the box of an object, or return the reason to drop it.

    unit: of the labels (`labels.PIXELS` and so on); image: a CheckedImage; orientation: the EXIF
    orientation still to apply to the box, 1 if it was drawn on the image as shown;
    is_unit_certain: as for find_fault.
    """
    fault = find_fault(obj, unit, is_unit_certain)
    if fault:
        return fault
    normalized = _normalize(obj.box, unit, image, orientation)
    xmin, ymin, xmax, ymax = _rotate(normalized, orientation)
    if xmin >= 1 or ymin >= 1 or xmax <= 0 or ymax <= 0:
        return "outside"
    corners = tuple(min(max(value, 0.0), 1.0) for value in (ymin, xmin, ymax, xmax))
    # Records hold float32, in which a sliver can lose its last width.
    is_sliver = min(corners[2] - corners[0], corners[3] - corners[1]) < _ROUNDING
    if is_sliver and not validity.is_valid(np.array(corners, np.float32)).all():
        return "degenerate"
    area = (corners[2] - corners[0]) * image.height * (corners[3] - corners[1]) * image.width
    is_measured = unit in (labels.PIXELS, labels.PIXELS_FROM_ONE)
    if is_measured and obj.area is not None and 0 < obj.area < math.inf:
        area = obj.area
    overhang = max(-xmin, -ymin, xmax - 1, ymax - 1)
    return NormalizedBox(corners, area, overhang > _ROUNDING)


def find_fault(obj, unit, is_unit_certain) -> str:
    """The fault of an object as written; empty if it has none.

    is_unit_certain: whether the user says what the unit is; it is not doubted then.
    """
    if obj.fault:
        return obj.fault
    xmin, ymin, xmax, ymax = obj.box
    if not all(map(math.isfinite, obj.box)):
        return "not a number"
    if unit != labels.PIXELS_FROM_ONE and (xmax < xmin or ymax < ymin):
        return "negative"
    if xmax <= xmin or ymax <= ymin:
        return "degenerate"
    return "" if is_unit_certain else doubt_unit(obj.box, unit)


def boxes_orientation(size_hw, image, assume) -> tuple[int, bool]:
    """The EXIF orientation still to apply to the boxes of an image, and whether it is assumed.

    size_hw: the size that the labels give, which decides if it fits only the image as stored or as
    shown; else `assume` does: "stored" or "shown".
    """
    shown_hw = (image.height, image.width)
    if image.stored_hw != shown_hw and size_hw in (image.stored_hw, shown_hw):
        return (1 if size_hw == shown_hw else image.orientation), False
    orientation = 1 if assume == "shown" else image.orientation
    return orientation, image.orientation != 1


def _normalize(box, unit, image, orientation):
    """[xmin, ymin, xmax, ymax] as fractions of the image that the box was drawn on."""
    xmin, ymin, xmax, ymax = box
    if unit == labels.NORMALISED:
        return box
    if unit == labels.PERCENT:
        return tuple(value / 100 for value in box)
    first = 1 if unit == labels.PIXELS_FROM_ONE else 0
    height, width = (image.height, image.width) if orientation == 1 else image.stored_hw
    return (xmin - first) / width, (ymin - first) / height, xmax / width, ymax / height


def _rotate(box, orientation):
    xmin, ymin, xmax, ymax = box
    x1, y1 = _TO_SHOWN[orientation](xmin, ymin)
    x2, y2 = _TO_SHOWN[orientation](xmax, ymax)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
