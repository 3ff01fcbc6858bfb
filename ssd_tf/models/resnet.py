"""ResNet v1.5 (He et al. 2015) in torchvision's layout: the stride sits in the 3x3 convolution of a bottleneck.

Layers are called as torchvision calls its modules, with `_` for `.`: layer3_0_conv2 is layer3.0.conv2.
"""

from keras import initializers, layers

from ssd_tf.models import limits

# Of torchvision's classification weights: ImageNet's mean and deviation, times 255.
MEAN_RGB = (123.675, 116.28, 103.53)
STD_RGB = (58.395, 57.12, 57.375)

_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
_PLAIN = ("resnet18", "resnet34")  # two 3x3 convolutions a block; the others have bottlenecks

# Per extra stage: 1x1 channels, 3x3 channels, stride of the 3x3. Stride 2 pads by one pixel on every side, stride 1 by none.
_EXTRAS = ((256, 512, 2), (256, 512, 2), (128, 256, 2), (128, 256, 1), (128, 256, 1))


def features(image, backbone, levels, bn_momentum):
    """The form of NVIDIA's SSD300 v1.1 and MLPerf's ssd-v1: conv4 without its stride, conv5 cut off, then extra layers.

    At 300 x 300 the six maps are 38, 19, 10, 5, 3, 1.
    Source: NVIDIA DeepLearningExamples, PyTorch/Detection/SSD/ssd/model.py (MLPerf's extra layers have no batch norm).
    """
    if levels > 1 + len(_EXTRAS):
        raise ValueError(
            f"{backbone.name} gives at most {1 + len(_EXTRAS)} maps, model.num_levels asks for {levels}"
        )
    x = _stages(image, backbone, bn_momentum, strides=(1, 2, 1))[-1]
    maps = [x]
    for index, (narrow, wide, stride) in enumerate(_EXTRAS[: levels - 1], start=1):
        if backbone.name == "resnet18" and index == len(_EXTRAS):
            wide = 128
        narrow, wide = int(narrow * backbone.alpha), int(wide * backbone.alpha)
        x = _relu(
            _conv_bn(x, narrow, 1, 1, bn_momentum, f"extra{index}_reduce", "glorot_uniform"),
            f"extra{index}_reduce_relu",
        )
        padding, pad = ("same", 1) if stride == 2 else ("valid", 0)
        limits.check_window(x, 3, pad, f"extra{index}_conv")
        x = _conv_bn(
            x, wide, 3, stride, bn_momentum, f"extra{index}_conv", "glorot_uniform", padding
        )
        x = _relu(x, f"extra{index}_relu")
        maps.append(x)
    return maps


def pyramid(image, backbone, bn_momentum):
    """The maps of strides 8, 16 and 32: conv3, conv4 and conv5, each with its stride."""
    return _stages(image, backbone, bn_momentum, strides=(1, 2, 2, 2))[-3:]


def stage_ends(backbone):
    """Names of the layers that end the stages: the stem, then conv2 to conv5."""
    counts = _BLOCKS[backbone.name]
    return [
        "maxpool",
        *(f"layer{stage}_{count - 1}_relu" for stage, count in enumerate(counts, start=1)),
    ]


def _stages(image, backbone, bn_momentum, strides):
    """Image -> the output of each of the first len(strides) stages after the stem."""
    name, width = backbone.name, int(64 * backbone.alpha)
    x = _relu(_conv_bn(image, width, 7, 2, bn_momentum, "conv1", bn_name="bn1"), "relu")
    x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)  # nothing is below zero after the activation
    x = layers.MaxPooling2D(3, 2, name="maxpool")(x)
    block = _plain if name in _PLAIN else _bottleneck
    outputs = []
    for stage, (count, stride) in enumerate(zip(_BLOCKS[name], strides, strict=False), start=1):
        for index in range(count):
            x = block(
                x,
                width * 2 ** (stage - 1),
                stride if index == 0 else 1,
                bn_momentum,
                f"layer{stage}_{index}",
                index == 0,
            )
        outputs.append(x)
    return outputs


def _plain(x, channels, stride, bn_momentum, name, first):
    y = _relu(_conv_bn(x, channels, 3, stride, bn_momentum, f"{name}_conv1"), f"{name}_relu1")
    y = _conv_bn(y, channels, 3, 1, bn_momentum, f"{name}_conv2")
    if first and name != "layer1_0":
        x = _downsample(x, channels, stride, bn_momentum, name)
    return _relu(layers.Add(name=f"{name}_add")([x, y]), f"{name}_relu")


def _bottleneck(x, channels, stride, bn_momentum, name, first):
    y = _relu(_conv_bn(x, channels, 1, 1, bn_momentum, f"{name}_conv1"), f"{name}_relu1")
    y = _relu(_conv_bn(y, channels, 3, stride, bn_momentum, f"{name}_conv2"), f"{name}_relu2")
    y = _conv_bn(y, channels * 4, 1, 1, bn_momentum, f"{name}_conv3")
    if first:
        x = _downsample(x, channels * 4, stride, bn_momentum, name)
    return _relu(layers.Add(name=f"{name}_add")([x, y]), f"{name}_relu")


def _downsample(x, channels, stride, bn_momentum, name):
    return _conv_bn(
        x, channels, 1, stride, bn_momentum, f"{name}_downsample_0", bn_name=f"{name}_downsample_1"
    )


def _conv_bn(
    x, channels, size, stride, bn_momentum, name, initializer=None, padding="same", bn_name=None
):
    """A convolution that pads `size // 2` pixels on every side, also where it strides, as PyTorch does; then batch norm."""
    if stride > 1 and size > 1:
        # "same" pads an even map at the far side only.
        x, padding = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x), "valid"
    initializer = initializer or initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    x = layers.Conv2D(
        channels, size, stride, padding, use_bias=False, kernel_initializer=initializer, name=name
    )(x)
    bn_name = bn_name or (name.replace("conv", "bn") if name.startswith("layer") else f"{name}_bn")
    return layers.BatchNormalization(momentum=bn_momentum, epsilon=1e-5, name=bn_name)(x)


def _relu(x, name):
    return layers.ReLU(name=name)(x)
