"""Divides pictures into training and validation: each class in its share, equal files on one side."""

import hashlib

import numpy as np

from data_tools.readers import labels

_NOTHING = frozenset([""])  # the class of pictures without objects


def choose_validation(classes_of, digests, fraction, seed) -> np.ndarray:
    """classes_of [n] frozensets of class names, digests [n] of the files -> bool [n], true where validation.

    Iterative stratification (after Sechidis et al. 2011) of groups of equal files: the rarest class first, each group goes to the
    side that lacks the greater part of its share of that class. Pictures without objects are a class of their own.
    """
    _, group_of = np.unique(np.asarray(digests, np.uint64), return_inverse=True)
    groups = [frozenset()] * (group_of.max(initial=-1) + 1)
    for classes, group in zip(classes_of, group_of, strict=True):
        groups[group] = (
            groups[group] | (classes or _NOTHING) if groups[group] else classes or _NOTHING
        )
    sizes = np.bincount(group_of, minlength=len(groups))
    chosen = _stratify(groups, sizes, fraction, seed)
    return chosen[group_of]


def _stratify(groups, sizes, fraction, seed):
    order = np.random.default_rng(seed).permutation(len(groups))
    members = {}
    for group in order:
        for name in groups[group]:
            members.setdefault(name, []).append(group)
    total = {name: sum(sizes[group] for group in held) for name, held in members.items()}
    # What each side still wants of each class, and of all pictures.
    wanted = {name: [number * (1 - fraction), number * fraction] for name, number in total.items()}
    wanted_all = [sizes.sum() * (1 - fraction), sizes.sum() * fraction]
    side = np.full(len(groups), -1)
    for name in sorted(members, key=lambda name: (total[name], name)):
        for group in members[name]:
            if side[group] < 0:
                side[group] = _lacks_more(wanted[name], wanted_all, fraction, sizes[group])
                for other in groups[group]:
                    wanted[other][side[group]] -= sizes[group]
                wanted_all[side[group]] -= sizes[group]
    return side == 1


def _lacks_more(wanted, wanted_all, fraction, size):
    """1 for validation, 0 for training, which gets what cannot be shared out: the only picture of a class is no measure of it."""
    if wanted[1] < size / 2:
        return 0
    lacking = [
        (numbers[1] / fraction, numbers[0] / (1 - fraction)) for numbers in (wanted, wanted_all)
    ]
    return int([validation for validation, _ in lacking] > [training for _, training in lacking])


def hash_files(task, tick):
    """(plan file, offsets) -> uint64 [n], the first 8 bytes of each file's SHA-256; of its line where it cannot be read."""
    plan_path, offsets = task
    digests = []
    with open(plan_path, "rb") as plan:
        for offset in offsets:
            plan.seek(offset)
            line = plan.readline()
            try:
                with open(labels.from_line(line).path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").digest()
            except (OSError, ValueError):  # ValueError: a name that no file can have
                digest = hashlib.sha256(line).digest()
            digests.append(int.from_bytes(digest[:8], "big"))
            tick()
    return np.array(digests, np.uint64)
