"""What belongs to no picture, or to several: pictures without labels, labels without a picture, several entries for one file."""

import collections
import os

import numpy as np

from data_tools.conversion import plan, shard_writer
from data_tools.readers import labels

SHARED = "several entries for one file"
UNLABELLED = "images that the labels do not name"


def find_remarks(source, planned) -> dict:
    """source: read to its end -> {what: {"count", "first": the first hundred names}}."""
    found = {SHARED: _find_shared(planned), UNLABELLED: _find_unlabelled(source, planned)}
    found |= {what: (tally.count, tally.first) for what, tally in source.unused.items()}
    return {
        what: {"count": count, "first": first} for what, (count, first) in found.items() if count
    }


def refuse(found, strays):
    """--strict: raises at what would not be used, or twice; photos without labels may lie beside the others."""
    if strays.count:
        first = strays.first[0]
        raise shard_writer.Problem(
            f"--strict: {first['file']}: a box is dropped ({first['reason']}): {first['box']}"
        )
    for what, names in found.items():
        if what != UNLABELLED:
            raise shard_writer.Problem(
                f"--strict: {what}: {names['count']:,}, the first {names['first'][0]}"
            )


def add_to(account, found, strays):
    """Into the account of a split; objects of pictures that are not listed count as dropped boxes."""
    account["remarks"] = found
    if strays.count:
        account["dropped_boxes"][strays.first[0]["reason"]] += strays.count
        account["dropped"] = [*account["dropped"], *strays.first][: labels.NAMED]


def _find_shared(planned):
    """-> how many files have several entries, and names of the first hundred."""
    hashes, counts = np.unique(planned.files, return_counts=True)
    repeated = set(hashes[(counts > 1) & (hashes != 0)].tolist())
    names = collections.defaultdict(list)
    if repeated:
        with open(planned.path, "rb") as file:
            for offset in planned.offsets[np.isin(planned.files, list(repeated))]:
                file.seek(offset)
                image = labels.from_line(file.readline())
                path = os.path.normpath(image.path)
                if path in names or len(names) < labels.NAMED:
                    names[path].append(f"{image.filename} (id {image.source_id})")
    return len(repeated), [" = ".join(entries) for entries in names.values()]


def _find_unlabelled(source, planned):
    """-> how many pictures beside those of the labels have none, and names of the first hundred."""
    if source.folder is None:
        return 0, []
    labelled, count, first = np.sort(planned.files), 0, []
    for folder in sorted(
        {os.path.normpath(path) for path in (source.folder, *planned.folders) if path}
    ):
        names = [
            os.path.relpath(path, source.folder)
            for path in _list_images(folder)
            if not _has_labels(path, labelled, source)
        ]
        count, first = count + len(names), first + sorted(names)[: labels.NAMED]
    return count, first[: labels.NAMED]


def _list_images(folder):
    try:
        with os.scandir(folder) as entries:
            yield from (
                entry.path for entry in entries if entry.name.lower().endswith(labels.SUFFIXES)
            )
    except OSError:  # a folder that the labels name and that is not there
        return


def _has_labels(path, labelled, source):
    hashed = plan.hash_path(path)
    at = np.searchsorted(labelled, hashed)
    return (at < len(labelled) and labelled[at] == hashed) or bool(
        source.is_labelled and source.is_labelled(path)
    )
