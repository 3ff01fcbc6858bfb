"""Finding and reading the files that labels name.

A label file may come from anywhere, so the paths in it are not trusted: only regular files are
read, up to a limit, and images only below their folder unless the user allows more.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ssd_tf import pixels
from ssd_tf.user_files import NotRegularFileError

IMAGE_SUFFIXES = (*pixels.SUFFIXES, *(suffix.upper() for suffix in pixels.SUFFIXES))

MAX_PATH_BYTES = 4096  # Linux opens no longer path
_NUM_SHOWN = 100  # characters of a longer path


class FoundImage(NamedTuple):
    """path: of the file, which may be absent. fault: why it must not be read; else empty."""

    path: pathlib.Path
    fault: str = ""

    @property
    def readable_path(self) -> str:
        """The path as LabeledImage holds it: empty if there is a fault."""
        return "" if self.fault else str(self.path)


@dataclasses.dataclass(frozen=True)
class ImageFolders:
    """The folders whose images labels may name, with all folders below them.

    allow_outside: whether labels may name files anywhere.
    """

    folders: tuple[str | os.PathLike, ...]
    allow_outside: bool = False

    @functools.cached_property
    def _spellings(self):
        return [place for folder in self.folders for place in spell_folder(folder)]

    def check(self, path) -> FoundImage:
        """Decide whether `path` may be read.

        The path decides, not what symbolic links in it lead to: data sets are often folders of
        links. A `..` is resolved in the text, for the decision and for the path that is returned.
        """
        path = os.fspath(path)
        num_bytes = len(os.fsencode(path))
        if num_bytes > MAX_PATH_BYTES:
            fault = f"path too long: {num_bytes} bytes; the limit is {MAX_PATH_BYTES}"
            return FoundImage(pathlib.Path(shorten(path)), fault)
        if self.allow_outside:
            return FoundImage(pathlib.Path(path))
        path = normalize(path)
        absolute = normalize(os.path.abspath(path))
        if any(is_within(absolute, folder) for folder in self._spellings):
            return FoundImage(pathlib.Path(path))
        places = " or ".join(map(normalize, self.folders))
        fault = (
            f"outside the image folder: {path} is not in {places}; use --allow_outside to accept it"
        )
        return FoundImage(pathlib.Path(path), fault)

    def locate(self, folder, name) -> str:
        """The path of an image: the first of find_images that may be read, else choose's."""
        return self.choose(find_images(folder, name), os.path.join(folder, name))

    def choose(self, paths: Iterable[str], absent: str) -> str:
        """The first path that may be read, else the first path, else `absent`.

        Labels may name an original file elsewhere although the folder holds a copy of it.
        """
        first = None
        for path in paths:
            if not self.check(path).fault:
                return path
            first = first or path
        return first or absent


def normalize(path) -> str:
    """The path with `.`, `..` and repeated slashes resolved in the text."""
    path = os.path.normpath(path)
    return path[1:] if path.startswith("//") else path  # POSIX lets normpath keep two


def spell_folder(folder) -> tuple[str, str]:
    """The absolute path of a folder, as written and without symbolic links."""
    absolute = normalize(os.path.abspath(folder))
    return absolute, os.path.realpath(absolute)


def is_within(path, folder) -> bool:
    """Whether a normalised path is the normalised folder or lies below it."""
    return path == folder or path.startswith(os.path.join(folder, ""))


def shorten(path) -> str:
    """The path, or the end of one that is longer than any file's."""
    return path if len(path) <= MAX_PATH_BYTES else "..." + path[-_NUM_SHOWN:]


def find_image(folder, name) -> pathlib.Path:
    """The first of find_images.

    Returns the path as written if there is no such file: whoever opens it reports it as absent.
    """
    return pathlib.Path(next(find_images(folder, name), os.path.join(folder, name)))


def find_images(folder, name) -> Iterator[str]:
    """Yield the files that `name` may mean: by name, by any usual extension, or by base name only.

    Backslashes of Windows may stand for slashes.
    """
    if len(name) > MAX_PATH_BYTES:
        return
    written = os.path.join(folder, name)
    if os.path.isfile(written):  # unlike Path.is_file, takes names that no file can have
        yield written
    slashed = pathlib.Path(folder, name.replace("\\", "/"))
    places = dict.fromkeys((written, str(slashed), os.path.join(folder, slashed.name)))
    for place in places:
        for path in (place, *_with_other_suffixes(place)):
            if path != written and os.path.isfile(path):
                yield path


def _with_other_suffixes(path):
    stem, suffix = os.path.splitext(path)
    return [(stem if suffix in IMAGE_SUFFIXES else path) + other for other in IMAGE_SUFFIXES]


def walk_files(folder) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below and its file names, in order.

    Links to folders are followed; no folder is visited twice.
    """
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield root, sorted(names)


def check_folder(path, flag) -> pathlib.Path:
    """The path of a folder; raises FileNotFoundError or NotADirectoryError that names the flag."""
    path = pathlib.Path(path)
    if path.is_dir():
        return path
    if path.exists():
        raise NotADirectoryError(f"{flag}: {path} is a file; give the folder")
    raise FileNotFoundError(f"{flag}: no folder at {path}")


def check_file(path, flag) -> pathlib.Path:
    """The path of a regular file; raises an OSError that names the flag."""
    path = pathlib.Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise IsADirectoryError(f"{flag}: {path} is a folder; give the file")
    if path.exists():
        raise NotRegularFileError(f"{flag}: {path} is not a regular file")
    raise FileNotFoundError(f"{flag}: no file at {path}")
