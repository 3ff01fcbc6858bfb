"""The folder of an export: written beside its place, and moved there when it is complete."""

import contextlib
import json
import pathlib
import shutil

from absl import logging

from ssd_tf.exporting.formats import FORMATS, file_name

REPORT = "export.json"
_PARTIAL = ".export.partial"
# What exports wrote that have no list of their files.
_KNOWN_NAMES = (*map(file_name, FORMATS), "labels.txt", "default_boxes.json", "raw_decoder.py")


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
    # Within a folder that exists: its parent may be on another file system, or not be writable.
    is_new = not output.exists()
    partial = output.with_name(f".{output.name}{_PARTIAL}") if is_new else output / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if is_new:
            partial.rename(output)
        else:
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
    except (OSError, ValueError, KeyError, TypeError):  # none, or of an earlier version
        pass
    folders = [output / name for name in _KNOWN_NAMES if (output / name).is_dir()]
    inside = [f"{path.name}/{name}" for path in folders for name in list_files(path)]
    return inside + [name for name in _KNOWN_NAMES if (output / name).is_file()]


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
