"""Groups of images that belong together: training on one and validating on another tells nothing.

They are identical files; copies that Roboflow augments; near-identical images; frames of one video.
"""

import collections
import itertools
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from data_tools.conversion import fingerprints
from data_tools.readers import files, labels

# `a.jpg` becomes `a_jpg.rf.HASH.jpg`, with another HASH for each augmented copy.
_ROBOFLOW = re.compile(r"(.+)\.rf\.[0-9A-Za-z]+")
_OLD_SUFFIX = re.compile(r"[._](?:jpe?g|png|bmp|webp|tiff?)$", re.IGNORECASE)
_VIDEO = r".*[._](?:mp4|avi|mov|mkv|webm|m4v|mpe?g|wmv|3gp|flv)"
_FRAME = re.compile(rf"({_VIDEO}|.*frame|.*frames)[-_. ]*(\d+)", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*?)(\d{3,})")
# Design rule for Camera File system (JEITA CP-3461): IMG_0001, DSC_0001, DSCN0001.
_PHOTO_OF_CAMERA = re.compile(r"[A-Z0-9_]{4}\d{4}")
_MAX_STEP = 100  # between the numbers of neighbouring frames, on average


class Grouping(NamedTuple):
    """group_of: int [n], the group of each image; notes: what they were made from, a line each."""

    group_of: np.ndarray
    notes: list[str]


def group_identical(prints) -> np.ndarray:
    """The group of each image, int [n]: that of its file. prints: Fingerprints."""
    digests = [int.from_bytes(each.digest[:8], "big") for each in prints]
    return np.unique(np.array(digests, np.uint64), return_inverse=True)[1]


def find_groups(paths, prints, classes_of) -> Grouping:
    """Group images by all that their files and names say.

    paths: of the files; prints: their Fingerprints; classes_of: frozensets of class names.
    Identical files are always one group. Other reasons count only as far as they leave something to
    divide: a group by one of them that holds over half of all images says nothing, and a reason
    that joins over half of all images with the groups before it is left out.
    """
    group_of = group_identical(prints)
    _, first = np.unique(group_of, return_index=True)
    thumbnails = [prints[index].thumbnail for index in first]
    similar = ((first[one], first[other]) for one, other in fingerprints.find_similar(thumbnails))
    reasons = (
        ("copies of one original (Roboflow)", _chain(_list_copies(paths))),
        ("near-identical images", similar),
        ("frames of one video, by their names", _chain(_list_clips(paths, classes_of))),
    )
    notes = []
    for what, pairs in reasons:
        own = _drop_large(join(np.arange(len(paths)), pairs))
        joined = join(group_of, _chain(_list_members(own)))
        if _is_divisible(joined):
            group_of = joined
            notes += _describe(what, own)
    return Grouping(group_of, notes)


def join(group_of, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """The groups that result if the groups of each pair of images are joined, int [n] from 0."""
    parent = list(range(int(group_of.max(initial=-1)) + 1))

    def find_root(group):
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for one, other in pairs:
        parent[find_root(group_of[one])] = find_root(group_of[other])
    roots = [find_root(group) for group in range(len(parent))]
    return np.unique(np.array(roots, np.int64)[group_of], return_inverse=True)[1]


def _chain(groups):
    """Pairs of neighbours, which join each list of images."""
    for members in groups:
        yield from itertools.pairwise(members)


def _list_members(group_of):
    """The images of each group of two or more."""
    order = np.argsort(group_of, kind="stable")
    starts = np.flatnonzero(np.diff(group_of[order])) + 1
    return [members for members in np.split(order, starts) if len(members) > 1]


def _is_large(num_members, num_images):
    return num_members > num_images / 2


def _is_divisible(group_of):
    return not _is_large(np.bincount(group_of).max(initial=0), len(group_of))


def _drop_large(group_of):
    """The groups without those of over half of the images, whose members are alone then."""
    is_large = _is_large(np.bincount(group_of), len(group_of))[group_of]
    num_groups = int(group_of.max(initial=-1)) + 1
    return np.where(is_large, num_groups + np.arange(len(group_of)), group_of)


def _describe(what, group_of):
    sizes = [len(members) for members in _list_members(group_of)]
    if sizes:
        groups = labels.count_of(len(sizes), "group")
        yield f"held out together: {sum(sizes):,} images in {groups} ({what})"


def _list_copies(paths):
    """The images of each name before `.rf.`, in their folder."""
    found = collections.defaultdict(list)
    for index, path in enumerate(paths):
        name = _ROBOFLOW.fullmatch(_stem(path))
        if name:
            found[os.path.dirname(path), name[1]].append(index)
    return [members for members in found.values() if len(members) > 1]


def _list_clips(paths, classes_of):
    """The images that are numbered like the frames of one video.

    `clip_mp4-12`, `clip.avi 12` and `clip_frame12` say so. Other names count if they have the same
    text before a number of the same length, of 3 digits or more, that is padded with zeros and
    grows by 100 or less from name to name; those of a camera's photos (DSC_0001) do not. Such
    numbers may also count the images of a class: a group says nothing if over half of its images
    have a class, and over half of the images of that class are in it.
    """
    found = collections.defaultdict(list)
    for index, path in enumerate(paths):
        key, number = _read_number(path)
        if key:
            found[key].append((number, index))
    num_of_class = collections.Counter(name for classes in classes_of for name in classes)
    for (_, _, width), numbered in found.items():
        numbers, members = zip(*sorted(numbered), strict=True)
        is_clip = not width or _counts_frames(numbers, width)
        if is_clip and not _counts_class(members, classes_of, num_of_class):
            yield list(members)


def _read_number(path):
    """((folder, text before the number, its length, or 0 if the text says `frame`), the number)."""
    folder = os.path.dirname(path)
    stem = _stem(path)
    copy = _ROBOFLOW.fullmatch(stem)
    stem = _OLD_SUFFIX.sub("", copy[1] if copy else stem)
    frame = _FRAME.fullmatch(stem)
    if frame:
        return (folder, frame[1], 0), int(frame[2])
    numbered = _NUMBERED.fullmatch(stem)
    if not numbered or _PHOTO_OF_CAMERA.fullmatch(stem):
        return None, 0
    return (folder, numbered[1], len(numbered[2])), int(numbered[2])


def _counts_frames(numbers, width):
    """Whether sorted numbers of `width` digits are padded, and dense enough."""
    is_padded = numbers[0] < 10 ** (width - 1)
    return is_padded and numbers[-1] - numbers[0] <= _MAX_STEP * (len(numbers) - 1)


def _counts_class(members, classes_of, num_of_class):
    inside = collections.Counter(name for index in members for name in classes_of[index])
    return any(
        count > len(members) / 2 and count > num_of_class[name] / 2
        for name, count in inside.items()
    )


def _stem(path):
    return files.split_stem(os.path.basename(path))
