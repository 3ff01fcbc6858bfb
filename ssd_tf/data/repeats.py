"""Repeat-factor sampling: images of rare classes come several times per epoch (Gupta et al. 2019).

Shapes: `N` images.
"""

import collections
import dataclasses
import math

import numpy as np
import tensorflow as tf
from absl import logging

from ssd_tf.data import records, shards


@dataclasses.dataclass(frozen=True, eq=False)
class Repeats:
    """How often each record of some files comes per epoch.

    factors: {path: a number for each record of the file}, 0 for those left out. A factor of 1.3
    stands for once or twice, 1.3 times on average; so that all epochs are equally long, the factors
    are multiplied by a number slightly above 1.
    """

    factors: dict[str, np.ndarray]

    @property
    def num_images(self) -> int:
        """The records of an epoch, repeated ones included."""
        return math.ceil(sum(values.sum() for values in self.factors.values()) - 1e-9)

    def draw(self, seed, epoch):
        """How often each record comes in an epoch [N] int64, in the order of the files.

        epoch: scalar int64. Systematic sampling: steps of 1 from a random offset, over the factors
        laid end to end.
        """
        ends = np.cumsum(np.concatenate(list(self.factors.values())))
        ends = ends / ends[-1] * self.num_images
        stateless = tf.stack([tf.constant(seed, tf.int64), -1 - epoch])  # shuffling has 0, 1, ...
        offset = tf.cast(tf.random.stateless_uniform([], stateless), tf.float64)
        counts = tf.cast(tf.floor(tf.constant(ends) + offset), tf.int64)
        return counts - tf.concat([[0], counts[:-1]], 0)

    def select(self, counts, path):
        """Of what `draw` returns, the part from a file's first record on."""
        begins = np.cumsum([0, *map(len, self.factors.values())])[:-1]
        is_file = tf.constant(list(self.factors)) == path
        return counts[tf.reduce_sum(tf.where(is_file, tf.constant(begins), 0)) :]


def read_factors(paths, threshold, train_difficult, skipped=()) -> dict[str, np.ndarray]:
    """The repeat factor of every record of a split, by file; 0 for those `skipped` (RecordIds).

    Reads all records once, without decoding images. Crowds do not count, nor do difficult objects
    unless train_difficult.
    """

    @tf.autograph.experimental.do_not_convert
    def find_labels(file, index, serialized):
        return file, index, records.parse_labels(serialized, train_difficult)

    factors = {path: np.zeros(shards.count_records(path)) for path in paths}
    found = list(shards.indexed_records(paths, skipped).map(find_labels).as_numpy_iterator())
    values = repeat_factors([labels for _, _, labels in found], threshold)
    for (file, index, _), value in zip(found, values, strict=True):
        factors[file.decode()][index] = value
    logging.info(
        "data.repeat_threshold=%g: %d images come %.0f times per epoch, at most %.1f times each",
        threshold,
        len(found),
        values.sum(),
        values.max(),
    )
    return factors


def repeat_factors(labels_of_images, threshold) -> np.ndarray:
    """The labels of the objects of each image -> the image's repeat factor [N].

    It is that of its rarest class: max(1, sqrt(threshold / f)), if f is the fraction of images with
    an object of the class (Gupta et al. 2019, app. B.2); 1 without objects.
    """
    classes = [set(labels.tolist()) for labels in labels_of_images]
    counts = collections.Counter(label for labels in classes for label in labels)
    rarest = [min((counts[label] for label in labels), default=math.inf) for labels in classes]
    return np.sqrt(np.maximum(1.0, threshold * len(classes) / np.array(rarest)))
