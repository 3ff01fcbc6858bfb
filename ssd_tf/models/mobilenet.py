"""MobileNet v1 (Howard et al. 2017) with a width multiplier, from keras.applications, and light extra layers."""

import keras
from keras import layers

# Channels of the extra maps before the width multiplier.
_EXTRAS = (512, 256, 256, 128, 128, 128)
# Layers that end a stride, the last ones of their resolution.
_ENDS = {8: "conv_pw_5_relu", 16: "conv_pw_11_relu", 32: "conv_pw_13_relu"}


def features(image, alpha=1.0, levels=6, first_stride=16, bn_momentum=0.99):
    """RGB image tensor [B, H, W, 3] in 0..255 -> `levels` feature maps of strides first_stride, then twice that, and so on."""
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalize")(image)
    network = keras.applications.MobileNet(
        input_tensor=x, input_shape=image.shape[1:], alpha=alpha, include_top=False, weights=None
    )
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = bn_momentum
    maps = [network.get_layer(name).output for stride, name in _ENDS.items() if stride >= first_stride]
    x = maps[-1]
    for index, channels in enumerate(_EXTRAS[: max(levels - len(maps), 0)], start=1):
        x = _extra(x, max(int(channels * alpha), 64), bn_momentum, f"extra{index}")
        maps.append(x)
    if len(maps) < levels:
        raise ValueError(f"mobilenet gives at most {len(maps)} maps, model.levels asks for {levels}")
    return maps[:levels]


def _extra(x, channels, bn_momentum, name):
    """Halves the map: 1x1 to half the channels, depthwise 3x3 of stride 2, 1x1 to the channels."""
    x = conv_bn(layers.Conv2D(channels // 2, 1, use_bias=False, name=f"{name}_reduce"), x, bn_momentum)
    x = conv_bn(layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False, name=f"{name}_depthwise"), x, bn_momentum)
    return conv_bn(layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_expand"), x, bn_momentum)


def conv_bn(convolution, x, bn_momentum):
    """A convolution, batch normalisation (eps 1e-3 as in MobileNet) and ReLU6."""
    x = convolution(x)
    x = layers.BatchNormalization(momentum=bn_momentum, epsilon=1e-3, name=f"{convolution.name}_bn")(x)
    return layers.ReLU(6.0, name=f"{convolution.name}_relu")(x)
