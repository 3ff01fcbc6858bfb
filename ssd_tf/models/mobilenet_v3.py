"""MobileNet v3-Large (Howard et al. 2019) as in torchvision, with a reduced tail or without.

Its convolutions pad as PyTorch does, by half the kernel on every side.
models/ssd.py lists what a backbone offers.
"""

import typing

from keras import layers

from ssd_tf.models import mobilenet

MEAN_RGB = (127.5, 127.5, 127.5)
STD_RGB = (127.5, 127.5, 127.5)
# Of every convolution, in the backbone too; biases start at 0
# (torchvision, models/detection/ssdlite.py, _normal_init).
INITIALIZER = {"class_name": "RandomNormal", "config": {"stddev": 0.03}}


class Block(typing.NamedTuple):
    """A row of table 1 of the paper, an inverted residual block."""

    kernel_size: int
    expanded_channels: int
    channels: int
    squeeze_and_excite: bool
    activation: str
    stride: int


BLOCKS = (
    Block(3, 16, 16, False, "relu", 1),
    Block(3, 64, 24, False, "relu", 2),
    Block(3, 72, 24, False, "relu", 1),
    Block(5, 72, 40, True, "relu", 2),
    Block(5, 120, 40, True, "relu", 1),
    Block(5, 120, 40, True, "relu", 1),
    Block(3, 240, 80, False, "hard_swish", 2),
    Block(3, 200, 80, False, "hard_swish", 1),
    Block(3, 184, 80, False, "hard_swish", 1),
    Block(3, 184, 80, False, "hard_swish", 1),
    Block(3, 480, 112, True, "hard_swish", 1),
    Block(3, 672, 112, True, "hard_swish", 1),
    Block(5, 672, 160, True, "hard_swish", 2),
    Block(5, 960, 160, True, "hard_swish", 1),
    Block(5, 960, 160, True, "hard_swish", 1),
)
# With the reduced tail (sec. 6.3) these have half the channels, as SSDLite has them.
_TAIL = (
    Block(5, 672, 80, True, "hard_swish", 2),
    Block(5, 480, 80, True, "hard_swish", 1),
    Block(5, 480, 80, True, "hard_swish", 1),
)
# The blocks whose expansions are the maps of strides 8 and 16; stride 32 is the last convolution.
_STRIDE_OF_BLOCK = {7: 8, 13: 16}


def features(image, backbone, num_levels):
    """num_levels maps of strides backbone.first_stride, twice that, and so on."""
    maps = _maps(image, backbone)
    maps = [feature for stride, feature in maps.items() if stride >= backbone.first_stride]
    return mobilenet.add_extras(maps, backbone, num_levels, INITIALIZER, pad_like_torch=True)


def pyramid(image, backbone):
    """The maps of strides 8, 16 and 32."""
    return list(_maps(image, backbone).values())


def stage_ends(backbone):  # noqa: ARG001 - of one size
    """The last layer of each stage, one stage for each stride from 2 to 32."""
    return ["block1_add", "block3_add", "block6_add", "block12_add", "last_hard_swish"]


def _maps(image, backbone):
    """{stride: feature map} for the strides 8, 16 and 32."""
    maps = {}
    stem = _conv(mobilenet.round_channels(16 * backbone.alpha), 3, 2, "stem")
    x = _conv_bn(image, stem, "hard_swish")
    blocks = (*BLOCKS[:-3], *_TAIL) if backbone.reduced_tail else BLOCKS
    for index, block in enumerate(blocks, start=1):
        name = f"block{index}"
        expanded = _expand(x, block, backbone.alpha, name)
        if index in _STRIDE_OF_BLOCK:
            maps[_STRIDE_OF_BLOCK[index]] = expanded
        y = _project(expanded, block, backbone.alpha, name)
        if block.stride == 1 and x.shape == y.shape:
            y = layers.Add(name=f"{name}_add")([x, y])
        x = y
    last = _conv(6 * x.shape[-1], 1, 1, "last")
    maps[32] = _conv_bn(x, last, "hard_swish")
    return maps


def _expand(x, block, alpha, name):
    """The 1x1 convolution to the block's expanded channels, if x does not have them already."""
    channels = mobilenet.round_channels(block.expanded_channels * alpha)
    if channels == x.shape[-1]:
        return x
    expand = _conv(channels, 1, 1, f"{name}_expand")
    return _conv_bn(x, expand, block.activation)


def _project(x, block, alpha, name):
    """The rest of a block: depthwise convolution, squeeze-and-excite, 1x1 convolution."""
    padding = "same" if block.stride == 1 else "valid"
    depthwise = layers.DepthwiseConv2D(
        block.kernel_size,
        block.stride,
        padding,
        use_bias=False,
        depthwise_initializer=INITIALIZER,
        name=f"{name}_depthwise",
    )
    x = _conv_bn(x, depthwise, block.activation)
    if block.squeeze_and_excite:
        x = _squeeze_and_excite(x, mobilenet.round_channels(x.shape[-1] // 4), name)
    project = _conv(mobilenet.round_channels(block.channels * alpha), 1, 1, f"{name}_project")
    return _conv_bn(x, project, None)


def _conv(channels, size, stride, name):
    """A convolution layer without bias; _conv_bn pads before those that stride."""
    padding = "same" if stride == 1 else "valid"
    return layers.Conv2D(
        channels, size, stride, padding, use_bias=False, kernel_initializer=INITIALIZER, name=name
    )


def _conv_bn(x, convolution, activation):
    """Half the kernel of padding on every side if it strides, then mobilenet.conv_bn."""
    if convolution.strides[0] > 1:
        pad = convolution.kernel_size[0] // 2
        x = layers.ZeroPadding2D(pad, name=f"{convolution.name}_pad")(x)
    return mobilenet.conv_bn(x, convolution, activation)


def _squeeze_and_excite(x, channels, name):
    """Multiplies each channel by a gate in 0..1 that is computed from the means of all channels."""
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    gate = layers.Conv2D(
        channels, 1, activation="relu", kernel_initializer=INITIALIZER, name=f"{name}_squeeze"
    )(gate)
    gate = layers.Conv2D(
        x.shape[-1],
        1,
        activation="hard_sigmoid",
        kernel_initializer=INITIALIZER,
        name=f"{name}_excite",
    )(gate)
    return layers.Multiply(name=f"{name}_scale")([x, gate])
