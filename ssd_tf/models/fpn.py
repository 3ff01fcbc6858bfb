"""A feature pyramid (Lin et al. 2017a) as in the TF Object Detection API's SSDs.

Maps have strides 8 to 128 and are named, as in the papers, by the logarithm of their stride.
Source: models/feature_map_generators.py, KerasFpnTopDownFeatureMaps, and
ssd_mobilenet_v2_fpn_keras_feature_extractor.py there.
"""

from keras import layers

from ssd_tf.models import mobilenet


def neck(maps, num_levels, channels, separable, interpolation="nearest"):
    """Maps of strides 8, 16 and 32 -> num_levels maps of `channels`, from stride 8 on.

    Each coarse map is enlarged, added to the finer one and smoothed by a 3x3 convolution; beyond
    stride 32 come 3x3 convolutions of stride 2. separable: all 3x3 convolutions are depthwise, then
    1x1 ("FPN-lite"). interpolation: "nearest", which repeats pixels, or "bilinear". Raises
    ValueError for a number of levels that it cannot give.
    """
    if not 3 <= num_levels <= 5:
        raise ValueError(f"the fpn neck gives 3 to 5 maps, model.num_levels asks for {num_levels}")
    x = _lateral(maps[2], channels, 5)
    outputs = [x]
    for level, feature in ((4, maps[1]), (3, maps[0])):
        lateral = _lateral(feature, channels, level)
        x = _enlarge(x, lateral.shape, interpolation, level)
        x = layers.Add(name=f"fpn_add{level}")([x, lateral])
        x = _conv3x3(x, channels, separable, f"fpn_smooth{level}")
        outputs.insert(0, x)
    for level in range(6, 3 + num_levels):
        x = _conv3x3(outputs[-1], channels, separable, f"fpn_coarse{level}", strides=2)
        outputs.append(x)
    return outputs


def _lateral(x, channels, level):
    return layers.Conv2D(channels, 1, name=f"fpn_lateral{level}")(x)


def _conv3x3(x, channels, separable, name, strides=1):
    """A 3x3 convolution, batch norm, ReLU6."""
    kind = layers.SeparableConv2D if separable else layers.Conv2D
    x = kind(channels, 3, strides, padding="same", use_bias=False, name=name)(x)
    return mobilenet.norm(x, name)


def _enlarge(x, target_shape, interpolation, level):
    """Twice the size of x, fitted to the finer map's shape if that has an odd side.

    A surplus row or column (from backbones that round halves up) is cropped; a missing one
    (MobileNet v1 rounds down) repeats the last.
    """
    x = layers.UpSampling2D(2, interpolation=interpolation, name=f"fpn_enlarge{level}")(x)
    for axis, name in ((1, "row"), (2, "column")):
        size = x.shape[axis]
        target = target_shape[axis]
        if size > target:
            x = _crop(x, axis, 0, target, f"fpn_crop_{name}{level}")
        elif size < target:
            last = _crop(x, axis, size - 1, size, f"fpn_last_{name}{level}")
            x = layers.Concatenate(axis, name=f"fpn_repeat_{name}{level}")([x, last])
    return x


def _crop(x, axis, begin, end, name):
    """x[begin:end] along axis 1 or 2."""
    crop = (begin, x.shape[axis] - end)
    return layers.Cropping2D((crop, (0, 0)) if axis == 1 else ((0, 0), crop), name=name)(x)
