"""The gray range of the data that a model was trained on, stored in its exports.

A SavedModel has it in assets.extra, a .tflite file in the zip archive at its end.
"""

import json
import pathlib
import zipfile

from ssd_tf import files, pixels
from ssd_tf.inference.tflite_archive import read_member

FILE = "gray_range.json"


def write_gray_range(path, gray_range):
    """Store a gray range in an exported SavedModel folder or .tflite file; nothing for the full."""
    if gray_range == pixels.FULL_RANGE:
        return
    if pathlib.Path(path).is_dir():
        files.write_json(pathlib.Path(path) / "assets.extra" / FILE, list(gray_range))
        return
    stamp = zipfile.ZipInfo(FILE, (1980, 1, 1, 0, 0, 0))  # equal runs give equal files
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(stamp, json.dumps(list(gray_range)))


def read_gray_range(path) -> tuple[int, int]:
    """The gray range in an exported model; the full range if it has none. Raises ValueError."""
    content = _read(pathlib.Path(path))
    if content is None:
        return pixels.FULL_RANGE
    try:
        return pixels.check_gray_range(json.loads(content))
    except ValueError as error:
        raise ValueError(f"{path}: its {FILE} cannot be used ({error})") from None


def _read(path):
    if path.is_dir():
        file = path / "assets.extra" / FILE
        return file.read_bytes() if file.is_file() else None
    member = read_member(path, lambda names: FILE if FILE in names else None)
    return member and member[1]
