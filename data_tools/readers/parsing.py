"""Numbers as label files write them."""

import math


def to_number(value) -> float:
    """Parse a coordinate; NaN if the value is not a number."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def to_size(height, width) -> tuple[int, int] | None:
    """Parse height and width; None if they are absent, zero or not numbers."""
    height = to_number(height)
    width = to_number(width)
    return (int(height), int(width)) if 1 <= height < math.inf and 1 <= width < math.inf else None
