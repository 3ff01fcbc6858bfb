"""The formats of an export, and its folder, which is replaced when the new one is complete."""

import contextlib
import json
import os
import pathlib
import shutil

from absl import logging

from ssd_tf import files
from ssd_tf.config import nearest
from ssd_tf.errors import ConfigError
from ssd_tf.exporting import mediapipe_files
from ssd_tf.inference.thresholds import THRESHOLDS_FILE
from ssd_tf.user_files import check_output_folder

PRECISIONS = ("float32", "float16", "dynamic", "int8")
FORMATS = (
    "saved_model",
    *(f"tflite_{precision}" for precision in PRECISIONS),
    *(f"tflite_{precision}_raw" for precision in PRECISIONS),
    "web",
)
MIN_CALIBRATION_IMAGES = 10  # of int8
DEFAULT_FORMATS = ("saved_model", "tflite_float32")
REPORT = "export.json"
_PARTIAL = ".export.partial"


def file_name(name):
    """The file, or the folder, of a format."""
    if name in ("saved_model", "web"):
        return name
    return f"model_{name.removeprefix('tflite_')}.tflite"


def is_calibrated(name):
    """Whether the format needs images to be calibrated on."""
    return name.startswith("tflite_int8")


def has_operator(name):
    """Whether the format's post-processing is the TFLite operator."""
    return name != "saved_model" and not name.endswith("_raw")


def check_request(output, formats, data=None, max_ap_drop=None, overwrite=False, web_files=None):
    """Raise ConfigError or OSError for an export that cannot succeed; see `export.export`."""
    _check_formats(formats)
    needs_images = list(filter(is_calibrated, formats))
    if needs_images and not data:
        raise ConfigError(f"{needs_images[0]} needs --data DIR, whose images calibrate it")
    if max_ap_drop is not None and not data:
        raise ConfigError("--max_ap_drop needs --data DIR to measure AP on")
    if web_files is not None:
        if "web" not in formats:
            raise ConfigError("--web_files has no effect without the format web")
        mediapipe_files.check(web_files)
    output = pathlib.Path(output).resolve()
    check_output_folder(output)
    existing = next(path for path in (output, *output.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise PermissionError(f"--output: {existing} is not writable")
    if output.is_dir() and has_content(output) and not overwrite:
        raise FileExistsError(
            f"{output} already exists and is not empty; give --overwrite to replace exports in it"
        )


def _check_formats(formats):
    if not formats:
        raise ConfigError(f"--formats: name at least one of {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            several = [known for known in FORMATS if name and known.startswith(name)]
            hint = nearest(name, FORMATS) if len(several) < 2 else f"; give {', '.join(several)}"
            raise ConfigError(f"--formats: unknown format {name!r}{hint}")


def has_content(output) -> bool:
    """Whether a folder has more than what an export left that was killed."""
    return any(path.name != _PARTIAL for path in output.iterdir())


def list_files(folder) -> list[str]:
    """The files below a folder, as paths relative to it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in paths]


@contextlib.contextmanager
def publishing(output):
    """A context with an empty folder, whose files replace those of the last export at its end.

    output: resolved. Files that no export wrote stay. An exception leaves `output` as it was.
    """
    if not output.exists():
        with files.new_folder(output) as partial:
            yield partial
        return
    # Inside the folder: its parent may be on another file system, or not be writable.
    partial = output / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        _replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(partial, output):
    """Move the files into place, export.json last: its presence means complete."""
    _check_kinds(partial, output)
    old = _list_old_files(output)
    (output / REPORT).unlink(missing_ok=True)
    removed = [name for name in old if _remove(name, output)]
    for path in sorted(partial.iterdir(), key=lambda path: path.name == REPORT):
        _move(path, output / path.name)
    removed = {name.partition("/")[0] for name in removed}
    removed = sorted(name for name in removed if not (output / name).exists())
    if removed:
        logging.info("removed, of the export before: %s", ", ".join(removed))


def _check_kinds(partial, output):
    """Raise FileExistsError for a file that is in the way of a folder, or a folder of a file."""
    for path in sorted(partial.rglob("*")):
        target = output / path.relative_to(partial)
        if target.exists() and target.is_dir() != path.is_dir():
            kind = "folder" if path.is_dir() else "file"
            raise FileExistsError(f"{target} is in the way of a {kind} of the export; move it away")


def _list_old_files(output):
    """What the last export wrote: paths relative to the folder."""
    try:
        names = json.loads((output / REPORT).read_text(encoding="utf-8"))["files"]
        if all(isinstance(name, str) for name in names):
            return names
    except (OSError, ValueError, KeyError, TypeError):  # an export was killed while it replaced
        pass
    known = [*map(file_name, FORMATS), "labels.txt", "default_boxes.json", "raw_decoder.py"]
    known.append(THRESHOLDS_FILE)
    folders = [output / name for name in known if (output / name).is_dir()]
    inside = [f"{path.name}/{name}" for path in folders for name in list_files(path)]
    return inside + [name for name in known if (output / name).is_file()]


def _remove(name, output) -> bool:
    """Remove a file, and the folders in `output` that are empty then; nothing outside of it."""
    relative = pathlib.PurePosixPath(name)
    path = output / relative
    if relative.is_absolute() or ".." in relative.parts or not path.is_file():
        return False
    if not path.parent.resolve().is_relative_to(output):  # by way of a link
        return False
    path.unlink()
    for parent in relative.parents[:-1]:  # the last is `output` itself
        folder = output / parent
        for inner in [*folder.iterdir(), folder]:
            with contextlib.suppress(OSError):  # it is a file, or not empty
                inner.rmdir()
    return True


def _move(source, target):
    """Move a file or a folder; the files of a folder join those that are there."""
    if source.is_dir() and target.is_dir():
        for path in source.iterdir():
            _move(path, target / path.name)
    else:
        source.replace(target)
