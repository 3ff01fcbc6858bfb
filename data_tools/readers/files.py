"""Finding and reading the files that labels name.

A label file may come from anywhere, so the paths in it are not trusted: only regular files are
read, up to a limit, and images only below their folder unless the user allows more.
"""

import dataclasses
import functools
import os
import pathlib
import re
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ssd_tf import pixels
from ssd_tf.user_files import NotRegularFileError, suggest_path

IMAGE_SUFFIXES = pixels.SUFFIXES  # compared in lower case

MAX_PATH_BYTES = 4096  # Linux opens no longer path
_NUM_SHOWN = 100  # characters of a longer path
_FOLDERS_KEPT = 64  # listings of folders in memory
_URL_PATH = re.compile(r"\?(?:.*&)?d=([^&#]+)")  # of a file that Label Studio serves


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
    def _list(self):
        return functools.lru_cache(_FOLDERS_KEPT)(list_images)

    @functools.cached_property
    def _spellings(self):
        return [path for folder in self.folders for path in spell_folder(folder)]

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
        folders = " or ".join(map(normalize, self.folders))
        fault = f"outside the image folder: {path} is not in {folders}"
        return FoundImage(pathlib.Path(path), f"{fault}; use --allow_outside to accept it")

    def locate(self, folder, name) -> str:
        """The path of an image: the first of `find` that may be read, else choose's."""
        return self.choose(self.find(folder, name), os.path.join(folder, name))

    def find(self, folder, name) -> Iterator[str]:
        """Yield the files in `folder` that `name` may mean, the likeliest first.

        A file of that name; of that stem, however its case, suffix, Unicode form and
        percent-encoding are written; and either with the last part of the name only. Backslashes
        of Windows may stand for slashes, and the name may be an address.
        """
        if len(name) > MAX_PATH_BYTES:
            return
        written = os.path.join(folder, name)
        if os.path.isfile(written):  # unlike Path.is_file, takes names that no file can have
            yield written
        for exact in dict.fromkeys(list_candidates(folder, name)):
            if exact != written and os.path.isfile(exact):
                yield exact
            for path in self._find_alike(exact):
                if path not in (exact, written):
                    yield path

    def _find_alike(self, path):
        folder, name = os.path.split(path)
        stem = split_stem(name)
        alike = self._list(folder).get(spell_alike(stem), ())
        for other in sorted(alike, key=lambda other: _rank(other, stem)):
            path = os.path.join(folder, other)
            if os.path.isfile(path):
                yield path

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
    """True if a normalised path is the normalised folder or lies below it."""
    return path == folder or path.startswith(os.path.join(folder, ""))


def shorten(path) -> str:
    """The path, or the end of one that is longer than any file's."""
    return path if len(path) <= MAX_PATH_BYTES else "..." + path[-_NUM_SHOWN:]


def list_candidates(folder, name) -> Iterator[str]:
    """Yield the paths that a name may mean: each way to read it, and its last part alone."""
    slashed = name.replace("\\", "/")
    ways = [name, slashed]
    address = _URL_PATH.search(slashed)
    if address:
        ways.append(urllib.parse.unquote(address[1]))
    if "?" in slashed:
        ways.append(slashed.partition("?")[0])
    if "%" in slashed:
        ways.append(urllib.parse.unquote(ways[-1]))
    for way in ways:
        path = pathlib.Path(folder, way)
        yield from (str(path), os.path.join(folder, path.name))


def _rank(name, stem):
    suffix = os.path.splitext(name)[1].lower()
    return split_stem(name) != stem, IMAGE_SUFFIXES.index(suffix), name


def is_image(name) -> bool:
    """True if a file's name has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def split_stem(name) -> str:
    """A file's name without the suffix of an image; other suffixes belong to the stem."""
    return os.path.splitext(name)[0] if is_image(name) else name


def spell_alike(stem) -> str:
    """The common form of stems that differ in case, Unicode form or percent-encoding only."""
    return unicodedata.normalize("NFC", urllib.parse.unquote(stem)).casefold()


def list_images(folder) -> dict[str, list[str]]:
    """The images in a folder as list_alike gives them."""
    return list_alike(folder, lambda name: split_stem(name) if is_image(name) else None)


def list_alike(folder, stem_of: Callable[[str], str | None]) -> dict[str, list[str]]:
    """{spell_alike(stem): names in order} of the folder's files for which `stem_of` gives a stem.

    Empty if there is no such folder.
    """
    alike = {}
    try:
        names = sorted(os.listdir(folder))
    except (OSError, ValueError):  # ValueError: a name that no folder can have
        return {}
    for name in names:
        stem = stem_of(name)
        if stem is not None:
            alike.setdefault(spell_alike(stem), []).append(name)
    return alike


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
    raise FileNotFoundError(f"{flag}: no folder at {path}{suggest_path(path)}")


def check_file(path, flag) -> pathlib.Path:
    """The path of a regular file; raises an OSError that names the flag."""
    path = pathlib.Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise IsADirectoryError(f"{flag}: {path} is a folder; give the file")
    if path.exists():
        raise NotRegularFileError(f"{flag}: {path} is not a regular file")
    raise FileNotFoundError(f"{flag}: no file at {path}{suggest_path(path)}")
