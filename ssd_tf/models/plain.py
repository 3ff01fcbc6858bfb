"""A small stack of 3x3 convolutions with batch normalisation.

Not a published network, but one that learns from random weights within minutes on a CPU, where
depthwise convolutions need many times the steps. models/ssd.py lists what a backbone offers.
"""

from keras import layers

from ssd_tf.models.batch_norm import BatchNormalization

MEAN_RGB = (127.5, 127.5, 127.5)
STD_RGB = (127.5, 127.5, 127.5)
INITIALIZER = "glorot_uniform"

# Channels of the stages of strides 2, 4, 8, ..., before the width multiplier.
_CHANNELS = (16, 32, 64, 96, 128, 128, 128, 128)


def features(image, backbone, num_levels):
    """num_levels maps of strides backbone.first_stride, twice that, and so on."""
    first = {8: 2, 16: 3}[backbone.first_stride]
    most = len(_CHANNELS) - first
    if num_levels > most:
        raise ValueError(f"plain gives at most {most} maps, model.num_levels asks for {num_levels}")
    return _stages(image, backbone, first + num_levels)[first:]


def pyramid(image, backbone):
    """The maps of strides 8, 16 and 32."""
    return _stages(image, backbone, 5)[2:]


def stage_ends(backbone):  # noqa: ARG001 - all sizes have the same names
    """The last layer of each stage, one stage for each stride from 2 to 32."""
    return [f"stage{stage}_conv{min(stage, 2)}_relu" for stage in range(1, 6)]


def _stages(image, backbone, num_stages):
    """The outputs of the first num_stages stages."""
    x = image
    outputs = []
    for stage, base_channels in enumerate(_CHANNELS[:num_stages], start=1):
        channels = int(base_channels * backbone.alpha)
        x = _conv(x, channels, 2, f"stage{stage}_conv1")
        if stage > 1:
            x = _conv(x, channels, 1, f"stage{stage}_conv2")
        outputs.append(x)
    return outputs


def _conv(x, channels, stride, name):
    x = layers.Conv2D(
        channels, 3, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    x = BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
