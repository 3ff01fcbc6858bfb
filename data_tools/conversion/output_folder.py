"""The folder that a conversion writes to: held by one conversion at a time, and its troubles told in one line."""

import contextlib
import errno
import os
import sqlite3

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG)


@contextlib.contextmanager
def lock_folder(folder):
    """Makes the folder and holds it. A second conversion into it meanwhile, which could mix up the classes, is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        # The hold ends with the process, however that ends. Some file systems have no locks: then there is none.
        with contextlib.suppress(OSError):
            _hold(handle, folder)
        yield
    finally:
        os.close(handle)


def _hold(handle, folder):
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"another conversion is writing to {folder}: wait for its end, or give another --output"
        ) from None


@contextlib.contextmanager
def explain_write_errors(folder):
    """A full disk or a folder that may not be written, as one line that says so."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(
            f"cannot sort the annotations in a temporary file: {error}; is the disk full?"
        ) from None
    except (FileExistsError, NotADirectoryError):
        raise OSError(
            f"cannot write to {folder}: it, or a folder above it, is a file; give another --output"
        ) from None
    except OSError as error:
        if error.errno not in _FULL_OR_CLOSED:
            raise
        where = error.filename or folder
        raise OSError(
            f"cannot write to {where}: {error.strerror}; free some space there or give another --output"
        ) from None
