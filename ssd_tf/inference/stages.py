"""The three stages of a detector, which can be timed apart."""

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
