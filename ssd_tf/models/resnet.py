"""ResNets (He et al. 2015) as in torchvision, v1.5, or as in the TF Object Detection API, v1.

v1.5: a bottleneck strides in its 3x3 convolution; v1: in the 1x1 convolution before it.
Layers are named after torchvision's modules, with `_` for `.`: layer3_0_conv2 is layer3.0.conv2.
models/ssd.py lists what a backbone offers.
"""

import typing

from keras import initializers, layers

from ssd_tf.errors import InputTooSmallError
from ssd_tf.models import mobilenet
from ssd_tf.models.batch_norm import BatchNormalization

# Of torchvision's classification weights: ImageNet's mean and standard deviation, times 255.
MEAN_RGB = (123.675, 116.28, 103.53)
STD_RGB = (58.395, 57.12, 57.375)
INITIALIZER = "glorot_uniform"

# Number of blocks of conv2 to conv5.
BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
_WITH_BASICBLOCKS = ("resnet18", "resnet34")  # the others have bottlenecks


class _Variant(typing.NamedTuple):
    """What differs between the variants that the config names."""

    strided: int  # the convolution of a bottleneck that strides: 1 or 2
    activation: str
    epsilon: float
    pads_pool_as_same: bool


_VARIANTS = {
    "torchvision": _Variant(2, "relu", 1e-5, False),
    # models/keras_models/resnet_v1.py there, with override_base_feature_extractor_hyperparams.
    "od_api": _Variant(1, "relu6", mobilenet.EPSILON, True),
}
_TORCHVISION = _VARIANTS["torchvision"]


class _Extra(typing.NamedTuple):
    """An extra stage; stride 2 pads one pixel on every side, stride 1 none."""

    reduced_channels: int  # of the 1x1 convolution
    channels: int  # of the 3x3 convolution
    stride: int


_EXTRAS = (
    _Extra(256, 512, 2),
    _Extra(256, 512, 2),
    _Extra(128, 256, 2),
    _Extra(128, 256, 1),
    _Extra(128, 256, 1),
)
_RESNET18_LAST_EXTRA = _Extra(128, 128, 1)


def features(image, backbone, num_levels):
    """num_levels maps: conv4 without its stride, then extra layers; at 300: 38, 19, 10, 5, 3, 1.

    The form of NVIDIA's SSD300 v1.1 and MLPerf's ssd-v1, without conv5.
    Source: NVIDIA DeepLearningExamples, PyTorch/Detection/SSD/ssd/model.py (MLPerf's extra layers
    have no batch norm).
    """
    extras = _EXTRAS
    if backbone.name == "resnet18":
        extras = (*_EXTRAS[:-1], _RESNET18_LAST_EXTRA)
    most = 1 + len(extras)
    if num_levels > most:
        raise ValueError(
            f"{backbone.name} gives at most {most} maps, model.num_levels asks for {num_levels}"
        )
    x = _stages(image, backbone, (1, 2, 1))[-1]
    maps = [x]
    for index, extra in enumerate(extras[: num_levels - 1], start=1):
        x = _extra(x, extra, backbone.alpha, f"extra{index}")
        maps.append(x)
    return maps


def pyramid(image, backbone):
    """The maps of strides 8, 16 and 32: conv3, conv4 and conv5, each with its stride."""
    return _stages(image, backbone, (1, 2, 2, 2))[-3:]


def stage_ends(backbone):
    """The last layer of each stage: the stem, then conv2 to conv5."""
    counts = BLOCKS[backbone.name]
    ends = [f"layer{stage}_{count - 1}_relu" for stage, count in enumerate(counts, start=1)]
    return ["maxpool", *ends]


def _stages(image, backbone, strides):
    """The outputs of the first len(strides) stages after the stem."""
    variant = _VARIANTS[backbone.variant]
    width = int(64 * backbone.alpha)
    x = _conv_bn(image, width, (7, 2), "conv1", variant)
    x = _max_pool(_activate(x, "relu", variant), variant)
    block = _basic_block if backbone.name in _WITH_BASICBLOCKS else _bottleneck
    counts = BLOCKS[backbone.name]
    outputs = []
    for stage, (count, first_stride) in enumerate(zip(counts, strides, strict=False), start=1):
        channels = width * 2 ** (stage - 1)
        for index in range(count):
            stride = first_stride if index == 0 else 1
            x = block(x, channels, stride, f"layer{stage}_{index}", variant)
        outputs.append(x)
    return outputs


def _max_pool(x, variant):
    if variant.pads_pool_as_same:
        return layers.MaxPooling2D(3, 2, "same", name="maxpool")(x)
    x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)  # zeros never exceed what the ReLU gives
    return layers.MaxPooling2D(3, 2, name="maxpool")(x)


def _basic_block(x, channels, stride, name, variant):
    y = _conv_bn(x, channels, (3, stride), f"{name}_conv1", variant)
    y = _activate(y, f"{name}_relu1", variant)
    y = _conv_bn(y, channels, (3, 1), f"{name}_conv2", variant)
    x = _shortcut(x, channels, stride, name, variant)
    return _activate(layers.Add(name=f"{name}_add")([x, y]), f"{name}_relu", variant)


def _bottleneck(x, channels, stride, name, variant):
    strides = (stride, 1) if variant.strided == 1 else (1, stride)
    y = _conv_bn(x, channels, (1, strides[0]), f"{name}_conv1", variant)
    y = _activate(y, f"{name}_relu1", variant)
    y = _conv_bn(y, channels, (3, strides[1]), f"{name}_conv2", variant)
    y = _activate(y, f"{name}_relu2", variant)
    y = _conv_bn(y, channels * 4, (1, 1), f"{name}_conv3", variant)
    x = _shortcut(x, channels * 4, stride, name, variant)
    return _activate(layers.Add(name=f"{name}_add")([x, y]), f"{name}_relu", variant)


def _shortcut(x, channels, stride, name, variant):
    """The input of a block, projected if the block changes its shape."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    return _conv_bn(x, channels, (1, stride), f"{name}_downsample_0", variant)


def _conv_bn(x, channels, size_and_stride, name, variant):
    """A convolution that pads size // 2 pixels on every side, then batch norm."""
    size, stride = size_and_stride
    padding = "same"
    if stride > 1 and size > 1:
        # "same" would pad an even map at the far side only.
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    initializer = initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    x = layers.Conv2D(
        channels, size, stride, padding, use_bias=False, kernel_initializer=initializer, name=name
    )(x)
    bn_name = name.replace("conv", "bn").replace("downsample_0", "downsample_1")
    return _batch_norm(x, bn_name, variant)


def _activate(x, name, variant):
    return layers.Activation(variant.activation, name=name)(x)


def check_window(x, size, pad, name):
    """Raise InputTooSmallError unless a kernel of `size` fits on x [B, H, W, channels].

    pad: pixels added on every side; name: of the layer.
    """
    if min(x.shape[1:3]) + 2 * pad < size:
        raise InputTooSmallError(
            f"the input is too small for {name}, on {x.shape[1]} x {x.shape[2]} pixels"
        )


def _extra(x, extra, alpha, name):
    x = layers.Conv2D(
        int(extra.reduced_channels * alpha),
        1,
        use_bias=False,
        kernel_initializer=INITIALIZER,
        name=f"{name}_reduce",
    )(x)
    x = _batch_norm(x, f"{name}_reduce_bn", _TORCHVISION)
    x = layers.ReLU(name=f"{name}_reduce_relu")(x)
    pad = 1 if extra.stride == 2 else 0
    check_window(x, 3, pad, f"{name}_conv")
    if pad:
        x = layers.ZeroPadding2D(pad, name=f"{name}_conv_pad")(x)
    x = layers.Conv2D(
        int(extra.channels * alpha),
        3,
        extra.stride,
        use_bias=False,
        kernel_initializer=INITIALIZER,
        name=f"{name}_conv",
    )(x)
    x = _batch_norm(x, f"{name}_conv_bn", _TORCHVISION)
    return layers.ReLU(name=f"{name}_relu")(x)


def _batch_norm(x, name, variant):
    return BatchNormalization(epsilon=variant.epsilon, name=name)(x)
