"""What the readers of pretrained weights share."""

import os

import keras
import numpy as np

from ssd_tf.config import Config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd

# Half precision becomes float32, and quantised weights four times as large.
_LARGEST_EXPANSION = 4
_SMALL = 1 << 24  # bytes that are no harm


def check_backbone_filled(model: keras.Model, config: Config, filled: set[str], source):
    """Raise ConfigError if a layer of the backbone that has weights is not among those filled.

    source: what the message calls the origin of the weights.
    """
    for layer in ssd.backbone_layers(model, config):
        if layer.weights and layer.name not in filled:
            raise ConfigError(
                f"{source} has no weights for layer {layer.name} of "
                f"{config.model.backbone.name}: give the weights of exactly this network"
            )


def check_finite(arrays: dict, path):
    """Raise ConfigError with the name of the first array that has NaN or infinity."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ConfigError(f"{path}: {name} has values that are not finite")


def check_size(declared, path):
    """Raise ConfigError if a file declares many more bytes of numbers than it has itself.

    Formats may repeat a number, compress, or name the same bytes twice, so that a few bytes stand
    for gigabytes. Weights hardly shrink: their bytes are those of the file.
    """
    size = os.path.getsize(path)
    if declared > _LARGEST_EXPANSION * size + _SMALL:
        raise ConfigError(
            f"{path} declares {declared} bytes of numbers and has {size} bytes itself: it is "
            "corrupt, or made to fill the memory"
        )


def gamma_for_epsilon(gamma, variance, theirs, ours):
    """The gamma with which batch norm of epsilon `ours` equals one of epsilon `theirs`."""
    return gamma * np.sqrt((variance + ours) / (variance + theirs))


def shorten(error) -> str:
    """The beginning of an error's message, on one line."""
    return " ".join(str(error).split())[:120]
