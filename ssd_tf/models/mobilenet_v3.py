"""MobileNet v3-Large (Howard et al. 2019) as torchvision's ssdlite320_mobilenet_v3_large has it, with the reduced tail.

Its convolutions pad as PyTorch does, by half the kernel on every side.
"""

from keras import layers

from ssd_tf.models import mobilenet

MEAN_RGB = (127.5, 127.5, 127.5)
STD_RGB = (127.5, 127.5, 127.5)

# Of every convolution, in the backbone, the extra layers and the heads; biases start at 0
# (torchvision, models/detection/ssdlite.py, _normal_init).
INITIALIZER = {"class_name": "RandomNormal", "config": {"stddev": 0.03}}

# Per block: kernel, expanded channels, output channels, squeeze-and-excite, activation, stride. Table 1 of the paper; the last
# three blocks have half its channels (table 6: "reduced tail").
BLOCKS = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 672, 80, True, "hard_swish", 2),
    (5, 480, 80, True, "hard_swish", 1),
    (5, 480, 80, True, "hard_swish", 1),
)
# The stride of each map and the block whose expansion it is; stride 32 is the last convolution.
_MAPS = {8: 7, 16: 13}


def features(image, backbone, levels, bn_momentum):
    """Normalised image [B, H, W, 3] -> `levels` maps of strides backbone.first_stride, then twice that, and so on."""
    maps = [
        feature
        for stride, feature in _maps(image, backbone, bn_momentum).items()
        if stride >= backbone.first_stride
    ]
    return mobilenet.add_extras(
        maps, levels, backbone, bn_momentum, symmetric=True, initializer=INITIALIZER
    )


def pyramid(image, backbone, bn_momentum):
    """The maps of strides 8, 16 and 32."""
    return list(_maps(image, backbone, bn_momentum).values())


def stage_ends(backbone):  # noqa: ARG001 - of one size only
    """Names of the layers that end the stages, one for each stride from 2 to 32."""
    return ["block1_add", "block3_add", "block6_add", "block12_add", "last_hard_swish"]


def _maps(image, backbone, bn_momentum):
    """{stride: feature map} of the strides 8, 16 and 32."""
    maps = {}
    x = _conv(image, _divisible(16 * backbone.alpha), 3, 2, bn_momentum, "stem", "hard_swish")
    for index, (size, wide, narrow, squeezes, activation, stride) in enumerate(BLOCKS, start=1):
        entry, name = x, f"block{index}"
        wide, narrow = _divisible(wide * backbone.alpha), _divisible(narrow * backbone.alpha)
        if wide != x.shape[-1]:
            x = _conv(x, wide, 1, 1, bn_momentum, f"{name}_expand", activation)
        maps.update({number: x for number, tapped in _MAPS.items() if tapped == index})
        x = _conv(x, None, size, stride, bn_momentum, f"{name}_depthwise", activation)
        if squeezes:
            x = _squeeze_and_excite(x, _divisible(wide // 4), name)
        x = _conv(x, narrow, 1, 1, bn_momentum, f"{name}_project", None)
        if entry.shape == x.shape and stride == 1:
            x = layers.Add(name=f"{name}_add")([entry, x])
    maps[32] = _conv(x, 6 * x.shape[-1], 1, 1, bn_momentum, "last", "hard_swish")
    return maps


def _conv(x, channels, size, stride, bn_momentum, name, activation):
    """Convolution, or depthwise where `channels` is None, batch norm and activation."""
    padding = "same"
    if stride > 1:
        x, padding = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x), "valid"
    if channels is None:
        options = {"use_bias": False, "depthwise_initializer": INITIALIZER, "name": name}
        return mobilenet.conv_bn(
            layers.DepthwiseConv2D(size, stride, padding, **options), x, bn_momentum, activation
        )
    options = {"use_bias": False, "kernel_initializer": INITIALIZER, "name": name}
    return mobilenet.conv_bn(
        layers.Conv2D(channels, size, stride, padding, **options), x, bn_momentum, activation
    )


def _squeeze_and_excite(x, channels, name):
    """Multiplies each channel by a gate between 0 and 1 computed from the means of all."""
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    options = {"kernel_initializer": INITIALIZER}
    gate = layers.Conv2D(channels, 1, activation="relu", name=f"{name}_squeeze", **options)(gate)
    gate = layers.Conv2D(
        x.shape[-1], 1, activation="hard_sigmoid", name=f"{name}_excite", **options
    )(gate)
    return layers.Multiply(name=f"{name}_scale")([x, gate])


def _divisible(channels, by=8):
    """The nearest multiple of `by`, not below `by` nor more than a tenth below `channels` (as all MobileNets round)."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded
