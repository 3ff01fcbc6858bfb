"""Backbones trained on ImageNet, from the HDF5 files of keras.applications or arrays of torchvision."""

import os
import pathlib

import h5py
import keras
import numpy as np
from absl import logging

from ssd_tf.config import Config, ConfigError
from ssd_tf.weights import torchvision

_BASE = "https://storage.googleapis.com/tensorflow/keras-applications"
_ALPHA_TEXT = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}
_ALPHAS_V2 = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
_VGG_TOP = "vgg16_weights_tf_dim_ordering_tf_kernels.h5"


def load_backbone(model: keras.Model, config: Config) -> int:
    """Puts config.model.backbone.weights into the model's backbone; returns the number of arrays (of layers from .npz) loaded.

    A path may be Keras' HDF5 or, with torchvision's names, .npz (see weights/torchvision.py). `imagenet` looks for the file in
    the folder that the environment variable SSD_TF_WEIGHTS names, then downloads it.
    Raises ConfigError where there is no such file, no layer of it fits, or a layer of the backbone is not in it.
    """
    backbone = config.model.backbone
    if backbone.weights == "none":
        return 0
    path = (
        _imagenet_file(backbone)
        if backbone.weights == "imagenet"
        else pathlib.Path(backbone.weights)
    )
    if not path.is_file():
        raise ConfigError(f"model.backbone.weights: no file at {path}")
    if path.suffix == ".npz":
        count = torchvision.load(model, config, torchvision.read_arrays(path), path)
        logging.info("filled %d layers from %s", count, path)
        return count
    arrays = read_layers(path)
    if backbone.name == "vgg16":
        arrays = vgg_for_ssd(arrays)
    return _assign(model, config, arrays, path)


def read_layers(path) -> dict[str, list[np.ndarray]]:
    """The arrays of a Keras HDF5 weights file (`.h5`, written by Keras 2 or 3's legacy format) by layer, in its order."""
    try:
        with h5py.File(path) as file:
            group = file.get("model_weights", file)
            layers = {}
            for name in group.attrs["layer_names"]:
                name = name.decode() if isinstance(name, bytes) else name
                weights = [
                    np.asarray(group[name][key]) for key in group[name].attrs["weight_names"]
                ]
                if weights:
                    layers[name] = weights
            return layers
    except (
        OSError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as error:  # h5py raises them all
        raise ConfigError(
            f"model.backbone.weights: {path} is not a Keras weights file in HDF5 format ({torchvision.one_line(error)}); "
            "of torchvision's make an .npz as docs/models.md tells"
        ) from None


def vgg_for_ssd(layers):
    """Arrays of keras.applications' VGG16 -> those of ours, under our layers' names.

    Its weights were trained on BGR pictures (keras.applications.vgg16.preprocess_input); conv1_1 is turned to take our RGB.
    fc1 and fc2, where the file has its top, become fc6 (3x3, every third of the 7x7 positions and every fourth channel)
    and fc7 (1x1): the decimation of Chen et al. 2015 (DeepLab), as the authors' reduced VGG16 was made.
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


def _assign(model, config, arrays, path):
    known = {layer.name: layer for layer in model.layers if layer.weights}
    count = 0
    for name, values in arrays.items():
        if name not in known:
            continue  # the classifier's top
        wanted = [tuple(weight.shape) for weight in known[name].weights]
        found = [value.shape for value in values]
        if wanted != found:
            raise ConfigError(
                f"model.backbone.weights: layer {name} of {path} has shapes {found}, the model wants {wanted}"
            )
        known[name].set_weights(values)
        count += len(values)
    if not count:
        raise ConfigError(
            f"model.backbone.weights: no layer of {path} has a name that the model knows"
        )
    torchvision.check_whole(model, config, arrays, path)
    logging.info("loaded %d arrays from %s", count, path)
    return count


def _imagenet_file(backbone) -> pathlib.Path:
    names, url, md5 = _candidates(backbone)
    folder = os.environ.get("SSD_TF_WEIGHTS")
    for name in names if folder else ():
        if (pathlib.Path(folder) / name).is_file():
            return pathlib.Path(folder) / name
    try:
        return pathlib.Path(
            keras.utils.get_file(names[0], url, file_hash=md5, cache_subdir="models")
        )
    except Exception as error:
        raise ConfigError(
            f"model.backbone.weights: cannot download {names[0]} ({torchvision.one_line(error)}); "
            f"put the file into a folder and name that in SSD_TF_WEIGHTS (now {folder or 'not set'})"
        ) from None


def _candidates(backbone):
    """File names to look for, the address of the first one, and its MD5 (Keras publishes none for MobileNet)."""
    if backbone.name == "vgg16":
        names = [_VGG_TOP, _VGG_TOP.replace(".h5", "_notop.h5")]
        return names, f"{_BASE}/vgg16/{_VGG_TOP}", "64373286793e3c8b2b4e3219cbf3544b"
    if backbone.name == "mobilenet":
        return _mobilenet_files(backbone.alpha)
    if backbone.name == "mobilenet_v2":
        if backbone.alpha not in _ALPHAS_V2:
            known = ", ".join(map(str, _ALPHAS_V2))
            raise ConfigError(
                f"ImageNet weights of mobilenet_v2 exist for alpha {known}, not for {backbone.alpha}"
            )
        stem = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{backbone.alpha}_224"
        return [f"{stem}_no_top.h5", f"{stem}.h5"], f"{_BASE}/mobilenet_v2/{stem}_no_top.h5", None
    raise ConfigError(
        f"model.backbone.weights: Keras has no {backbone.name} in this layout; "
        "give the path of an .npz with torchvision's arrays (docs/models.md tells how to make it)"
    )


def _mobilenet_files(alpha):
    if alpha not in _ALPHA_TEXT:
        raise ConfigError(
            f"ImageNet weights of mobilenet exist for alpha 0.25, 0.5, 0.75 and 1.0, not for {alpha}"
        )
    stem = f"mobilenet_{_ALPHA_TEXT[alpha]}_224_tf"
    names = [f"{stem}_no_top.h5", f"{stem}.h5", f"mobilenet_v1_{alpha}_224.h5"]
    return names, f"{_BASE}/mobilenet/{names[0]}", None
