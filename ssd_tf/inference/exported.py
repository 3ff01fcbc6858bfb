"""What the runners of SavedModels and of TFLite files share."""

import json
import pathlib
import typing
import zipfile

from ssd_tf import files, pixels
from ssd_tf.errors import ConfigError, shorten
from ssd_tf.inference.detector import Stages
from ssd_tf.user_files import MAX_LABEL_BYTES

_GRAY_RANGE = "gray_range.json"
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # equal runs give equal files


class Exported(typing.NamedTuple):
    """An exported model.

    num_classes: C, or None if the file does not say it. is_ours: whether `ssd export` wrote it.
    """

    stages: Stages
    num_classes: int | None
    is_ours: bool


def scale_to_range(input_range, path):
    """(scale, shift) of a pixel in 0..255 for a float input. Raises ValueError without a range."""
    if input_range is None:
        raise ValueError(
            f"{path} takes floats and does not state their range; give --input_range=-1,1 or "
            "--input_range=0,1 or --input_range=0,255, as in its training"
        )
    low, high = input_range
    return (high - low) / 255, low


def reject_input_range(input_range, path, reason):
    """Raise ConfigError if an input range is given for a model that needs none."""
    if input_range is not None:
        raise ConfigError(f"--input_range: not for {path}, which {reason}")


def append_member(path, name, text):
    """Add a text file to the zip archive at the end of a .tflite file: a path or an open file."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name, _NO_TIME), text)


def read_member(path, choose):
    """(name, content) of the file that choose(names) selects in the archive at the end, or None.

    Raises ValueError if the archive is corrupt.
    """
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            name = choose(archive.namelist())
            if name is None:
                return None
            with archive.open(name) as file:
                return name, file.read(MAX_LABEL_BYTES)
    except Exception as error:  # reading a corrupt archive raises almost anything
        raise ValueError(f"{path}: the archive at its end is corrupt ({shorten(error)})") from None


def write_gray_range(path, gray_range):
    """Store the gray range of the training data in an exported model, unless it is the full range.

    A SavedModel folder has it in assets.extra, a .tflite file in the archive at its end.
    """
    if gray_range == pixels.FULL_RANGE:
        return
    path = pathlib.Path(path)
    if path.is_dir():
        files.write_json(path / "assets.extra" / _GRAY_RANGE, list(gray_range))
    else:
        append_member(path, _GRAY_RANGE, json.dumps(list(gray_range)))


def read_gray_range(path) -> tuple[int, int]:
    """The gray range in an exported model; the full range if it has none. Raises ValueError."""
    content = _read_gray_file(pathlib.Path(path))
    if content is None:
        return pixels.FULL_RANGE
    try:
        return pixels.check_gray_range(json.loads(content))
    except ValueError as error:
        raise ValueError(f"{path}: its {_GRAY_RANGE} is invalid ({error})") from None


def _read_gray_file(path):
    if path.is_dir():
        file = path / "assets.extra" / _GRAY_RANGE
        return file.read_bytes() if file.is_file() else None
    member = read_member(path, lambda names: _GRAY_RANGE if _GRAY_RANGE in names else None)
    return member and member[1]
