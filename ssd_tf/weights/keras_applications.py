"""ImageNet weights of keras.applications: reads and assigns HDF5 files."""

import h5py
import keras
import numpy as np
from absl import logging

from ssd_tf.config import Backbone, Config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.weights import meaning
from ssd_tf.weights.checks import check_backbone_filled, check_finite, check_size, shorten


def load(model: keras.Model, config: Config, path) -> set[str]:
    """Fill the model's backbone from an HDF5 file; returns the names of the layers filled.

    Layers of the file that the model does not have (the classifier's top) are skipped.
    Raises ConfigError if no layer fits, one has other shapes, or one of the backbone is missing, or
    if the config has another padding or normalisation than Keras.
    """
    arrays = read_layers(path)
    if config.model.backbone.name == "vgg16":
        if "block3_conv4" in arrays:
            raise ConfigError(f"{path}: expected VGG16, got VGG19, whose blocks are deeper")
        arrays = convert_vgg16(arrays)
    filled = set()
    for layer in model.layers:
        if not layer.weights or layer.name not in arrays:
            continue
        expected = [tuple(weight.shape) for weight in layer.weights]
        found = [value.shape for value in arrays[layer.name]]
        if found != expected:
            raise ConfigError(
                f"layer {layer.name} of {path}: expected shapes {expected}, got {found}"
            )
        layer.set_weights(arrays[layer.name])
        filled.add(layer.name)
    if not filled:
        raise ConfigError(f"{path} has no layer of {config.model.backbone.name}")
    check_backbone_filled(model, config, filled, path)
    meaning.check_backbone(config, path, *describe(config.model.backbone))
    return filled


def describe(backbone):
    """(padding, normalisation) of the network that Keras trained."""
    # Its maps have even sizes, which `keras` and `same` pad alike.
    padding = "keras" if backbone.padding == "torch" else backbone.padding
    return padding, ssd.normalization(Backbone(name=backbone.name))


def read_layers(path) -> dict[str, list[np.ndarray]]:
    """The arrays of a Keras weights file by layer, in its order.

    Reads HDF5 (`.h5`) as written by Keras 2 and by Keras 3's legacy format. Raises ConfigError for
    any other file, for arrays that are much larger than the file, and for values that are not
    finite.
    """
    # What h5py raises on files that are damaged or hold something else.
    unreadable = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)
    try:
        with h5py.File(path) as file:
            group = file.get("model_weights", file)
            layers = {}
            declared = 0
            for name in group.attrs["layer_names"]:
                name = name.decode() if isinstance(name, bytes) else name
                datasets = [group[name][key] for key in group[name].attrs["weight_names"]]
                declared += sum(dataset.nbytes for dataset in datasets)
                check_size(declared, path)
                if datasets:
                    layers[name] = [np.asarray(dataset) for dataset in datasets]
    except ConfigError:
        raise
    except unreadable as error:
        raise ConfigError(
            f"{path} is not a Keras weights file in HDF5 format "
            f"({shorten(error)}); for torchvision's weights see docs/models.md"
        ) from None
    check_finite({name: array for name, arrays in layers.items() for array in arrays}, path)
    return layers


def convert_vgg16(layers):
    """The arrays of keras.applications' VGG16 -> those of our vgg16, by our layers' names.

    Its weights were trained on BGR images (keras.applications.vgg16.preprocess_input); conv1_1 is
    flipped to take our RGB. fc1 and fc2, if the file has its top, become fc6 (3x3, every third of
    the 7x7 positions and every fourth channel) and fc7 (1x1): the decimation of Chen et al. 2015
    (DeepLab), by which Liu et al. made their reduced VGG16.
    """
    ours = {
        name.replace("block", "conv", 1).replace("_conv", "_"): arrays
        for name, arrays in layers.items()
        if "block" in name
    }
    if "conv1_1" in ours:
        kernel, *bias = ours["conv1_1"]
        ours["conv1_1"] = [kernel[:, :, ::-1], *bias]
    if "fc1" in layers:
        kernel, bias = layers["fc1"]
        ours["fc6"] = [kernel.reshape(7, 7, 512, 4096)[::3, ::3, :, ::4], bias[::4]]
        kernel, bias = layers["fc2"]
        ours["fc7"] = [kernel[::4, ::4][None, None], bias[::4]]
    else:
        logging.warning("the weights file has no top: fc6 and fc7 start at random")
    return ours
