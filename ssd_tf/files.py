"""Files written atomically: a reader finds the old content or the new, never a part of either."""

import json
import os
import pathlib


def write_bytes(path, content: bytes):
    """Writes beside the file, then renames: an interrupted write leaves the old content in place."""
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_text(path, content: str):
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path, content):
    """As `write_text`, indented by one space."""
    write_text(path, json.dumps(content, indent=1) + "\n")
