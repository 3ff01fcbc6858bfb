"""Files of the user: guarded reads, and the one reader of their text."""

import codecs
import contextlib
import difflib
import io
import itertools
import os
import pathlib
import stat

MAX_LABEL_BYTES = 1 << 26  # labels of one image, a data.yaml, a list of classes
MAX_LIST_BYTES = 1 << 30  # a list of images: about ten million lines
_MAX_NAMES = 2000  # of a folder, that a name is compared with
# Programs of Windows begin text in UTF-16 with one of these.
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARK_BYTES = 4  # those that show the encoding of a file
# Folders that `ssd quickstart` makes in one that the user has named.
_GENERIC = ("run", "data")


class NotRegularFileError(OSError):
    """A FIFO, a device or a socket under the name of a file."""


class FileTooLargeError(ValueError):
    """A file above the limit of its kind. size: bytes, at least."""

    def __init__(self, path, size, limit):
        super().__init__(f"{path} is too large: {size} bytes; the limit is {limit}")
        self.size = size


@contextlib.contextmanager
def open_regular(path):
    """A context with a regular file that is open for reading bytes.

    Devices have no end, and opening a FIFO waits for its writer: raises NotRegularFileError
    instead. The opened file is checked, not its name, which may change meanwhile.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotRegularFileError(f"{path} is not a regular file")
        yield file


@contextlib.contextmanager
def open_text(path, newline=None):
    """A context with a regular file that is open for reading text, in parts if it is large.

    newline: as `open` takes it. Reading raises UnicodeError for text in another encoding than those
    of `read_text`.
    """
    with open_regular(path) as data:
        encoding = find_encoding(data.read(_MARK_BYTES))
        data.seek(0)
        with io.TextIOWrapper(data, encoding, newline=newline) as file:
            yield file


def check_exists(path, what):
    """Raise FileNotFoundError for a missing path; what: of which kind, for the message."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"no {what} at {path}{suggest_path(path)}")


def show_name(folder) -> str:
    """The name of a run or a data set for titles: its folder's, or that above one called `run`."""
    path = pathlib.Path(folder).resolve()
    return path.parent.name or path.name if path.name in _GENERIC else path.name


def check_output_folder(path, flag="--output"):
    """Raise FileExistsError if a file is in the way of a folder; flag: what the message names."""
    path = pathlib.Path(path)
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{flag}: {folder} is a file; name a folder")


def suggest_path(path) -> str:
    """The end of a message about a missing path: `; did you mean ...?`, or empty."""
    path = pathlib.Path(path)
    if path.exists():  # as something else than the caller expects
        return ""
    for parent in path.parents:
        if not parent.is_dir():
            continue
        wrong, *rest = path.relative_to(parent).parts
        try:
            names = sorted(itertools.islice(os.listdir(parent), _MAX_NAMES))
        except OSError:
            return ""
        folded = {name.casefold(): name for name in names}
        for close in difflib.get_close_matches(wrong.casefold(), list(folded), n=3, cutoff=0.7):
            found = parent.joinpath(folded[close], *rest)
            if found.exists():
                return f"; did you mean {found}?"
        return ""
    return ""


def _open_without_waiting(path, flags):
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def read_bytes(path, limit) -> bytes:
    """Read a regular file of at most `limit` bytes; else raise FileTooLargeError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise FileTooLargeError(path, size, limit)
        # `or`: a file of /proc gives None when it would have to wait.
        data = file.read(size + 1) or b""
        if len(data) > size:  # it grows, or it is one of those whose size is given as 0
            data += file.read(limit + 1 - len(data)) or b""
    if len(data) > limit:
        raise FileTooLargeError(path, len(data), limit)
    return data


def read_text(path, errors="strict", limit=MAX_LABEL_BYTES) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    errors: as `bytes.decode` takes it. Raises OSError, FileTooLargeError, or ValueError for another
    encoding; the message names the file.
    """
    return decode_text(read_bytes(path, limit), path, errors)


def decode_text(data, path, errors="strict") -> str:
    """The text in bytes that were read from `path`, as `read_text` understands it."""
    try:
        return data.decode(find_encoding(data), errors)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in UTF-8, got byte 0x{data[error.start]:02x} at offset "
            f"{error.start}; save the file as UTF-8"
        ) from None


def find_encoding(data) -> str:
    """The encoding of text that begins with these bytes."""
    return "utf-16" if data.startswith(_UTF16_MARKS) else "utf-8-sig"


def read_lines(path, errors="strict", limit=MAX_LABEL_BYTES) -> list[str]:
    """The lines of a text file as `read_text` reads it, without blanks at their ends."""
    return [line.strip() for line in split_lines(read_text(path, errors, limit))]


def split_lines(text) -> list[str]:
    r"""Split text at \n, \r\n and \r only; a line break at the end begins no further line.

    `str.splitlines` also splits at characters that may stand inside a name, such as U+2028.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
