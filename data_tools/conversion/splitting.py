"""The order of images, and training and validation: balanced, identical files on one side."""

import hashlib
import pickle

import numpy as np

from data_tools.conversion import pool
from data_tools.conversion.config import VALIDATION
from ssd_tf import pixels, user_files

_IN_ORDER = (VALIDATION, "valid", "test")
_IMAGES_PER_HASH_TASK = 500
_NO_CLASS = frozenset([""])  # the class of images without objects


def divide(survey, config) -> dict[str, list[bytes]]:
    """The images of each split, pickled.

    Labels are often sorted by class, and training shuffles a few thousand neighbours at a time: its
    images are permuted. Those of validation and test keep their order.
    """
    num_images = len(survey.images)
    order = np.arange(num_images)
    if config.split not in _IN_ORDER:
        order = np.random.default_rng(config.split_seed).permutation(order)
    if not config.val_fraction:
        return {config.split: [survey.images[index] for index in order]}
    tasks = split_evenly(survey.images, max(1, num_images // _IMAGES_PER_HASH_TASK))
    digests = pool.run_tasks(_hash_files, tasks, config.workers, num_images, "comparing files")
    in_validation = choose_validation(
        survey.classes_of, np.concatenate(list(digests)), config.val_fraction, config.split_seed
    )
    divided = {
        config.split: [survey.images[index] for index in order if not in_validation[index]],
        VALIDATION: [survey.images[index] for index in np.flatnonzero(in_validation)],
    }
    for split, images in divided.items():
        if not images:
            raise ValueError(
                f"--val_fraction {config.val_fraction} of {num_images} images leaves none for "
                f"{split!r}: give more images, or another fraction"
            )
    return divided


def split_evenly(images, num_parts):
    indices = np.array_split(np.arange(len(images)), num_parts)
    return [[images[index] for index in part] for part in indices]


def choose_validation(classes_of, digests, fraction, seed) -> np.ndarray:
    """Choose images for validation -> bool [n].

    classes_of [n]: frozensets of class names; digests [n]: of the files; fraction: of the images.
    Iterative stratification (after Sechidis et al. 2011) of groups of identical files: the rarest
    class first, each group goes to the side that lacks the larger fraction of that class.
    Images without objects are a class of their own.
    """
    _, group_of = np.unique(np.asarray(digests, np.uint64), return_inverse=True)
    groups = [frozenset()] * (group_of.max(initial=-1) + 1)
    for classes, group in zip(classes_of, group_of, strict=True):
        groups[group] |= classes or _NO_CLASS
    sizes = np.bincount(group_of, minlength=len(groups))
    in_validation = _stratify(groups, sizes, fraction, seed)
    return in_validation[group_of]


def _stratify(groups, sizes, fraction, seed):
    order = np.random.default_rng(seed).permutation(len(groups))
    members = {}
    for group in order:
        for name in groups[group]:
            members.setdefault(name, []).append(group)
    total = {name: sum(sizes[group] for group in held) for name, held in members.items()}
    # What training and validation still lack of each class, and of all images.
    lacking = {name: [count * (1 - fraction), count * fraction] for name, count in total.items()}
    lacking_all = [sizes.sum() * (1 - fraction), sizes.sum() * fraction]
    side = np.full(len(groups), -1)
    for name in sorted(members, key=lambda name: (total[name], name)):
        for group in members[name]:
            if side[group] < 0:
                side[group] = _choose_side(lacking[name], lacking_all, fraction, sizes[group])
                for other in groups[group]:
                    lacking[other][side[group]] -= sizes[group]
                lacking_all[side[group]] -= sizes[group]
    return side == 1


def _choose_side(lacking, lacking_all, fraction, size):
    """1 for validation, 0 for training.

    Training gets what cannot be shared: the only image of a class measures nothing.
    """
    if lacking[1] < size / 2:
        return 0
    of_training = [counts[0] / (1 - fraction) for counts in (lacking, lacking_all)]
    of_validation = [counts[1] / fraction for counts in (lacking, lacking_all)]
    return int(of_validation > of_training)


def _hash_files(images, tick):
    """Hash the files of pickled LabeledImages -> uint64 [n], the first 8 bytes of the SHA-256.

    For an unreadable file: that of its id and name. Calls tick() after each.
    """
    digests = []
    for packed in images:
        digests.append(int.from_bytes(_hash_file(pickle.loads(packed))[:8], "big"))
        tick()
    return np.array(digests, np.uint64)


def _hash_file(image):
    try:
        data = user_files.read_bytes(image.path, pixels.MAX_BYTES)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        data = repr((image.source_id, image.filename)).encode()
    return hashlib.sha256(data).digest()
