"""The order of images, and training and validation: balanced, copies and frames on one side."""

import collections
import dataclasses
import itertools
import pickle

import numpy as np

from data_tools.conversion import fingerprints, grouping, pool
from data_tools.conversion.config import VALIDATION
from data_tools.readers import labels

_IN_ORDER = (VALIDATION, "valid", "test")
_IMAGES_PER_TASK = 500
_NO_CLASS = frozenset([""])  # the class of images without objects


def divide(survey, config) -> tuple[dict[str, list[bytes]], list[str]]:
    """The images of each split, pickled, and notes on what was held out together.

    Labels are often sorted by class, and training shuffles a few thousand neighbours at a time: its
    images are permuted. Those of validation and test keep their order.
    """
    num_images = len(survey.images)
    order = np.arange(num_images)
    if config.split not in _IN_ORDER:
        order = np.random.default_rng(config.split_seed).permutation(order)
    if not config.val_fraction:
        return {config.split: [survey.images[index] for index in order]}, []
    tasks = split_evenly(survey.images, max(1, num_images // _IMAGES_PER_TASK))
    prints = list(
        itertools.chain.from_iterable(
            pool.run_tasks(
                fingerprints.take_fingerprints, tasks, config.workers, num_images, "comparing files"
            )
        )
    )
    images = [_mark_intact(*each) for each in zip(survey.images, prints, strict=True)]
    in_validation, notes = _hold_out(images, survey.classes_of, prints, config)
    divided = {
        config.split: [images[index] for index in order if not in_validation[index]],
        VALIDATION: [images[index] for index in np.flatnonzero(in_validation)],
    }
    for split, chosen in divided.items():
        if not chosen:
            raise ValueError(_explain_empty(split, images, prints, config))
    return divided, notes


def _explain_empty(split, images, prints, config):
    """The error if a split would have no images."""
    if len(images) > 1 and not grouping.group_identical(prints).any():
        name = pickle.loads(images[0]).filename
        return (
            f"all {len(images):,} images are the same as {name}: nothing is left for {split!r}, as "
            "copies of one image go to one split; give different images"
        )
    return (
        f"--val_fraction {config.val_fraction} of {labels.count_of(len(images), 'image')} leaves "
        f"none for {split!r}: give more images, or another fraction"
    )


def _mark_intact(packed, fingerprint):
    """The pickled image of a file that has been decoded: it needs no other decoding."""
    if not fingerprint.thumbnail:
        return packed
    image = pickle.loads(packed)
    return pickle.dumps(dataclasses.replace(image, intact_digest=fingerprint.digest.hex()))


def _hold_out(images, classes_of, prints, config):
    """Choose images for validation -> (bool [n], notes); by groups unless these leave it empty."""
    paths = [image.path or image.filename for image in map(pickle.loads, images)]
    found = grouping.find_groups(paths, prints, classes_of)
    chosen = choose_validation(classes_of, found.group_of, config.val_fraction, config.split_seed)
    if chosen.any() and not chosen.all():
        return chosen, found.notes
    identical = grouping.group_identical(prints)
    return choose_validation(classes_of, identical, config.val_fraction, config.split_seed), []


def split_evenly(images, num_parts):
    indices = np.array_split(np.arange(len(images)), num_parts)
    return [[images[index] for index in part] for part in indices]


def choose_validation(classes_of, group_of, fraction, seed) -> np.ndarray:
    """Choose images for validation -> bool [n].

    classes_of [n]: frozensets of class names; group_of [n]: any integers, equal for images that
    stay on one side; fraction: of the images.
    Iterative stratification (after Sechidis et al. 2011) of the groups: the rarest class first,
    each group goes to the side that lacks the larger fraction of that class.
    Images without objects are a class of their own.
    """
    _, group_of = np.unique(np.asarray(group_of, np.uint64), return_inverse=True)
    groups = [collections.Counter() for _ in range(group_of.max(initial=-1) + 1)]
    for classes, group in zip(classes_of, group_of, strict=True):
        groups[group].update(classes or _NO_CLASS)
    sizes = np.bincount(group_of, minlength=len(groups))
    in_validation = _stratify(groups, sizes, fraction, seed)
    return in_validation[group_of]


def _stratify(groups, sizes, fraction, seed):
    """groups: {class: how many images of the group have it} of each; sizes: in images."""
    order = np.random.default_rng(seed).permutation(len(groups))
    members = {}
    for group in order:
        for name in groups[group]:
            members.setdefault(name, []).append(group)
    total = collections.Counter()
    for group in groups:
        total.update(group)
    # What training and validation still lack of each class, and of all images.
    lacking = {name: [count * (1 - fraction), count * fraction] for name, count in total.items()}
    lacking_all = [sizes.sum() * (1 - fraction), sizes.sum() * fraction]
    side = np.full(len(groups), -1)
    for name in sorted(members, key=lambda name: (total[name], name)):
        for group in members[name]:
            if side[group] < 0:
                wanted = (lacking[name], groups[group][name]), (lacking_all, sizes[group])
                side[group] = _choose_side(wanted, fraction)
                for other, count in groups[group].items():
                    lacking[other][side[group]] -= count
                lacking_all[side[group]] -= sizes[group]
    return side == 1


def _choose_side(wanted, fraction):
    """1 for validation, 0 for training.

    wanted: (what training and validation lack, how much of it the group has), of the class and of
    all images. Training gets what cannot be shared: the only image of a class measures nothing.
    """
    (lacking, count), (lacking_all, size) = wanted
    if lacking[1] < count / 2 or (size > 1 and lacking_all[1] < size / 2):
        return 0
    of_training = [counts[0] / (1 - fraction) for counts in (lacking, lacking_all)]
    of_validation = [counts[1] / fraction for counts in (lacking, lacking_all)]
    return int(of_validation > of_training)
