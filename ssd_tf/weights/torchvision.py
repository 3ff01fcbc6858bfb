"""Weights of torchvision's models, as arrays by the names of its state dict, into ours."""

import zipfile

import keras
import numpy as np
from absl import logging
from keras import layers

from ssd_tf.config import Backbone, Config
from ssd_tf.errors import ConfigError
from ssd_tf.models import heads, ssd
from ssd_tf.models.mobilenet_v3 import BLOCKS
from ssd_tf.weights import meaning
from ssd_tf.weights.checks import (
    check_backbone_filled,
    check_finite,
    check_size,
    gamma_for_epsilon,
    shorten,
)

# torchvision's VGG16 numbers its modules; these are its convolutions, block by block.
_VGG_MODULES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
# Of batch norm in mobilenet_v2; the other networks have ours.
_EPSILON_V2 = 1e-5
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def read_arrays(path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Raises ConfigError for any other file, for one that is much smaller than its arrays, and for
    values that are not finite.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(sum(entry.file_size for entry in archive.infolist()), path)
        with open(path, "rb") as content, np.load(content) as file:
            arrays = dict(file)
    except ConfigError:
        raise
    # What corrupt archives and headers of arrays raise.
    except Exception as error:
        raise ConfigError(
            f"{path} is not a complete .npz file of arrays ({shorten(error)})"
        ) from None
    numbers = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
    check_finite(numbers, path)
    return numbers


def load(model: keras.Model, config: Config, state: dict, source="the state dict") -> set[str]:
    """Fill the model from a state dict (arrays by name); returns the names of the layers filled.

    For vgg16: ssd300_vgg16, or the classifier vgg16 (its fc6 and fc7 are decimated as for Keras'
    file); for resnets and mobilenet_v2: the classifiers; for mobilenet_v3_large:
    ssdlite320_mobilenet_v3_large, or without its reduced_tail the classifier.
    Class heads are filled if the number of classes is the same.
    source: what messages call the origin of the arrays.
    Raises ConfigError if no array fits, one has another shape, a layer of the backbone is missing
    (extra layers, neck and heads may be) or too much, or if the config has another padding or
    normalisation than torchvision.
    """
    padding, normalization = describe(config.model.backbone, state)
    state = _reduce_classifier(state)
    modules = module_names(model, config, state)
    filled = set()
    for layer in model.layers:
        module = modules.get(layer.name)
        if module not in state and f"{module}.weight" not in state:
            continue
        values = _read_module(layer, module, state, source)
        if config.model.backbone.name == "mobilenet_v2" and len(values) == len(_BATCH_NORM):
            values[0] = gamma_for_epsilon(values[0], values[3], _EPSILON_V2, layer.epsilon)
        if _fits(layer, values, module, source):
            layer.set_weights(values)
            filled.add(layer.name)
    if not filled:
        raise ConfigError(f"{source} has no array of torchvision's {config.model.backbone.name}")
    check_backbone_filled(model, config, filled, source)
    _check_depth(state, modules, config.model.backbone.name, source)
    meaning.check_backbone(config, source, padding, normalization)
    return filled


def describe(backbone, state):
    """(padding, normalisation) of the network that the state belongs to, as far as it is known."""
    name = backbone.name
    padding = "torch" if name == "mobilenet_v2" else None
    if "backbone.scale_weight" in state or (name == "mobilenet_v3_large" and backbone.reduced_tail):
        return padding, ssd.normalization(Backbone(name=name))
    if name == "vgg16" and "classifier.0.weight" not in state:
        # Its features alone may be those that Liu et al. trained, normalised as in Caffe.
        return padding, None
    return padding, ssd.normalization(Backbone(name="resnet50"))


def _check_depth(state, modules, name, source):
    """Raise ConfigError if a stage of the ResNet has more blocks in the state.

    All of resnet18 is found in the weights of a resnet34, whose features are others.
    """
    known = set(modules.values())
    stages = {module.partition(".")[0] for module in known if module.startswith("layer")}
    for key in state:
        module = key.rpartition(".")[0]
        if module.partition(".")[0] in stages and module not in known:
            raise ConfigError(
                f"{source} has {module}, which {name} lacks: give the weights of exactly this "
                "network"
            )


def module_names(model, config: Config, state) -> dict[str, str]:
    """Name of our layer -> name of torchvision's module, for layers that have one.

    Raises ConfigError for a backbone that torchvision has in another form or not at all.
    """
    name = config.model.backbone.name
    if name == "vgg16":
        if "backbone.scale_weight" in state:
            return _ssd300_names() | _head_names(config)
        return _vgg_names("features") | {"fc6": "fc6", "fc7": "fc7"}
    if name == "mobilenet_v3_large":
        if config.model.backbone.reduced_tail:
            return _v3_names(_ssdlite_module, "backbone.features.1.3") | _ssdlite_names(config)
        return _v3_names(_classifier_module, "features.16")
    if name == "mobilenet_v2":
        return _v2_names()
    if name.startswith("resnet"):
        return {layer.name: layer.name.replace("_", ".") for layer in model.layers}
    raise ConfigError(f"torchvision has no counterpart of {name}; give a Keras HDF5 file (.h5)")


def _vgg_names(prefix):
    names = {}
    for block, modules in enumerate(_VGG_MODULES, start=1):
        for index, module in enumerate(modules, start=1):
            names[f"conv{block}_{index}"] = f"{prefix}.{module}"
    return names


def _ssd300_names():
    names = _vgg_names("backbone.features")
    extra = "backbone.extra"
    names |= {
        "conv4_3_norm": "backbone.scale_weight",
        "conv5_1": f"{extra}.0.1",
        "conv5_2": f"{extra}.0.3",
        "conv5_3": f"{extra}.0.5",
        "fc6": f"{extra}.0.7.1",
        "fc7": f"{extra}.0.7.3",
    }
    for stage in range(1, 5):
        names[f"conv{stage + 5}_1"] = f"{extra}.{stage}.0"
        names[f"conv{stage + 5}_2"] = f"{extra}.{stage}.2"
    return names


def _v2_names():
    names = {"Conv1": "features.0.0", "bn_Conv1": "features.0.1"}
    names |= {"Conv_1": "features.18.0", "Conv_1_bn": "features.18.1"}
    for index in range(17):
        block = f"block_{index}" if index else "expanded_conv"
        module = f"features.{index + 1}.conv"
        parts = ("expand", "depthwise") if index else ("depthwise",)
        for position, part in enumerate(parts):
            names[f"{block}_{part}"] = f"{module}.{position}.0"
            names[f"{block}_{part}_BN"] = f"{module}.{position}.1"
        names[f"{block}_project"] = f"{module}.{len(parts)}"
        names[f"{block}_project_BN"] = f"{module}.{len(parts) + 1}"
    return names


def _v3_names(module_of, last):
    """module_of: a function of a block and the position of its part; last: convolution."""
    names = _conv_bn_names("stem", module_of(0, 0).removesuffix(".block.0"))
    for index, block in enumerate(BLOCKS, start=1):
        parts = ["depthwise", "project"]
        if index > 1:
            parts.insert(0, "expand")
        if block.squeeze_and_excite:
            parts.insert(-1, "squeeze_and_excite")
        for position, part in enumerate(parts):
            module = module_of(index, position)
            if part == "squeeze_and_excite":
                names[f"block{index}_squeeze"] = f"{module}.fc1"
                names[f"block{index}_excite"] = f"{module}.fc2"
            else:
                names |= _conv_bn_names(f"block{index}_{part}", module)
    return names | _conv_bn_names("last", last)


def _classifier_module(index, position):
    """The module of a part of a block, by their positions."""
    return f"features.{index}.block.{position}"


def _ssdlite_module(index, position):
    """As _classifier_module.

    The detector splits its 13th block: the expansion ends the first half of the network, the rest
    begins the second.
    """
    if index < 13:
        return f"backbone.features.0.{index}.block.{position}"
    if index > 13:
        return f"backbone.features.1.{index - 13}.block.{position}"
    return f"backbone.features.1.0.{position}" if position else "backbone.features.0.13"


def _ssdlite_names(config):
    """The extra layers and the heads."""
    names = _head_names(config)
    for extra in range(4):
        for position, part in enumerate(("reduce", "depthwise", "expand")):
            module = f"backbone.extra.{extra}.{position}"
            names |= _conv_bn_names(f"extra{extra + 1}_{part}", module)
    return names


def _conv_bn_names(layer, module):
    return {layer: f"{module}.0", f"{layer}_bn": f"{module}.1"}


def _head_names(config):
    names = {}
    for index in range(config.model.num_levels):
        for head, torch_head in (("logits", "classification"), ("offsets", "regression")):
            layer = f"{head}{index}"
            module = f"head.{torch_head}_head.module_list.{index}"
            if config.model.head == "separable":
                names |= _conv_bn_names(f"{layer}_depthwise", f"{module}.0")
                names[f"{layer}_conv"] = f"{module}.1"
            else:
                names[f"{layer}_conv"] = module
    return names


def _read_module(layer, module, state, source):
    """A module's arrays in Keras' layout.

    Convolutions: HWIO (PyTorch: OIHW); depthwise convolutions: HWC1 (PyTorch: C1HW).
    """
    if module in state:
        return [np.asarray(state[module])]
    if isinstance(layer, layers.BatchNormalization):
        names = [f"{module}.{part}" for part in _BATCH_NORM]
        missing = [name for name in names if name not in state]
        if missing:
            raise ConfigError(f"{source} lacks {', '.join(missing)}")
        return [np.asarray(state[name]) for name in names]
    kernel = np.asarray(state[f"{module}.weight"])
    is_depthwise = isinstance(layer, layers.DepthwiseConv2D)
    values = [kernel.transpose(2, 3, 0, 1) if is_depthwise else kernel.transpose(2, 3, 1, 0)]
    if f"{module}.bias" in state:
        values.append(np.asarray(state[f"{module}.bias"]))
    if layer.name.startswith("offsets") and not is_depthwise:
        values = [_swap_coordinates(value) for value in values]
    return values


def _fits(layer, values, module, source):
    """Whether the values have the layer's shapes.

    If not, raises ConfigError, except for class heads: those may have other classes.
    """
    expected = [tuple(weight.shape) for weight in layer.weights]
    found = [value.shape for value in values]
    if found == expected:
        return True
    if not layer.name.startswith(heads.CLASS_HEAD_PREFIX):
        raise ConfigError(
            f"{module} of {source}: layer {layer.name} expected shapes {expected}, got {found}"
        )
    logging.info(
        "%s starts from scratch: %s has other classes (expected shape %s, got %s)",
        layer.name,
        source,
        expected[0],
        found[0],
    )
    return False


def _swap_coordinates(value):
    """Channels dx, dy, dw, dh of each default box -> ours, ty, tx, th, tw."""
    grouped = value.reshape(*value.shape[:-1], -1, 4)
    return grouped[..., [1, 0, 3, 2]].reshape(value.shape)


def _reduce_classifier(state):
    """The state with fc6 and fc7 made from the fully connected layers of the classifier vgg16.

    Every third position and every fourth channel (Chen et al. 2015). Other states stay as they are.
    """
    if np.shape(state.get("classifier.0.weight", ())) != (4096, 25088):
        return state
    wide = np.asarray(state["classifier.0.weight"]).reshape(4096, 512, 7, 7)
    narrow = np.asarray(state["classifier.3.weight"])
    return state | {
        "fc6.weight": wide[::4, :, ::3, ::3],
        "fc6.bias": np.asarray(state["classifier.0.bias"])[::4],
        "fc7.weight": narrow[::4, ::4, None, None],
        "fc7.bias": np.asarray(state["classifier.3.bias"])[::4],
    }
