"""The three stages of a detector, which can be timed apart, and what exported models share."""

import typing


class Stages(typing.NamedTuple):
    """Functions, each taking the result of the one before.

    preprocess: a list of uint8 images [H, W, 3] -> a batch as the network takes it.
    network: the batch -> outputs, all computed when it returns.
    postprocess: the outputs -> for each image (boxes [n, 4] normalised corners, scores [n],
    labels [n] int32 from 1), highest score first.
    What an exported model does inside its graph is part of `network`.
    """

    preprocess: typing.Callable
    network: typing.Callable
    postprocess: typing.Callable


class Exported(typing.NamedTuple):
    """An exported model.

    num_classes: C, or None if the file does not say it. is_ours: whether export.py made it.
    """

    stages: Stages
    num_classes: int | None
    is_ours: bool


def scale_to_range(input_range, path):
    """(scale, shift) of a pixel in 0..255 for a float input. Raises ValueError without a range."""
    if input_range is None:
        raise ValueError(
            f"{path} takes floats and does not say in which range; give --input_range=-1,1 or "
            "--input_range=0,1 or --input_range=0,255, as it was trained"
        )
    low, high = input_range
    return (high - low) / 255, low
