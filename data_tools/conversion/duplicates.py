"""Finds identical image files within a split and across splits.

Every conversion leaves `SPLIT-images.tsv` for this: the digests and names of the files.
"""

import array
import json
import pathlib

import numpy as np

from data_tools.readers import labels


def digests_path(folder, split) -> pathlib.Path:
    """The file with the digests of a split.

    One line per stored image: 16 hexadecimal digits of its file's SHA-256, a tab, its file name
    escaped as in JSON.
    """
    return pathlib.Path(folder) / f"{split}-images.tsv"


def open_digests(path, mode="r"):
    """Open a file of digests; file names need not be Unicode."""
    return open(path, mode, encoding="utf-8", errors="surrogateescape")


def write_digests(file, digests):
    """digests: counts.ImageDigest of each image."""
    for digest, name in digests:
        file.write(f"{digest}\t{json.dumps(name, ensure_ascii=False)[1:-1]}\n")


def find_within(folder, split) -> dict:
    """{"groups", "images", "files": the first hundred groups of identical files}."""
    digests = _read_digests(folder, split)
    values, num_images = np.unique(digests, return_counts=True)
    repeated = values[num_images > 1]
    groups = _find_names(folder, split, repeated)
    return {
        "groups": len(repeated),
        "images": int(num_images[num_images > 1].sum()),
        "files": list(groups.values()),
    }


def find_across(folder, split, other) -> dict:
    """{"images": how many of `split` are in `other` too, "files": the first hundred groups}."""
    digests = _read_digests(folder, split)
    shared = np.intersect1d(digests, _read_digests(folder, other))
    here = _find_names(folder, split, shared)
    there = _find_names(folder, other, shared)
    files = [
        {split: names, other: there[digest]} for digest, names in here.items() if digest in there
    ]
    return {"images": int(np.isin(digests, shared).sum()), "files": files}


def _read_digests(folder, split):
    digests = array.array("Q")
    path = digests_path(folder, split)
    if path.is_file():
        with open_digests(path) as file:
            digests.extend(int(line[:16], 16) for line in file)
    return np.array(digests, np.uint64)


def _find_names(folder, split, digests):
    """{digest: names of its images}, for the first hundred of `digests` in the split's order."""
    sought = set(digests.tolist())
    names = {}
    if not sought:
        return names
    with open_digests(digests_path(folder, split)) as file:
        for line in file:
            digest = int(line[:16], 16)
            if digest in sought and (digest in names or len(names) < labels.NAMED):
                names.setdefault(digest, []).append(json.loads(f'"{line[17:-1]}"'))
    return {digest: sorted(found) for digest, found in names.items()}
