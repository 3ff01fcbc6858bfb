"""Finds equal picture files within a split and across splits, by the `SPLIT-images.tsv` that each conversion leaves."""

import array
import json
import pathlib

import numpy as np

from data_tools.readers import labels


def digest_file(folder, split) -> pathlib.Path:
    """One line per stored picture: 16 hexadecimal digits of its file's SHA-256, a tab, its file name escaped as in JSON."""
    return pathlib.Path(folder) / f"{split}-images.tsv"


def open_digests(path, mode="r"):
    return open(
        path, mode, encoding="utf-8", errors="surrogateescape"
    )  # file names need not be Unicode


def write_digests(file, digests):
    for digest, name in digests:
        file.write(f"{digest}\t{json.dumps(name, ensure_ascii=False)[1:-1]}\n")


def find_within(folder, split) -> dict:
    """-> {"groups", "images", "files": the first hundred groups of equal files}."""
    digests = _read(folder, split)
    values, counts = np.unique(digests, return_counts=True)
    repeated = values[counts > 1]
    groups = _names(folder, split, repeated)
    return {
        "groups": len(repeated),
        "images": int(counts[counts > 1].sum()),
        "files": list(groups.values()),
    }


def find_across(folder, split, other) -> dict:
    """-> {"images": how many of `split` are in `other` too, "files": the first hundred groups, with names of both}."""
    mine = _read(folder, split)
    shared = np.intersect1d(mine, _read(folder, other))
    here, there = _names(folder, split, shared), _names(folder, other, shared)
    files = [
        {split: names, other: there[digest]} for digest, names in here.items() if digest in there
    ]
    return {"images": int(np.isin(mine, shared).sum()), "files": files}


def _read(folder, split):
    digests = array.array("Q")
    path = digest_file(folder, split)
    if path.is_file():
        with open_digests(path) as file:
            digests.extend(int(line[:16], 16) for line in file)
    return np.array(digests, np.uint64)


def _names(folder, split, digests):
    """Names of the pictures with these digests [n], by digest, for the first hundred digests that are met."""
    wanted, names = set(digests.tolist()), {}
    if not wanted:
        return names
    with open_digests(digest_file(folder, split)) as file:
        for line in file:
            digest = int(line[:16], 16)
            if digest in wanted and (digest in names or len(names) < labels.NAMED):
                names.setdefault(digest, []).append(json.loads(f'"{line[17:-1]}"'))
    return names
