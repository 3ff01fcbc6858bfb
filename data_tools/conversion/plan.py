"""The plan file: every labelled picture as a line on disk, for data sets of any size, and for workers to share."""

import array
import dataclasses
import os

import numpy as np

from data_tools.readers import labels


@dataclasses.dataclass(frozen=True)
class Plan:
    """offsets [n]: where each picture's line begins; files [n]: hash_path of its file, 0 where it has none.

    folders: those of the files; seen: class names met; classes_of [n]: those of each picture, if asked.
    """

    path: str
    offsets: np.ndarray
    files: np.ndarray
    folders: frozenset
    seen: frozenset
    classes_of: list[frozenset]


def write_plan(images, path, keep_classes) -> Plan:
    """Writes one line per picture; keep_classes: whether to note the classes of each (for splitting)."""
    offsets, files, folders = array.array("q"), array.array("q"), set()
    seen, classes_of, shared = set(), [], {}
    with open(path, "wb") as file:
        for image in images:
            offsets.append(file.tell())
            files.append(hash_path(image.path))
            folders.add(os.path.dirname(image.path))
            file.write(labels.to_line(image).encode() + b"\n")
            names = frozenset(thing.name for thing in image.objects if not thing.fault)
            seen |= names
            if keep_classes:
                classes_of.append(shared.setdefault(names, names))
    arrays = np.array(offsets, np.int64), np.array(files, np.int64)
    return Plan(str(path), *arrays, frozenset(folders), frozenset(seen), classes_of)


def hash_path(path) -> int:
    """8 bytes, so that the paths of a large data set can be held and compared; 0 for none. It differs from process to process."""
    return hash(os.path.normpath(path)) if path else 0
