"""JSON files of users, read whole or row by row."""

import json
import re

from ssd_tf import user_files

_MAX_BYTES = 1 << 33  # a results file of COCO's size takes 200 MB


def read_json(path):
    """The content of a JSON file. Raises FileNotFoundError, or ValueError if it is not JSON."""
    text = _read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(path, error) from None


def rows_of(path, expected):
    """Yield the values of the list in a JSON file: as objects, all of them would take gigabytes.

    Raises ValueError if the file is not JSON, or not a list; expected: what it should hold.
    """
    text = _read_text(path)
    skip = re.compile(r"[ \t\n\r]*").match
    decode = json.JSONDecoder().raw_decode
    position = skip(text, 0).end()
    if text[position : position + 1] != "[":
        raise ValueError(f"{path}: expected {expected}, got {brief(read_json(path))}")
    position = skip(text, position + 1).end()
    try:
        if text[position : position + 1] == "]":
            position = skip(text, position + 1).end()
        else:
            separator = ","
            while separator == ",":
                row, position = decode(text, position)
                yield row
                position = skip(text, position).end()
                separator = text[position : position + 1]
                position = skip(text, position + 1).end()
            if separator != "]":
                raise json.JSONDecodeError("expected , or ]", text, min(position, len(text)))
        if position < len(text):
            raise json.JSONDecodeError("expected the end", text, position)
    except (ValueError, RecursionError) as error:
        raise _not_json(path, error) from None


def _read_text(path):
    user_files.check_exists(path, "file")
    return user_files.read_text(path, limit=_MAX_BYTES)


def _not_json(path, error):
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
    return ValueError(f"{path} is not JSON: {reason}")


def brief(value):
    """A value of a JSON file as an error shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "an object"
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "[" * 60
    return text if len(text) <= 60 else f"{text[:57]}..."
