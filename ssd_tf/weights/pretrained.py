"""Pretrained backbones: which file model.backbone.weights stands for, and who reads it."""

import pathlib

import keras
from absl import logging

from ssd_tf.config import Config
from ssd_tf.errors import ConfigError
from ssd_tf.weights import (
    imagenet,
    keras_applications,
    pytorch_file,
    safetensors_file,
    torchvision,
)


def load_backbone(model: keras.Model, config: Config) -> set[str]:
    """Load model.backbone.weights into the model; returns the names of the layers filled.

    `none` fills nothing, `imagenet` takes a file of Keras or torchvision (see weights/imagenet.py),
    a path may be Keras' (.h5), or torchvision's: a .pth, a .safetensors or an .npz.
    Raises ConfigError if there is no such file, a layer has another shape, or a layer of the
    backbone is missing from it.
    """
    if config.model.backbone.weights == "none":
        return set()
    try:
        return _load(model, config)
    except ConfigError as error:
        raise ConfigError(f"model.backbone.weights: {error}") from None


def _load(model, config):
    backbone = config.model.backbone
    if backbone.weights == "imagenet":
        path = imagenet.find_file(backbone)
    else:
        path = pathlib.Path(backbone.weights)
    if not path.is_file():
        raise ConfigError(f"no file at {path}")
    if path.suffix == ".npz":
        filled = torchvision.load(model, config, torchvision.read_arrays(path), path)
    elif path.suffix in (".pth", ".pt"):
        filled = torchvision.load(model, config, pytorch_file.read_state_dict(path), path)
    elif path.suffix == ".safetensors":
        filled = torchvision.load(model, config, safetensors_file.read_arrays(path), path)
    else:
        filled = keras_applications.load(model, config, path)
    logging.info("loaded %d layers from %s", len(filled), path)
    return filled
