"""torchvision's state dicts (arrays by name) -> the arrays of our layers."""

import numpy as np

from ssd_tf.config import Backbone, Model
from ssd_tf.errors import ConfigError
from ssd_tf.models import heads, mobilenet, resnet, ssd
from ssd_tf.models.mobilenet_v3 import BLOCKS

# torchvision's VGG16 numbers its modules; these are its convolutions, block by block.
_VGG_MODULES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
# Of batch norm in mobilenet_v2; the other networks have ours.
_EPSILON_V2 = 1e-5
# In the order of Layer.weights, of a convolution and of batch norm.
_PARTS = ("weight", "bias", "running_mean", "running_var")


def convert(state: dict, model: Model, source) -> dict[str, list[np.ndarray]]:
    """The arrays of a state dict as `{our layer: [arrays]}`, for a network of this config section.

    For vgg16: ssd300_vgg16, or the classifier vgg16; for resnets and mobilenet_v2: the classifiers;
    for mobilenet_v3_large: ssdlite320_mobilenet_v3_large, or without its reduced_tail the
    classifier. source: origin of the state, for messages.
    Raises ConfigError if there are no such arrays, or if they are those of a deeper ResNet.
    """
    backbone = model.backbone
    if backbone.name.startswith("resnet"):
        modules = _resnet_names(state, backbone, source)
    else:
        modules = module_names(model, state)
    arrays = {
        name: _read_module(name, module, state)
        for name, module in modules.items()
        if module in state or f"{module}.weight" in state
    }
    if "fc6" not in arrays and "classifier.3.weight" in state and backbone.name == "vgg16":
        arrays |= _thin_classifier(state)
    if not arrays:
        raise ConfigError(f"{source} has no array of torchvision's {backbone.name}")
    if backbone.name == "mobilenet_v2":
        for values in arrays.values():
            if len(values) == len(_PARTS):
                values[0] = gamma_for_epsilon(values[0], values[3], _EPSILON_V2, mobilenet.EPSILON)
    return arrays


def describe(backbone: Backbone, state) -> dict:
    """The keys of model.backbone of the network that the state belongs to, as far as known."""
    name = backbone.name
    known: dict = {"padding": "torch"} if name == "mobilenet_v2" else {}
    if name.startswith("resnet"):
        known["variant"] = "torchvision"
    is_detector = "backbone.scale_weight" in state or (
        name == "mobilenet_v3_large" and backbone.reduced_tail
    )
    if name == "vgg16" and not is_detector and "classifier.0.weight" not in state:
        # Its features alone may be those that Liu et al. trained, normalised as in Caffe.
        return known
    mean, std = ssd.normalization(Backbone(name=name if is_detector else "resnet50"))
    return known | {"mean_rgb": mean, "std_rgb": std}


def gamma_for_epsilon(gamma, variance, theirs, ours):
    """The gamma with which batch norm of epsilon `ours` equals one of epsilon `theirs`."""
    return gamma * np.sqrt((variance + ours) / (variance + theirs))


def thin_vgg16(fc1, fc2) -> dict:
    """Kernels and biases of VGG16's dense layers -> those of our convolutions fc6 and fc7.

    fc1: kernel [7, 7, 512, 4096]; fc2: kernel [4096, 4096]. fc6 (3x3) has every third position and
    every fourth channel, fc7 (1x1) every fourth channel: the decimation of Chen et al. 2015
    (DeepLab), by which Liu et al. made their reduced VGG16.
    """
    return {
        "fc6": [fc1[0][::3, ::3, :, ::4], fc1[1][::4]],
        "fc7": [fc2[0][::4, ::4][None, None], fc2[1][::4]],
    }


def _thin_classifier(state):
    kernel, bias, narrow, narrow_bias = (
        np.asarray(state[f"classifier.{part}"])
        for part in ("0.weight", "0.bias", "3.weight", "3.bias")
    )
    wide = kernel.reshape(4096, 512, 7, 7).transpose(2, 3, 1, 0)
    return thin_vgg16((wide, bias), (narrow.T, narrow_bias))


def _resnet_names(state, backbone, source):
    """Name of our layer -> module, for what the state has of the stages.

    Raises ConfigError if one of them has more blocks: all of resnet18 is found in the weights of a
    resnet34, whose features are others.
    """
    modules = {key.rpartition(".")[0] for key in state if not key.startswith("fc.")}
    for stage, count in enumerate(resnet.BLOCKS[backbone.name], start=1):
        deeper = f"layer{stage}.{count}.conv1"
        if deeper in modules:
            raise ConfigError(
                f"{source} has {deeper}, which {backbone.name} lacks: give the weights of exactly "
                "this network"
            )
    known = ("conv1", "bn1", "layer")
    return {name.replace(".", "_"): name for name in modules if name.startswith(known)}


def module_names(model: Model, state) -> dict[str, str]:
    """Name of our layer -> name of torchvision's module, for layers that have one, but ResNets'.

    Raises ConfigError for a backbone that torchvision has in another form or not at all.
    """
    name = model.backbone.name
    if name == "vgg16":
        if "backbone.scale_weight" in state:
            return _ssd300_names() | _head_names(model)
        return _vgg_names("features")
    if name == "mobilenet_v3_large":
        if model.backbone.reduced_tail:
            return _v3_names(_ssdlite_module, "backbone.features.1.3") | _ssdlite_names(model)
        return _v3_names(_classifier_module, "features.16")
    if name == "mobilenet_v2":
        return _v2_names()
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
        parts = ["depthwise", "project"] if index == 1 else ["expand", "depthwise", "project"]
        if block.squeeze_and_excite:
            parts.insert(-1, "squeeze")
        for position, part in enumerate(parts):
            module = module_of(index, position)
            if part == "squeeze":
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


def _ssdlite_names(model):
    """The extra layers and the heads."""
    names = _head_names(model)
    for extra in range(4):
        for position, part in enumerate(("reduce", "depthwise", "expand")):
            module = f"backbone.extra.{extra}.{position}"
            names |= _conv_bn_names(f"extra{extra + 1}_{part}", module)
    return names


def _conv_bn_names(layer, module):
    return {layer: f"{module}.0", f"{layer}_bn": f"{module}.1"}


def _head_names(model):
    names = {}
    for index in range(model.num_levels):
        for head, torch_head in (("logits", "classification"), ("offsets", "regression")):
            layer = f"{head}{index}"
            module = f"head.{torch_head}_head.module_list.{index}"
            if model.head == "separable":
                names |= _conv_bn_names(f"{layer}_depthwise", f"{module}.0")
                names[f"{layer}_conv"] = f"{module}.1"
            else:
                names[f"{layer}_conv"] = module
    return names


def _read_module(name, module, state):
    """A module's arrays in Keras' layout, for the layer of that name.

    Convolutions: HWIO (PyTorch: OIHW); depthwise convolutions: HWC1 (PyTorch: C1HW).
    """
    if module in state:
        return [np.asarray(state[module])]
    keys = [f"{module}.{part}" for part in _PARTS]
    values = [np.asarray(state[key]) for key in keys if key in state]
    if values[0].ndim == 4:
        order = (2, 3, 0, 1) if name.endswith("_depthwise") else (2, 3, 1, 0)
        values[0] = values[0].transpose(order)
    if heads.is_box_head(name):
        values = [swap_coordinates(value) for value in values]
    return values


def swap_coordinates(value) -> np.ndarray:
    """Groups of four in the last axis, x before y, as dx, dy, dw, dh -> ours, ty, tx, th, tw."""
    grouped = value.reshape(*value.shape[:-1], -1, 4)
    return grouped[..., [1, 0, 3, 2]].reshape(value.shape)
