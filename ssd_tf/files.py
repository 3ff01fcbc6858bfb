"""Atomic writes: a reader finds the old content or the new, never a part of either."""

import json
import os
import pathlib


def write_bytes(path, content: bytes):
    """Write a temporary file beside the target, then rename it over the target."""
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_text(path, content: str):
    """Write text in UTF-8, as `write_bytes` does."""
    write_bytes(path, content.encode())


def write_json(path, content):
    """Write JSON, indented by one space, as `write_bytes` does."""
    write_text(path, json.dumps(content, indent=1) + "\n")
