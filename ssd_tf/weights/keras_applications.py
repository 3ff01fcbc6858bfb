"""ImageNet weights of keras.applications: finds, downloads, reads and assigns HDF5 files."""

import os
import pathlib
import typing

import h5py
import keras
import numpy as np
from absl import logging

from ssd_tf.config import Backbone, Config, ConfigError
from ssd_tf.weights.checks import check_backbone_filled, shorten

_BASE_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
_MOBILENET_ALPHAS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}  # as file names spell them
_MOBILENET_V2_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)


class _ImageNetFile(typing.NamedTuple):
    """The file names to look for; the first one can be downloaded from the folder `url`."""

    names: tuple[str, ...]
    url: str
    md5: str | None  # Keras publishes none for MobileNets


def find_imagenet_file(backbone: Backbone) -> pathlib.Path:
    """The ImageNet weights of a backbone.

    Looks in the folder that the environment variable SSD_TF_WEIGHTS names, then downloads through
    Keras. Raises ConfigError if there are none or the download fails.
    """
    file = _imagenet_file(backbone)
    folder = os.environ.get("SSD_TF_WEIGHTS")
    for name in file.names if folder else ():
        path = pathlib.Path(folder) / name
        if path.is_file():
            return path
    name = file.names[0]
    try:
        path = keras.utils.get_file(
            name, f"{file.url}/{name}", file_hash=file.md5, cache_subdir="models"
        )
    except Exception as error:
        raise ConfigError(
            f"model.backbone.weights: cannot download {name} ({shorten(error)}); put the file "
            f"into a folder and set SSD_TF_WEIGHTS to that (now {folder or 'not set'})"
        ) from None
    return pathlib.Path(path)


def load(model: keras.Model, config: Config, path) -> set[str]:
    """Fill the model's backbone from an HDF5 file; returns the names of the layers filled.

    Layers of the file that the model does not have (the classifier's top) are skipped.
    Raises ConfigError if no layer fits, one has other shapes, or one of the backbone is missing.
    """
    arrays = read_layers(path)
    if config.model.backbone.name == "vgg16":
        arrays = convert_vgg16(arrays)
    filled = set()
    for layer in model.layers:
        if not layer.weights or layer.name not in arrays:
            continue
        expected = [tuple(weight.shape) for weight in layer.weights]
        found = [value.shape for value in arrays[layer.name]]
        if found != expected:
            raise ConfigError(
                f"model.backbone.weights: layer {layer.name} of {path}: "
                f"expected shapes {expected}, got {found}"
            )
        layer.set_weights(arrays[layer.name])
        filled.add(layer.name)
    if not filled:
        raise ConfigError(
            f"model.backbone.weights: {path} has no layer of {config.model.backbone.name}"
        )
    check_backbone_filled(model, config, filled, path)
    return filled


def read_layers(path) -> dict[str, list[np.ndarray]]:
    """The arrays of a Keras weights file by layer, in its order.

    Reads HDF5 (`.h5`) as written by Keras 2 and by Keras 3's legacy format. Raises ConfigError for
    any other file.
    """
    # What h5py raises on files that are damaged or hold something else.
    unreadable = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)
    try:
        with h5py.File(path) as file:
            group = file.get("model_weights", file)
            layers = {}
            for name in group.attrs["layer_names"]:
                name = name.decode() if isinstance(name, bytes) else name
                layer = group[name]
                arrays = [np.asarray(layer[key]) for key in layer.attrs["weight_names"]]
                if arrays:
                    layers[name] = arrays
            return layers
    except unreadable as error:
        raise ConfigError(
            f"model.backbone.weights: {path} is not a Keras weights file in HDF5 format "
            f"({shorten(error)}); for torchvision's weights see docs/models.md"
        ) from None


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


def _imagenet_file(backbone):
    if backbone.name == "vgg16":
        stem = "vgg16_weights_tf_dim_ordering_tf_kernels"
        names = (f"{stem}.h5", f"{stem}_notop.h5")
        return _ImageNetFile(names, f"{_BASE_URL}/vgg16", "64373286793e3c8b2b4e3219cbf3544b")
    if backbone.name == "mobilenet":
        return _mobilenet_file(backbone.alpha)
    if backbone.name == "mobilenet_v2":
        return _mobilenet_v2_file(backbone.alpha)
    raise ConfigError(
        f"model.backbone.weights: Keras has no {backbone.name} in this layout; "
        "give the path of torchvision's .pth, see docs/models.md"
    )


def _mobilenet_file(alpha):
    _check_alpha("mobilenet", alpha, _MOBILENET_ALPHAS)
    stem = f"mobilenet_{_MOBILENET_ALPHAS[alpha]}_224_tf"
    names = (f"{stem}_no_top.h5", f"{stem}.h5", f"mobilenet_v1_{alpha}_224.h5")
    return _ImageNetFile(names, f"{_BASE_URL}/mobilenet", None)


def _mobilenet_v2_file(alpha):
    _check_alpha("mobilenet_v2", alpha, _MOBILENET_V2_ALPHAS)
    stem = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224"
    names = (f"{stem}_no_top.h5", f"{stem}.h5")
    return _ImageNetFile(names, f"{_BASE_URL}/mobilenet_v2", None)


def _check_alpha(name, alpha, known):
    if alpha not in known:
        raise ConfigError(
            f"model.backbone.weights: ImageNet weights of {name} exist for alpha "
            f"{', '.join(map(str, known))}, got {alpha}"
        )
