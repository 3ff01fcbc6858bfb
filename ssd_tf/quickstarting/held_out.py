"""The files of the images of a converted split, found again by name and digest."""

import collections
import hashlib
import json
import os
import pathlib

from data_tools.conversion import report


def find_images(images, data, split, maximum) -> list[pathlib.Path]:
    """The paths of the first images of a split, in its order; those that are gone are left out.

    images: the folder that was converted. data: the folder of TFRecords. maximum: of paths.
    """
    by_name = collections.defaultdict(list)
    for parent, folders, names in os.walk(images):
        folders.sort()
        for name in sorted(names):
            by_name[name].append(pathlib.Path(parent, name))
    found = []
    with report.open_digests(report.digests_path(data, split)) as file:
        for line in file:
            digest, _, escaped = line.rstrip("\n").partition("\t")
            name = pathlib.PurePosixPath(json.loads(f'"{escaped}"')).name
            same = [path for path in by_name[name] if _digest(path) == digest]
            found += same[:1]
            if len(found) == maximum:
                break
    return found


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
