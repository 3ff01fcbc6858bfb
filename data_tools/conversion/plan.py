"""The plan file: every labelled picture as a line on disk, for data sets of any size, and for workers to share."""

import array
import dataclasses

import numpy as np

from data_tools.readers import labels


@dataclasses.dataclass(frozen=True)
class Plan:
    """offsets [n]: where each picture's line begins; seen: class names met; classes_of [n]: those of each picture, if asked."""

    path: str
    offsets: np.ndarray
    seen: frozenset
    classes_of: list[frozenset]


def write_plan(images, path, keep_classes) -> Plan:
    """Writes one line per picture; keep_classes: whether to note the classes of each (for splitting)."""
    offsets, seen, classes_of, shared = array.array("q"), set(), [], {}
    with open(path, "wb") as file:
        for image in images:
            offsets.append(file.tell())
            file.write(labels.to_line(image).encode() + b"\n")
            names = frozenset(thing.name for thing in image.objects if not thing.fault)
            seen |= names
            if keep_classes:
                classes_of.append(shared.setdefault(names, names))
    return Plan(str(path), np.array(offsets, np.int64), frozenset(seen), classes_of)
