"""A feature pyramid (Lin et al. 2017a) in the form of RetinaNet (Lin et al. 2017b, sec. 4).

Its maps have strides 8 to 128 and are named, as in the papers, by the logarithm of their stride.
"""

from keras import layers


def neck(maps, num_levels, channels=256):
    """Maps of strides 8, 16 and 32 -> num_levels maps of `channels`, from stride 8 on.

    Coarse maps are enlarged by repeating pixels and added to the finer ones; beyond stride 32 come
    3x3 convolutions of stride 2. Raises ValueError for a number of levels that it cannot give.
    """
    if not 3 <= num_levels <= 5:
        raise ValueError(f"the fpn neck gives 3 to 5 maps, model.num_levels asks for {num_levels}")
    merged = {5: _conv(maps[2], channels, 1, "fpn_lateral5")}
    for level, feature in ((4, maps[1]), (3, maps[0])):
        lateral = _conv(feature, channels, 1, f"fpn_lateral{level}")
        enlarged = _enlarge(merged[level + 1], lateral.shape, level)
        merged[level] = layers.Add(name=f"fpn_add{level}")([enlarged, lateral])
    outputs = [_conv(merged[level], channels, 3, f"fpn_output{level}") for level in (3, 4, 5)]
    x = maps[2]
    for level in range(6, 3 + num_levels):
        if level > 6:
            x = layers.ReLU(name=f"fpn_relu{level}")(x)
        x = layers.ZeroPadding2D(1, name=f"fpn_pad{level}")(x)
        x = _conv(x, channels, 3, f"fpn_output{level}", strides=2, padding="valid")
        outputs.append(x)
    return outputs


def _enlarge(x, target_shape, level):
    """Twice the size of x, fitted to the finer map's shape if that has an odd side.

    A surplus row or column (from backbones that round halves up) is cropped; a missing one
    (MobileNet v1 rounds down) repeats the last.
    """
    x = layers.UpSampling2D(2, interpolation="nearest", name=f"fpn_enlarge{level}")(x)
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


def _conv(x, channels, size, name, strides=1, padding="same"):
    return layers.Conv2D(
        channels, size, strides, padding, kernel_initializer="glorot_uniform", name=name
    )(x)
