"""VGG16 reduced and extended for SSD (Liu et al. 2016, sec. 3), fully convolutional.

models/ssd.py lists what a backbone offers.
"""

import typing

import keras
from keras import layers

from ssd_tf.models import resnet

# Of ImageNet in RGB, as VGG16's weights were trained with.
MEAN_RGB = (123.68, 116.779, 103.939)
STD_RGB = (1.0, 1.0, 1.0)
INITIALIZER = "glorot_uniform"

# Channels and number of the 3x3 convolutions of each block.
_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class _Extra(typing.NamedTuple):
    """An extra stage: a 1x1 convolution, then one that shrinks the map."""

    reduced_channels: int
    channels: int
    size: int
    stride: int
    pad: int  # pixels added on every side before the second convolution


_EXTRAS_300 = (
    _Extra(256, 512, 3, 2, 1),
    _Extra(128, 256, 3, 2, 1),
    _Extra(128, 256, 3, 1, 0),
    _Extra(128, 256, 3, 1, 0),
)
_EXTRAS_512 = (
    _Extra(256, 512, 3, 2, 1),
    _Extra(128, 256, 3, 2, 1),
    _Extra(128, 256, 3, 2, 1),
    _Extra(128, 256, 3, 2, 1),
    _Extra(128, 256, 4, 1, 1),
)


def features(image, backbone, num_levels):  # noqa: ARG001 - of one size, no batch norm
    """num_levels maps; at 300 x 300: 38, 19, 10, 5, 3, 1.

    Seven levels are SSD512 of the original Caffe code (at 512 x 512: 64, 32, 16, 8, 4, 2, 1), which
    has more strides and ends in a 4x4 convolution.
    The first map is conv4_3, L2-normalised over its channels with a learned scale that starts at 20
    (ParseNet, Liu et al. 2015), the second fc7.
    """
    if num_levels > 7:
        raise ValueError(f"vgg16 gives at most 7 maps, model.num_levels asks for {num_levels}")
    x = image
    for block, (channels, count) in enumerate(_BLOCKS, start=1):
        for index in range(1, count + 1):
            x = _conv(x, channels, 3, f"conv{block}_{index}")
        if block == 4:
            conv4_3 = L2Normalization(name="conv4_3_norm")(x)
        if block < 5:
            # "same" pads odd maps at the far side only: the ceil mode of Caffe's pool3 (75 -> 38).
            x = layers.MaxPooling2D(2, 2, padding="same", name=f"pool{block}")(x)
    x = layers.MaxPooling2D(3, 1, padding="same", name="pool5")(x)
    x = _conv(x, 1024, 3, "fc6", dilation_rate=6)
    x = _conv(x, 1024, 1, "fc7")
    maps = [conv4_3, x]
    extras = _EXTRAS_512 if num_levels == 7 else _EXTRAS_300
    for index, extra in enumerate(extras[: num_levels - 2], start=6):
        x = _extra(x, extra, f"conv{index}")
        maps.append(x)
    return maps


def pyramid(image, backbone):  # noqa: ARG001
    """Raise ValueError: nothing before the extra layers has stride 32."""
    raise ValueError("vgg16 has no map of stride 32 for the fpn neck; take another backbone")


def stage_ends(backbone):  # noqa: ARG001 - of one size
    """The last layer of each stage: the four poolings, then conv5_3."""
    return ["pool1", "pool2", "pool3", "pool4", "conv5_3"]


def _extra(x, extra, name):
    x = _conv(x, extra.reduced_channels, 1, f"{name}_1")
    resnet.check_window(x, extra.size, extra.pad, f"{name}_2")
    if extra.pad:
        x = layers.ZeroPadding2D(extra.pad, name=f"{name}_2_pad")(x)
    return _conv(x, extra.channels, extra.size, f"{name}_2", strides=extra.stride, padding="valid")


def _conv(x, channels, size, name, padding="same", **kwargs):
    return layers.Conv2D(
        channels,
        size,
        padding=padding,
        activation="relu",
        kernel_initializer=INITIALIZER,
        name=name,
        **kwargs,
    )(x)


@keras.saving.register_keras_serializable("ssd_tf")
class L2Normalization(layers.Layer):
    """Divides the channels of each position by their L2 norm and multiplies by a learned scale.

    It starts at 20 (Liu et al. 2016, sec. 3.1).
    """

    def build(self, input_shape):
        self.scale = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(20.0),
            name="scale",
        )

    def call(self, inputs):
        # A sum of 512 squares needs float32 under every policy.
        # 1e-10 under the root, as in the original Normalize layer: an all-zero position stays zero.
        x = keras.ops.cast(inputs, "float32")
        norm = keras.ops.sqrt(keras.ops.sum(keras.ops.square(x), -1, keepdims=True) + 1e-10)
        return keras.ops.cast(x / norm, self.compute_dtype) * self.scale
