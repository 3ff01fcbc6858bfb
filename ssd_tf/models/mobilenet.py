"""MobileNet v1 (Howard et al. 2017) and v2 (Sandler et al. 2018), and light extra layers.

Layers with weights have the names of keras.applications, so that its ImageNet weights fit.
models/ssd.py lists what a backbone offers.
"""

from keras import layers

from ssd_tf.models.batch_norm import BatchNormalization

MEAN_RGB = (127.5, 127.5, 127.5)
STD_RGB = (127.5, 127.5, 127.5)
INITIALIZER = "glorot_uniform"
# Of batch norm in every MobileNet.
EPSILON = 1e-3

# Channels and stride of each block of v1 (table 1).
_BLOCKS_V1 = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)
# Channels and stride of each block of v2 (table 2); all but the first expand their input by 6.
_BLOCKS_V2 = (
    (16, 1),
    (24, 2),
    (24, 1),
    (32, 2),
    *[(32, 1)] * 2,
    (64, 2),
    *[(64, 1)] * 3,
    *[(96, 1)] * 3,
    (160, 2),
    *[(160, 1)] * 2,
    (320, 1),
)
# Pixels before and after, for depthwise convolutions of stride 2 that do not pad as TensorFlow's
# SAME does, which is (0, 1) at even sizes and (1, 1) at odd ones. Keras' v2 pads as SAME.
_STRIDED_PADS = {
    ("mobilenet", "keras"): ((0, 1), (0, 1)),
    ("mobilenet", "torch"): 1,
    ("mobilenet_v2", "torch"): 1,
}
# Channels of the extra maps before the width multiplier.
_EXTRAS = (512, 256, 256, 128, 128, 128)
_LEAST_EXTRA_CHANNELS = 64
# The layer whose output is the map of a stride. Of v2 the expansions before the strides to 16 and
# 32, as in its SSDLite.
_MAPS = {
    "mobilenet": {8: "conv_pw_5_relu6", 16: "conv_pw_11_relu6", 32: "conv_pw_13_relu6"},
    "mobilenet_v2": {8: "block_6_expand_relu6", 16: "block_13_expand_relu6", 32: "Conv_1_relu6"},
}
# Of v2 the ends of blocks, as in the TF Object Detection API's SSDs with a feature pyramid.
_PYRAMID = {
    "mobilenet": tuple(_MAPS["mobilenet"].values()),
    "mobilenet_v2": ("block_5_add", "block_12_add", "Conv_1_relu6"),
}
_STAGE_ENDS = {
    "mobilenet": (
        "conv_pw_1_relu6",
        "conv_pw_3_relu6",
        "conv_pw_5_relu6",
        "conv_pw_11_relu6",
        "conv_pw_13_relu6",
    ),
    "mobilenet_v2": (
        "expanded_conv_project_BN",
        "block_2_add",
        "block_5_add",
        "block_12_add",
        "Conv_1_relu6",
    ),
}


def features(image, backbone, num_levels):
    """num_levels maps of strides backbone.first_stride, twice that, and so on."""
    outputs = _outputs(image, backbone)
    maps = [
        outputs[name]
        for stride, name in _MAPS[backbone.name].items()
        if stride >= backbone.first_stride
    ]
    pad_like_torch = backbone.padding == "torch"
    return add_extras(maps, backbone, num_levels, INITIALIZER, pad_like_torch)


def pyramid(image, backbone):
    """The maps of strides 8, 16 and 32."""
    outputs = _outputs(image, backbone)
    return [outputs[name] for name in _PYRAMID[backbone.name]]


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
        least = backbone.min_channels or _LEAST_EXTRA_CHANNELS
        channels = max(int(base_channels * backbone.alpha), least)
        name = f"extra{index}"
        x = _reduce(maps[-1], max(channels // 2, backbone.min_channels or 1), name, initializer)
        shrink = _shrink_conv if backbone.extra_layers == "conv" else _shrink_separable
        maps.append(shrink(x, channels, name, initializer, pad_like_torch))
    if len(maps) < num_levels:
        raise ValueError(
            f"{backbone.name} gives at most {len(maps)} maps, "
            f"model.num_levels asks for {num_levels}"
        )
    return maps[:num_levels]


def conv_bn(x, convolution, activation="relu6"):
    """A convolution layer, batch norm, an activation or None."""
    return norm(convolution(x), convolution.name, activation)


def norm(x, name, activation="relu6"):
    """Batch norm, an activation or None, after the convolution of that name."""
    x = BatchNormalization(epsilon=EPSILON, name=norm_name(name))(x)
    if activation is None:
        return x
    return layers.Activation(activation, name=f"{name}_{activation}")(x)


def norm_name(name):
    """The name of the batch norm after a convolution; that of v2 as in keras.applications."""
    if name == "Conv1":
        return "bn_Conv1"
    if name.startswith(("expanded_conv_", "block_")):
        return f"{name}_BN"
    return f"{name}_bn"


def first_and_last_channels(backbone):
    """Channels of the stem and of the last block."""
    last = {"mobilenet": _BLOCKS_V1, "mobilenet_v2": _BLOCKS_V2}[backbone.name][-1]
    return _channels(32, backbone), _channels(last[0], backbone)


def _channels(base, backbone):
    """Channels of a layer that has `base` at a width multiplier of 1."""
    if backbone.name == "mobilenet":
        return max(int(base * backbone.alpha), backbone.min_channels or 1)
    return round_channels(base * backbone.alpha, backbone.min_channels or 8)


def _outputs(image, backbone):
    """The outputs of the layers that maps may be taken from, by the layers' names."""
    if min(image.shape[1:3]) < 32:
        raise ValueError(f"{backbone.name} needs an input of at least 32 x 32 pixels")
    return _v1(image, backbone) if backbone.name == "mobilenet" else _v2(image, backbone)


def _v1(image, backbone):
    x = _stem(image, "conv1", backbone)
    outputs = {}
    for index, (base_channels, stride) in enumerate(_BLOCKS_V1, start=1):
        x = _depthwise(x, stride, f"conv_dw_{index}", backbone)
        x = conv_bn(x, _pointwise(_channels(base_channels, backbone), f"conv_pw_{index}"))
        outputs[f"conv_pw_{index}_relu6"] = x
    return outputs


def _v2(image, backbone):
    x = _stem(image, "Conv1", backbone)
    outputs = {}
    for index, (base_channels, stride) in enumerate(_BLOCKS_V2):
        name = f"block_{index}" if index else "expanded_conv"
        y = x
        if index:
            y = conv_bn(x, _pointwise(6 * x.shape[-1], f"{name}_expand"))
            outputs[f"{name}_expand_relu6"] = y
        y = _depthwise(y, stride, f"{name}_depthwise", backbone)
        project = _pointwise(_channels(base_channels, backbone), f"{name}_project")
        y = conv_bn(y, project, activation=None)
        if stride == 1 and x.shape == y.shape:
            y = layers.Add(name=f"{name}_add")([x, y])
            outputs[f"{name}_add"] = y
        x = y
    # Keras does not narrow the last convolution; the TF Object Detection API does.
    last_channels = backbone.last_channels or round_channels(1280 * max(backbone.alpha, 1.0))
    outputs["Conv_1_relu6"] = conv_bn(x, _pointwise(last_channels, "Conv_1"))
    return outputs


def round_channels(channels, least=8):
    """The nearest multiple of 8, at least `least` and at most a tenth below, as in MobileNets."""
    rounded = max(least, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _stem(image, name, backbone):
    """The 3x3 convolution of stride 2 that begins the network."""
    x, padding = _pad_before_stride(image, name, backbone.padding == "torch")
    channels = _channels(32, backbone)
    return conv_bn(x, layers.Conv2D(channels, 3, 2, padding, use_bias=False, name=name))


def _depthwise(x, stride, name, backbone):
    """A 3x3 depthwise convolution."""
    pads = _STRIDED_PADS.get((backbone.name, backbone.padding)) if stride == 2 else None
    if pads is not None:
        x = layers.ZeroPadding2D(pads, name=f"{name}_pad")(x)
    padding = "same" if pads is None else "valid"
    return conv_bn(x, layers.DepthwiseConv2D(3, stride, padding, use_bias=False, name=name))


def _pointwise(channels, name):
    return layers.Conv2D(channels, 1, use_bias=False, name=name)


def _reduce(x, channels, name, initializer):
    reduce = layers.Conv2D(
        channels, 1, use_bias=False, kernel_initializer=initializer, name=f"{name}_reduce"
    )
    return conv_bn(x, reduce)


def _shrink_separable(x, channels, name, initializer, pad_like_torch):
    """Halves the map as in SSDLite (Sandler et al. 2018): depthwise 3x3 of stride 2, then 1x1."""
    x, padding = _pad_before_stride(x, name, pad_like_torch)
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


def _shrink_conv(x, channels, name, initializer, pad_like_torch):
    """Halves the map by a full 3x3 convolution of stride 2, as SSD on MobileNets had it first."""
    x, padding = _pad_before_stride(x, name, pad_like_torch)
    conv = layers.Conv2D(
        channels,
        3,
        2,
        padding,
        use_bias=False,
        kernel_initializer=initializer,
        name=f"{name}_conv",
    )
    return conv_bn(x, conv)


def _pad_before_stride(x, name, pad_like_torch):
    """x, padded if so asked, and the padding that is left to a 3x3 convolution of stride 2."""
    if not pad_like_torch:
        return x, "same"
    return layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"
