"""Numbers and flags in label files."""

import math
import re

_ONE_COMMA = re.compile(r"\s*[+-]?(\d*),(\d+)\s*")
_TRUE = ("true", "yes", "y", "t", "on")


def to_number(value, has_decimal_comma=False) -> float:
    """Parse a coordinate; NaN if the value is not a number.

    One comma is a decimal comma; `1,024` may be a thousand and gives NaN unless
    `has_decimal_comma`.
    """
    if isinstance(value, str):
        if "_" in value:  # digits of Python's source code
            return math.nan
        found = _ONE_COMMA.fullmatch(value) if "," in value else None
        if found and (has_decimal_comma or len(found[2]) != 3 or found[1] in ("", "0")):
            value = value.replace(",", ".")
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def to_flag(value) -> bool:
    """Parse a flag: true, `true`, `yes` and any number but 0 set it, in any case."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE:
        return True
    number = to_number(value)
    return not math.isnan(number) and number != 0


def to_size(height, width) -> tuple[int, int] | None:
    """Parse height and width; None if they are absent, zero or not numbers."""
    height = to_number(height)
    width = to_number(width)
    return (int(height), int(width)) if 1 <= height < math.inf and 1 <= width < math.inf else None
