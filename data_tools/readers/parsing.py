"""Numbers as label files write them."""

import math

from ssd_tf.coco_rows import to_number


def to_size(height, width) -> tuple[int, int] | None:
    """Parse height and width; None if they are absent, zero or not numbers."""
    height = to_number(height)
    width = to_number(width)
    return (int(height), int(width)) if 1 <= height < math.inf and 1 <= width < math.inf else None
