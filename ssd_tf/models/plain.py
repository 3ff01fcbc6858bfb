"""A small stack of 3x3 convolutions with batch normalisation.

No published network, but one that learns from random weights within minutes on a CPU, where depthwise convolutions need many
times the steps.
"""

from keras import layers

MEAN_RGB = (127.5, 127.5, 127.5)
STD_RGB = (127.5, 127.5, 127.5)

# Channels of the stages of strides 2, 4, 8, ..., before the width multiplier.
_CHANNELS = (16, 32, 64, 96, 128, 128, 128, 128)


def features(image, backbone, levels, bn_momentum):
    """Normalised image [B, H, W, 3] -> `levels` maps of strides backbone.first_stride, then twice that, and so on."""
    first = {8: 2, 16: 3}[backbone.first_stride]
    if first + levels > len(_CHANNELS):
        raise ValueError(
            f"plain gives at most {len(_CHANNELS) - first} maps, model.num_levels asks for {levels}"
        )
    return _stages(image, backbone, bn_momentum, first + levels)[first:]


def pyramid(image, backbone, bn_momentum):
    """The maps of strides 8, 16 and 32."""
    return _stages(image, backbone, bn_momentum, 5)[2:]


def stage_ends(_backbone):
    """Names of the layers that end the stages, one for each stride from 2 to 32."""
    return [f"stage{stage}_conv{min(stage, 2)}_relu" for stage in range(1, 6)]


def _stages(image, backbone, bn_momentum, number):
    x, outputs = image, []
    for stage, channels in enumerate(_CHANNELS[:number], start=1):
        channels = int(channels * backbone.alpha)
        x = _conv(x, channels, 2, bn_momentum, f"stage{stage}_conv1")
        if stage > 1:
            x = _conv(x, channels, 1, bn_momentum, f"stage{stage}_conv2")
        outputs.append(x)
    return outputs


def _conv(x, channels, stride, bn_momentum, name):
    x = layers.Conv2D(
        channels, 3, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    x = layers.BatchNormalization(momentum=bn_momentum, epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
