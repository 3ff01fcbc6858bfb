"""MobileNet v1 (Howard et al. 2017) and v2 (Sandler et al. 2018), and light extra layers.

Both networks come from keras.applications, so that its ImageNet weights fit.
models/ssd.py lists what a backbone offers.
"""

import keras
from keras import layers

from ssd_tf.models.batch_norm import BatchNormalization

MEAN_RGB = (127.5, 127.5, 127.5)
STD_RGB = (127.5, 127.5, 127.5)
INITIALIZER = "glorot_uniform"

# Channels of the extra maps before the width multiplier.
_EXTRAS = (512, 256, 256, 128, 128, 128)
# The layer whose output is the map of a stride. Of v2 the expansions before the strides to 16 and
# 32, as in its SSDLite.
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


def features(image, backbone, num_levels):
    """num_levels maps of strides backbone.first_stride, twice that, and so on."""
    network = _network(image, backbone)
    maps = [
        network.get_layer(name).output
        for stride, name in _MAPS[backbone.name].items()
        if stride >= backbone.first_stride
    ]
    return add_extras(maps, backbone, num_levels, INITIALIZER, pad_like_torch=False)


def pyramid(image, backbone):
    """The maps of strides 8, 16 and 32."""
    network = _network(image, backbone)
    return [network.get_layer(name).output for name in _MAPS[backbone.name].values()]


def stage_ends(backbone):
    """The last layer of each stage, one stage for each stride from 2 to 32."""
    return _STAGE_ENDS[backbone.name]


def add_extras(maps, backbone, num_levels, initializer, pad_like_torch):
    """The maps, cut or continued from the last one to num_levels.

    initializer: of the kernels.
    pad_like_torch: strided convolutions pad one pixel on every side, instead of even maps at the
    far side only. Raises ValueError for more levels than there are extra layers.
    """
    maps = list(maps)
    num_extras = max(num_levels - len(maps), 0)
    for index, base_channels in enumerate(_EXTRAS[:num_extras], start=1):
        channels = max(int(base_channels * backbone.alpha), 64)
        name = f"extra{index}"
        maps.append(_extra(maps[-1], channels, name, initializer, pad_like_torch))
    if len(maps) < num_levels:
        raise ValueError(
            f"{backbone.name} gives at most {len(maps)} maps, "
            f"model.num_levels asks for {num_levels}"
        )
    return maps[:num_levels]


def conv_bn(x, convolution, activation="relu6"):
    """A convolution layer, batch norm (epsilon 1e-3 in every MobileNet), an activation or None."""
    name = convolution.name
    x = convolution(x)
    x = BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    if activation is None:
        return x
    return layers.Activation(activation, name=f"{name}_{activation}")(x)


def _network(image, backbone):
    if min(image.shape[1:3]) < 32:  # Keras' own rule; its message does not name our keys
        raise ValueError(f"{backbone.name} needs an input of at least 32 x 32 pixels")
    applications = {
        "mobilenet": keras.applications.MobileNet,
        "mobilenet_v2": keras.applications.MobileNetV2,
    }
    network = applications[backbone.name](
        input_tensor=image,
        input_shape=image.shape[1:],
        alpha=backbone.alpha,
        include_top=False,
        weights=None,
    )
    return keras.models.clone_model(network, network.inputs, _with_our_batch_norm)


def _with_our_batch_norm(layer):
    """A copy of a layer of keras.applications, with its batch norm replaced by ours."""
    is_batch_norm = isinstance(layer, layers.BatchNormalization)
    kind = BatchNormalization if is_batch_norm else type(layer)
    return kind.from_config(layer.get_config())


def _extra(x, channels, name, initializer, pad_like_torch):
    """Halves the map (SSDLite, Sandler et al. 2018).

    1x1 to half the channels, depthwise 3x3 of stride 2, 1x1 to the channels.
    """
    reduce = layers.Conv2D(
        channels // 2, 1, use_bias=False, kernel_initializer=initializer, name=f"{name}_reduce"
    )
    x = conv_bn(x, reduce)
    padding = "same"
    if pad_like_torch:
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        padding = "valid"
    depthwise = layers.DepthwiseConv2D(
        3,
        2,
        padding,
        use_bias=False,
        depthwise_initializer=initializer,
        name=f"{name}_depthwise",
    )
    x = conv_bn(x, depthwise)
    expand = layers.Conv2D(
        channels, 1, use_bias=False, kernel_initializer=initializer, name=f"{name}_expand"
    )
    return conv_bn(x, expand)
