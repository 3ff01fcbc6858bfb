"""MobileNet v1 (Howard et al. 2017) and v2 (Sandler et al. 2018) with a width multiplier, and light extra layers.

Both come from keras.applications, so that its ImageNet weights fit.
"""

import keras
from keras import layers

MEAN_RGB = (127.5, 127.5, 127.5)
STD_RGB = (127.5, 127.5, 127.5)

# Channels of the extra maps before the width multiplier.
_EXTRAS = (512, 256, 256, 128, 128, 128)
# Layers whose outputs are the maps of a stride. Of v2 the expansions before the strides to 16 and 32, as its SSDLite has them.
_MAPS = {
    "mobilenet": {8: "conv_pw_5_relu", 16: "conv_pw_11_relu", 32: "conv_pw_13_relu"},
    "mobilenet_v2": {8: "block_6_expand_relu", 16: "block_13_expand_relu", 32: "out_relu"},
}
_STAGE_ENDS = {
    "mobilenet": (
        "conv_pw_1_relu",
        "conv_pw_3_relu",
        "conv_pw_5_relu",
        "conv_pw_11_relu",
        "conv_pw_13_relu",
    ),
    "mobilenet_v2": (
        "expanded_conv_project_BN",
        "block_2_add",
        "block_5_add",
        "block_12_add",
        "out_relu",
    ),
}


def features(image, backbone, levels, bn_momentum):
    """Normalised image [B, H, W, 3] -> `levels` maps of strides backbone.first_stride, then twice that, and so on."""
    network = _network(image, backbone, bn_momentum)
    maps = [
        network.get_layer(name).output
        for stride, name in _MAPS[backbone.name].items()
        if stride >= backbone.first_stride
    ]
    return add_extras(maps, levels, backbone, bn_momentum)


def pyramid(image, backbone, bn_momentum):
    """The maps of strides 8, 16 and 32."""
    network = _network(image, backbone, bn_momentum)
    return [network.get_layer(name).output for name in _MAPS[backbone.name].values()]


def stage_ends(backbone):
    """Names of the layers that end the stages, one for each stride from 2 to 32."""
    return _STAGE_ENDS[backbone.name]


def add_extras(maps, levels, backbone, bn_momentum, symmetric=False, initializer="glorot_uniform"):
    """Goes on from the last of `maps` until there are `levels`; raises ValueError where that is too many.

    symmetric: the strides pad one pixel on every side as PyTorch does, not at the far side of even maps only.
    initializer: of the kernels.
    """
    maps, x = list(maps), maps[-1]
    for index, channels in enumerate(_EXTRAS[: max(levels - len(maps), 0)], start=1):
        channels = max(int(channels * backbone.alpha), 64)
        x = _extra(x, channels, bn_momentum, f"extra{index}", symmetric, initializer)
        maps.append(x)
    if len(maps) < levels:
        raise ValueError(
            f"{backbone.name} gives at most {len(maps)} maps, model.num_levels asks for {levels}"
        )
    return maps[:levels]


def conv_bn(convolution, x, bn_momentum, activation="relu6"):
    """A convolution, batch normalisation (eps 1e-3 as in every MobileNet) and an activation or None."""
    x = convolution(x)
    x = layers.BatchNormalization(
        momentum=bn_momentum, epsilon=1e-3, name=f"{convolution.name}_bn"
    )(x)
    return (
        layers.Activation(activation, name=f"{convolution.name}_{activation}")(x)
        if activation
        else x
    )


def _network(image, backbone, bn_momentum):
    if min(image.shape[1:3]) < 32:  # Keras' own rule, which it tells in words of its own
        raise ValueError(f"{backbone.name} wants an input of at least 32 x 32 pixels")
    application = (
        keras.applications.MobileNet
        if backbone.name == "mobilenet"
        else keras.applications.MobileNetV2
    )
    network = application(
        input_tensor=image,
        input_shape=image.shape[1:],
        alpha=backbone.alpha,
        include_top=False,
        weights=None,
    )
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = bn_momentum
    return network


def _extra(x, channels, bn_momentum, name, symmetric, initializer):
    """Halves the map: 1x1 to half the channels, depthwise 3x3 of stride 2, 1x1 to the channels (SSDLite, Sandler et al. 2018)."""
    options = {"use_bias": False, "kernel_initializer": initializer}
    x = conv_bn(layers.Conv2D(channels // 2, 1, name=f"{name}_reduce", **options), x, bn_momentum)
    padding = "same"
    if symmetric:
        x, padding = layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"
    depthwise = {
        "use_bias": False,
        "depthwise_initializer": initializer,
        "name": f"{name}_depthwise",
    }
    x = conv_bn(layers.DepthwiseConv2D(3, 2, padding=padding, **depthwise), x, bn_momentum)
    return conv_bn(layers.Conv2D(channels, 1, name=f"{name}_expand", **options), x, bn_momentum)
