"""What the rows of COCO files must hold, and the text of those files."""

import json
import math
import pathlib
import typing

# pycocotools sorts ids with NumPy, whose integers end here.
LARGEST_ID = 2**63 - 1


class Column(typing.NamedTuple):
    """What a key of a row must hold. An optional key may be absent or null."""

    key: str
    expected: str
    accepts: typing.Callable
    optional: bool = False


def _is_number(value):
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def _is_id(value):
    if isinstance(value, (str, bool)):
        return isinstance(value, str)
    return _is_number(value) and abs(value) <= LARGEST_ID


def _is_box(value):
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


_ID = Column("id", "a string or a number of at most 64 bits", _is_id)
_IMAGE_ID = _ID._replace(key="image_id")
_CATEGORY_ID = _ID._replace(key="category_id")
_BOX = Column("bbox", "four finite numbers (x, y, width, height)", _is_box)
_NUMBER = Column("score", "a finite number", _is_number)
_NAME = Column("name", "a string", lambda value: isinstance(value, str))
# Many files lack area or iscrowd.
INSTANCES = {
    "images": [_ID],
    "annotations": [
        _IMAGE_ID,
        _CATEGORY_ID,
        _BOX,
        _NUMBER._replace(key="area", optional=True),
        _NUMBER._replace(key="iscrowd", optional=True),
    ],
    "categories": [_ID, _NAME],
}
RESULTS = [_IMAGE_ID, _CATEGORY_ID, _BOX, _NUMBER]


def check_rows(rows, columns, where):
    """Raise ValueError for the first fault of a list of rows; `where` begins its message."""
    if not isinstance(rows, list):
        raise ValueError(not_a_list(where, columns, rows))
    for index, row in enumerate(rows):
        check_row(row, columns, f"{where}[{index}]")


def not_a_list(where, columns, content):
    keys = ", ".join(column.key for column in columns if not column.optional)
    return f"{where}: expected a list of objects with {keys}, got {brief(content)}"


def check_row(row, columns, where):
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, got {brief(row)}")
    for column in columns:
        value = row.get(column.key)
        if value is None and column.optional:
            continue
        if not column.accepts(value):
            raise ValueError(
                f"{where}: expected {column.key} as {column.expected}, got {brief(value)}"
            )


def brief(value):
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_json(path):
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def read_text(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"no file at {path}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
