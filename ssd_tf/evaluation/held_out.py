"""Held-out images, drawn with their ground truth and with what a detector finds in them."""

import os
import typing

import numpy as np
from PIL import Image

from ssd_tf import draw

LOW_SCORE = 0.3  # from which detections are drawn while a network trains: it is unsure at first
_MAX_SIDE = 640  # pixels of a drawn image


class HeldOut(typing.NamedTuple):
    """An image that training does not see. name: of its file. truth, found: Pillow images."""

    name: str
    truth: Image.Image
    found: Image.Image


def draw_held_out(detect, examples, names, count, score) -> list[HeldOut]:
    """Draw the first `count` images of a split, shrunk if they are large.

    detect: a list of images -> a list of Detections with the labels of the data. examples: a
    dataset as `read_examples` returns it. names: class names of the data. score: the lowest to
    draw.
    """
    drawn = []
    for example in examples.take(count).as_numpy_iterator():
        (detections,) = detect([example["image"]])
        small = Image.fromarray(example["image"])
        small.thumbnail((_MAX_SIDE, _MAX_SIDE))
        image = np.asarray(small)
        truth = draw.draw_truth(image, example, names)
        found = draw.draw_detections(image, detections, names, score)
        drawn.append(HeldOut(os.fsdecode(example["file_name"]), truth, found))
    return drawn
