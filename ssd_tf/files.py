"""Atomic writes (a reader finds the old content or the new, never a part of either), and locks."""

import contextlib
import json
import os
import pathlib
import shutil

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


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


@contextlib.contextmanager
def new_folder(path, replace=False):
    """A context with a temporary folder beside `path`, which takes that name at the end.

    An error leaves `path` as it was. Raises OSError if there is a folder that is not empty, unless
    `replace`.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir():
            path.rmdir()
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def json_list(file):
    """A context with a function that appends values, as JSON texts, to a list in an open text file.

    The list is closed however the context ends, so that what came before an error can be read.
    """
    separator = "\n"
    file.write("[")

    def append(texts):
        nonlocal separator
        if texts:
            file.write(separator + ",\n".join(texts))
            separator = ",\n"

    try:
        yield append
    finally:
        file.write("\n]\n")


@contextlib.contextmanager
def lock_folder(folder, message=None):
    """Create a folder and lock it, for one process at a time; remove it if it stays empty.

    Raises ValueError with the text `message` if another process holds the lock; waits for it
    without one.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    handle = None if fcntl is None else os.open(folder, os.O_RDONLY)
    try:
        if handle is not None:
            _lock(handle, message)
        yield
    finally:
        if handle is not None:
            os.close(handle)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _lock(handle, message):
    """The lock ends with the process, however that ends."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if message else 0))
    except BlockingIOError:
        raise ValueError(message) from None
    except OSError:  # some file systems have no locks: then there is none
        return
