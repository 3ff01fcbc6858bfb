"""The plan file: one line per labelled image, on disk for data sets of any size and all workers."""

import array
import dataclasses
import os

import numpy as np

from data_tools.conversion.census import Census
from data_tools.readers import labels

NO_FILE = 0  # the hash of an image for which the labels name no file


@dataclasses.dataclass(frozen=True)
class Plan:
    """offsets [n]: where each image's line begins; file_hashes [n]: hash_path of its file.

    folders: those of the files; class_names: those seen in the objects; classes_of [n]: the class
    names of each image, if asked for; census: what was understood of the labels.
    """

    path: str
    offsets: np.ndarray
    file_hashes: np.ndarray
    folders: frozenset[str]
    class_names: frozenset[str]
    classes_of: list[frozenset[str]]
    census: Census


def write_plan(images, path, keep_classes, boxes=None) -> Plan:
    """Write one line per image.

    keep_classes: whether to note the classes of each, for a split; boxes: the unit of boxes that
    the user gives, or None.
    """
    census = Census(boxes)
    offsets = array.array("q")
    file_hashes = array.array("q")
    folders = set()
    class_names = set()
    classes_of = []
    shared = {}  # images of the same classes hold one set in memory
    with open(path, "wb") as file:
        for image in images:
            offsets.append(file.tell())
            file_hashes.append(hash_path(image.path))
            folders.add(os.path.dirname(image.path))
            file.write(labels.to_line(image).encode() + b"\n")
            census.add(image)
            names = frozenset(obj.name for obj in image.objects if obj.names_class)
            class_names |= names
            if keep_classes:
                classes_of.append(shared.setdefault(names, names))
    return Plan(
        str(path),
        np.array(offsets, np.int64),
        np.array(file_hashes, np.int64),
        frozenset(folders),
        frozenset(class_names),
        classes_of,
        census,
    )


def hash_path(path) -> int:
    """8 bytes per path, so that those of a large data set fit in memory. Differs per process."""
    return hash(os.path.normpath(path)) if path else NO_FILE
