"""JSON files that people hand in, read whole or row by row."""

import json
import re

from ssd_tf import user_files

_MAX_BYTES = 1 << 33  # a results file of COCO's size takes 200 MB


def read_json(path):
    """The content of a JSON file. Raises FileNotFoundError, or ValueError if it is none."""
    text = _read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(path, error) from None


def rows_of(path, expected):
    """The values of the list in a JSON file, one at a time: as objects they would take gigabytes.

    Raises ValueError if the file is not JSON, or not a list: `expected` says of what.
    """
    text = _read_text(path)
    skip = re.compile(r"[ \t\n\r]*").match
    decode = json.JSONDecoder().raw_decode
    place = skip(text, 0).end()
    if text[place : place + 1] != "[":
        raise ValueError(f"{path}: expected {expected}, got {brief(read_json(path))}")
    place = skip(text, place + 1).end()
    try:
        if text[place : place + 1] == "]":
            place = skip(text, place + 1).end()
        else:
            separator = ","
            while separator == ",":
                row, place = decode(text, place)
                yield row
                place = skip(text, place).end()
                separator = text[place : place + 1]
                place = skip(text, place + 1).end()
            if separator != "]":
                raise json.JSONDecodeError("expected , or ]", text, min(place, len(text)))
        if place < len(text):
            raise json.JSONDecodeError("expected the end", text, place)
    except (ValueError, RecursionError) as error:
        raise _not_json(path, error) from None


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


def _read_text(path):
    try:
        return user_files.read_text(path, limit=_MAX_BYTES)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file at {path}") from None


def _not_json(path, error):
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
    return ValueError(f"{path} is not JSON: {reason}")
