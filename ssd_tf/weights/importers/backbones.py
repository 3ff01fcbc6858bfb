"""The weights of a backbone that init_from names: ImageNet's, or a file of Keras or torchvision."""

import pathlib

from absl import logging

from ssd_tf.config import Backbone, Config
from ssd_tf.errors import ConfigError, shorten
from ssd_tf.models import ssd
from ssd_tf.user_files import suggest_path
from ssd_tf.weights import meaning
from ssd_tf.weights.importers import array_files, imagenet, pytorch_file, torchvision

_STATE_READERS = {
    ".npz": array_files.read_npz,
    ".pt": pytorch_file.read_state_dict,
    ".pth": pytorch_file.read_state_dict,
    ".safetensors": array_files.read_safetensors,
}


def read_backbone(config: Config) -> tuple:
    """Read the file that config.init_from names or stands for.

    Returns its path, the config of the network that it was trained in, as far as that is known, and
    its arrays `{layer: [arrays]}`. Raises ConfigError if there is no such file or it is another
    network's.
    """
    path = config.init_from
    try:
        path = _find_file(config)
        arrays, known = _read(path, config.model)
    except ConfigError as error:
        raise ConfigError(f"init_from: {error}") from None
    except Exception as error:  # what arrays of unexpected shapes make a converter raise
        raise ConfigError(f"init_from: {path} is corrupt ({shorten(error)})") from error
    return path, _config_of_training(config, known, path), arrays


def _find_file(config):
    if config.init_from == "imagenet":
        return imagenet.find_file(config.model.backbone)
    path = pathlib.Path(config.init_from)
    if not path.is_file():
        raise ConfigError(f"no file at {path}{suggest_path(path)}")
    return path


def _read(path, model):
    """The arrays by our layers, and the keys of model.backbone that the weights were trained in."""
    backbone = model.backbone
    if path.suffix not in _STATE_READERS:
        arrays = convert_keras(array_files.read_h5(path), backbone, path)
        return arrays, describe_keras(backbone)
    state = _STATE_READERS[path.suffix](path)
    return torchvision.convert(state, model, path), torchvision.describe(backbone, state)


def _config_of_training(config, known, path):
    """The config with the known settings of the network that the weights were trained in.

    Another normalisation is only a warning if the weights come from a path: who trained them may
    have had their own.
    """
    trained = _replace(config, known)
    if config.init_from == "imagenet":
        return trained
    found = meaning.differences(trained, config)
    doubtful = [each for each in found if each.key in meaning.NORMALIZATION]
    if not doubtful:
        return trained
    logging.warning("%s", meaning.explain(doubtful, f"the network of {path}"))
    backbone = config.model.backbone
    return _replace(trained, {"mean_rgb": backbone.mean_rgb, "std_rgb": backbone.std_rgb})


def _replace(config, values):
    backbone = config.model.backbone.model_copy(update=values)
    return config.model_copy(
        update={"model": config.model.model_copy(update={"backbone": backbone})}
    )


def describe_keras(backbone: Backbone) -> dict:
    """The keys of model.backbone of the network that Keras trained."""
    # Its maps have even sizes, which `keras` and `same` pad alike.
    padding = "keras" if backbone.padding == "torch" else backbone.padding
    mean, std = ssd.normalization(Backbone(name=backbone.name))
    return {"padding": padding, "mean_rgb": mean, "std_rgb": std}


def convert_keras(layers, backbone: Backbone, path) -> dict:
    """Layers of a keras.applications network -> `{our layer: [arrays]}`.

    Our MobileNets have Keras' names. VGG16 was trained on BGR images
    (keras.applications.vgg16.preprocess_input); conv1_1 is flipped to take our RGB.
    """
    if backbone.name != "vgg16":
        return layers
    if "block3_conv4" in layers:
        raise ConfigError(f"{path}: expected VGG16, got VGG19, whose blocks are deeper")
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
        fc1 = (kernel.reshape(7, 7, 512, 4096), bias)
        ours |= torchvision.thin_vgg16(fc1, layers["fc2"])
    return ours
