"""The output folder of a conversion: locked by one conversion at a time, write errors explained."""

import contextlib
import errno
import sqlite3

from ssd_tf import files

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG)


def lock_folder(folder):
    """Create and lock the folder; a second conversion into it could mix up the classes.

    Inside `with`. Raises ValueError if another conversion holds the lock.
    """
    refusal = (
        f"another conversion is writing to {folder}: wait until it ends, or give another --output"
    )
    return files.lock_folder(folder, refusal)


@contextlib.contextmanager
def explain_write_errors(folder):
    """Turn a full disk or a folder that cannot be written into one line that says so."""
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
        if error.errno not in (*_FULL, *_NOT_WRITABLE):
            raise
        raise OSError(
            f"cannot write to {error.filename or folder}: {error.strerror}; "
            f"{advise(error.errno in _FULL)}"
        ) from None


def advise(is_full) -> str:
    """What to do about a write error; is_full: whether the disk or the quota is used up."""
    remedy = "free some space there" if is_full else "check the path and its permissions"
    return f"{remedy} or give another --output"
