"""Findings about the labels as a whole: entries that share a file, images without labels, ..."""

import collections
import os

import numpy as np

from data_tools.conversion import plan, shard_writer
from data_tools.conversion.counts import Dropped, Finding
from data_tools.readers import files, labels

SHARED = "several entries for one file"
UNLABELLED = "images that the labels do not name"


def collect_findings(source, planned) -> dict[str, Finding]:
    """{what: Finding}, only what occurs. `source.images` must have been read to its end."""
    found = {SHARED: _find_shared(planned), UNLABELLED: _find_unlabelled(source, planned)}
    for what, tally in source.unused.items():
        found[what] = Finding(tally.count, tally.first)
    return {what: finding for what, finding in found.items() if finding.count}


def refuse_findings(findings, strays):
    """Raise StrictError if labels would be unused, or a file used twice (--strict).

    Images without labels are accepted: they may lie beside the labelled ones.
    """
    if strays.count:
        first = Dropped(**strays.first[0])
        raise shard_writer.StrictError(
            f"--strict: {first.file}: a box is dropped ({first.reason}): {first.box}"
        )
    for what, finding in findings.items():
        if what != UNLABELLED:
            raise shard_writer.StrictError(
                f"--strict: {what}: {finding.count:,}, the first {finding.first[0]}"
            )


def count_strays(counts, strays):
    """Count the objects of images that are not listed as dropped boxes of a split."""
    if strays.count:
        counts.dropped_boxes[strays.first[0]["reason"]] += strays.count
        named = counts.first_dropped_boxes
        named += [Dropped(**stray) for stray in strays.first[: labels.NAMED - len(named)]]


def _find_shared(planned):
    hashes, num_entries = np.unique(planned.file_hashes, return_counts=True)
    repeated = hashes[(num_entries > 1) & (hashes != plan.NO_FILE)]
    entries = collections.defaultdict(list)
    if len(repeated):
        with open(planned.path, "rb") as file:
            for offset in planned.offsets[np.isin(planned.file_hashes, repeated)]:
                file.seek(offset)
                image = labels.from_line(file.readline())
                path = os.path.normpath(image.path)
                if path in entries or len(entries) < labels.NAMED:
                    entries[path].append(f"{image.filename} (id {image.source_id})")
    return Finding(len(repeated), [" = ".join(names) for names in entries.values()])


def _find_unlabelled(source, planned):
    """Images in the source's folder, and in the folders of labelled images, that have no labels."""
    if source.folder is None:
        return Finding(0, [])
    labelled = np.sort(planned.file_hashes)
    folders = {os.path.normpath(path) for path in (source.folder, *planned.folders) if path}
    count = 0
    first = []
    for folder in sorted(folders):
        names = [
            os.path.relpath(path, source.folder)
            for path in _list_images(folder)
            if not _has_labels(path, labelled, source)
        ]
        count += len(names)
        first += sorted(names)[: labels.NAMED]
    return Finding(count, first[: labels.NAMED])


def _list_images(folder):
    try:
        with os.scandir(folder) as entries:
            yield from (entry.path for entry in entries if files.is_image(entry.name))
    except OSError:  # a folder that the labels name and that does not exist
        return


def _has_labels(path, labelled, source):
    """labelled: the sorted path hashes of all labelled images."""
    path_hash = plan.hash_path(path)
    index = np.searchsorted(labelled, path_hash)
    if index < len(labelled) and labelled[index] == path_hash:
        return True
    return bool(source.is_labelled and source.is_labelled(path))
