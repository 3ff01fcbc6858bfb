"""Assigns arrays to a model by layer: the one way in which weights enter a network."""

import keras
import numpy as np

from ssd_tf.errors import ConfigError


def assign(model: keras.Model, arrays, source, required=None, exact=False) -> dict[str, str]:
    """Assign the arrays that fit; return the other layers of the model, with the reason.

    arrays: {layer name: arrays in the order of Layer.weights}.
    source: origin of the arrays, for messages.
    required: names of the layers that must be filled; None: all of them.
    exact: whether arrays of layers that the model lacks are an error.
    Raises ConfigError for a required layer without arrays of its shapes, and for values that are
    not finite. Nothing is assigned then.
    """
    layers = [layer for layer in model.layers if layer.weights]
    misfits = {layer.name: find_misfit(layer, arrays.get(layer.name)) for layer in layers}
    for layer in layers:
        misfit = misfits[layer.name]
        if misfit and (required is None or layer.name in required):
            raise ConfigError(
                f"{source}: layer {layer.name}: {misfit}; give the weights of exactly this network"
            )
        if not misfit:
            _check_finite(layer, arrays[layer.name], source)
    unknown = [name for name in arrays if name not in misfits]
    if exact and unknown:
        raise ConfigError(f"{source}: the network that it seems to hold has no layer {unknown[0]}")
    for layer in layers:
        if not misfits[layer.name]:
            layer.set_weights(arrays[layer.name])
    return {name: misfit for name, misfit in misfits.items() if misfit}


def find_misfit(layer, values) -> str:
    """Why a layer cannot take a list of arrays, or None for no arrays; empty if it can."""
    if values is None:
        return "found no weights"
    expected = [tuple(weight.shape) for weight in layer.weights]
    found = [np.shape(value) for value in values]
    return "" if found == expected else f"expected shapes {expected}, got {found}"


def _check_finite(layer, values, source):
    for weight, value in zip(layer.weights, values, strict=True):
        if np.asarray(value).dtype.kind in "OSU" or not np.isfinite(value).all():
            raise ConfigError(f"{source}: {weight.path} has values that are not finite numbers")


def split_rows(value, num_rows):
    """Kernel or bias of a class head [..., k * num_rows] -> [..., k, num_rows], a view."""
    return value.reshape(*value.shape[:-1], -1, num_rows)
