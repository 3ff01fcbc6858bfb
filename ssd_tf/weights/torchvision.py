"""Weights of torchvision's models, as arrays by the names of its state dict, into ours.

Made from a .pth file where torch is installed; this package does not need it:

    arrays = {name: tensor.numpy() for name, tensor in torch.load("ssd300_vgg16_coco.pth").items()}
    numpy.savez("ssd300_vgg16_coco.npz", **arrays)
"""

import zipfile
import zlib

import keras
import numpy as np
from absl import logging
from keras import layers

from ssd_tf.config import Config, ConfigError
from ssd_tf.models import ssd
from ssd_tf.models.mobilenet_v3 import BLOCKS

# torchvision's VGG16 numbers its modules; these are its convolutions, block by block.
_VGG_MODULES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def read_arrays(path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name. Raises ConfigError where it is none."""
    try:
        with open(path, "rb") as content, np.load(content) as file:
            return dict(file)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(
            f"model.backbone.weights: {path} is not a whole .npz file of arrays ({one_line(error)})"
        ) from None


def one_line(error) -> str:
    """The beginning of an error's message."""
    return " ".join(str(error).split())[:120]


def load(model: keras.Model, config: Config, state: dict, source="the state dict") -> int:
    """Puts a state dict (arrays by name) into the model; returns the number of layers filled. source: what errors call it.

    For vgg16: ssd300_vgg16, or the classifier vgg16 (its fc6 and fc7 are decimated as for Keras' file); for resnets: the
    classifiers; for mobilenet_v3_large: ssdlite320_mobilenet_v3_large. Heads are filled where the number of classes fits.
    Raises ConfigError where no array fits, one has another shape than the model wants, or a layer of the backbone finds none
    (extra layers, neck and heads may).
    """
    state = _with_reduced_fc(state)
    prefixes = module_names(model, config, state)
    filled = set()
    for layer in model.layers:
        prefix = prefixes.get(layer.name)
        if prefix not in state and f"{prefix}.weight" not in state:
            continue
        values = _arrays(layer, prefix, state, source)
        wanted, found = [tuple(w.shape) for w in layer.weights], [v.shape for v in values]
        if wanted == found:
            layer.set_weights(values)
            filled.add(layer.name)
        elif layer.name.startswith("logits"):
            logging.info(
                "%s starts anew: the file has other classes (%s, wanted %s)",
                layer.name,
                found[0],
                wanted[0],
            )
        else:
            raise ConfigError(
                f"model.backbone.weights: {prefix} of {source} gives {layer.name} shapes {found}, the model wants {wanted}"
            )
    if not filled:
        raise ConfigError(
            f"model.backbone.weights: no array of {source} has a name that {config.model.backbone.name} has in torchvision"
        )
    check_whole(model, config, filled, source)
    return len(filled)


def check_whole(model: keras.Model, config: Config, filled, source):
    """Raises ConfigError where a layer of the backbone is not among the names `filled`."""
    for layer in ssd.backbone_layers(model, config):
        if layer.weights and layer.name not in filled:
            raise ConfigError(
                f"model.backbone.weights: {source} has nothing for layer {layer.name} of {config.model.backbone.name}: "
                "give the weights of this very network"
            )


def module_names(model, config: Config, state) -> dict[str, str]:
    """Name of our layer -> name of torchvision's module, for those layers that have one."""
    name = config.model.backbone.name
    if name == "vgg16":
        names = _vgg_names(detector="backbone.scale_weight" in state)
    elif name.startswith("resnet"):
        return {layer.name: layer.name.replace("_", ".") for layer in model.layers}
    elif name == "mobilenet_v3_large":
        names = _ssdlite_names()
    else:
        raise ConfigError(
            f"model.backbone.weights: {name} has no partner in torchvision; give a Keras HDF5 file"
        )
    for index in range(config.model.num_levels):
        for ours, theirs in (("logits", "classification"), ("offsets", "regression")):
            module = f"head.{theirs}_head.module_list.{index}"
            separable = config.model.head == "separable"
            names[f"{ours}{index}_conv"] = f"{module}.1" if separable else module
            names[f"{ours}{index}_depthwise"], names[f"{ours}{index}_depthwise_bn"] = (
                f"{module}.0.0",
                f"{module}.0.1",
            )
    return names


def _vgg_names(detector):
    names, prefix = {}, "backbone.features" if detector else "features"
    for block, modules in enumerate(_VGG_MODULES, start=1):
        for index, module in enumerate(modules, start=1):
            names[f"conv{block}_{index}"] = f"{prefix}.{module}"
    if not detector:
        return {**names, "fc6": "fc6", "fc7": "fc7"}
    extra = "backbone.extra"
    names |= {
        "conv4_3_norm": "backbone.scale_weight",
        "fc6": f"{extra}.0.7.1",
        "fc7": f"{extra}.0.7.3",
    }
    names |= {f"conv5_{index}": f"{extra}.0.{module}" for index, module in ((1, 1), (2, 3), (3, 5))}
    for stage in range(1, 5):
        names |= {
            f"conv{stage + 5}_1": f"{extra}.{stage}.0",
            f"conv{stage + 5}_2": f"{extra}.{stage}.2",
        }
    return names


def _ssdlite_names():
    names = _convolution("stem", "backbone.features.0.0")
    for index, (*_, squeezes, _, _) in enumerate(BLOCKS, start=1):
        parts = ["expand"] * (index > 1) + ["depthwise"] + ["se"] * squeezes + ["project"]
        for position, part in enumerate(parts):
            module = _block_module(index, position)
            if part == "se":
                names |= {
                    f"block{index}_squeeze": f"{module}.fc1",
                    f"block{index}_excite": f"{module}.fc2",
                }
            else:
                names |= _convolution(f"block{index}_{part}", module)
    names |= _convolution("last", "backbone.features.1.3")
    for extra in range(4):
        for position, part in enumerate(("reduce", "depthwise", "expand")):
            names |= _convolution(f"extra{extra + 1}_{part}", f"backbone.extra.{extra}.{position}")
    return names


def _block_module(index, position):
    """torchvision splits its 13th block: the expansion ends the first half of the network, the rest begins the second."""
    if index < 13:
        return f"backbone.features.0.{index}.block.{position}"
    if index > 13:
        return f"backbone.features.1.{index - 13}.block.{position}"
    return f"backbone.features.1.0.{position}" if position else "backbone.features.0.13"


def _convolution(ours, theirs):
    return {ours: f"{theirs}.0", f"{ours}_bn": f"{theirs}.1"}


def _arrays(layer, prefix, state, source):
    """A module's arrays in Keras' layout: convolutions HWIO (PyTorch: OIHW), depthwise HWC1 (PyTorch: C1HW)."""
    if prefix in state:
        return [np.asarray(state[prefix])]
    if isinstance(layer, layers.BatchNormalization):
        missing = [f"{prefix}.{part}" for part in _BATCH_NORM if f"{prefix}.{part}" not in state]
        if missing:
            raise ConfigError(f"model.backbone.weights: {source} lacks {', '.join(missing)}")
        return [np.asarray(state[f"{prefix}.{part}"]) for part in _BATCH_NORM]
    kernel = np.asarray(state[f"{prefix}.weight"])
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    values = [kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)]
    if f"{prefix}.bias" in state:
        values.append(np.asarray(state[f"{prefix}.bias"]))
    return (
        [_swap_coordinates(value) for value in values]
        if layer.name.startswith("offsets") and not depthwise
        else values
    )


def _swap_coordinates(value):
    """Channels dx, dy, dw, dh of each default box -> ours, ty, tx, th, tw."""
    grouped = value.reshape(*value.shape[:-1], -1, 4)
    return grouped[..., [1, 0, 3, 2]].reshape(value.shape)


def _with_reduced_fc(state):
    """The classifier's two layers of vgg16 as fc6 and fc7: every third position, every fourth channel (Chen et al. 2015)."""
    if "classifier.0.weight" not in state or np.shape(state["classifier.0.weight"]) != (
        4096,
        25088,
    ):
        return state
    wide = np.asarray(state["classifier.0.weight"]).reshape(4096, 512, 7, 7)[::4, :, ::3, ::3]
    narrow = np.asarray(state["classifier.3.weight"])[::4, ::4, None, None]
    return {
        **state,
        **{"fc6.weight": wide, "fc6.bias": np.asarray(state["classifier.0.bias"])[::4]},
        **{"fc7.weight": narrow, "fc7.bias": np.asarray(state["classifier.3.bias"])[::4]},
    }
