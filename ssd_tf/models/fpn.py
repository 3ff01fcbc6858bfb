"""A feature pyramid (Lin et al. 2017a) in the form of RetinaNet (Lin et al. 2017b, sec. 4): strides 8 to 128."""

from keras import layers


def neck(maps, levels, channels=256):
    """The backbone's maps of strides 8, 16 and 32 -> `levels` maps of `channels` channels, each half the size of the one before.

    Coarse maps are enlarged by repeating pixels and added to the finer ones; beyond stride 32 come 3x3 convolutions of stride 2.
    """
    if not 3 <= levels <= 5:
        raise ValueError(f"the fpn neck gives 3 to 5 maps, model.num_levels asks for {levels}")
    merged = [_conv(maps[-1], channels, 1, "fpn_lateral5")]
    for number, feature in ((4, maps[1]), (3, maps[0])):
        lateral = _conv(feature, channels, 1, f"fpn_lateral{number}")
        merged.insert(
            0,
            layers.Add(name=f"fpn_add{number}")(
                [_enlarge(merged[0], lateral.shape, number), lateral]
            ),
        )
    outputs = [
        _conv(x, channels, 3, f"fpn_output{number}") for number, x in enumerate(merged, start=3)
    ]
    x = maps[-1]
    for number in range(6, 3 + levels):
        if number > 6:
            x = layers.ReLU(name=f"fpn_relu{number}")(x)
        x = layers.ZeroPadding2D(1, name=f"fpn_pad{number}")(x)
        x = _conv(x, channels, 3, f"fpn_output{number}", strides=2, padding="valid")
        outputs.append(x)
    return outputs


def _enlarge(x, shape, number):
    """Twice the size, made to fit the finer map's `shape` where that has an odd side.

    A row or column too many (a backbone that rounds halves up) is left out; one too few (MobileNet v1 rounds down) is the last
    one again.
    """
    x = layers.UpSampling2D(2, interpolation="nearest", name=f"fpn_enlarge{number}")(x)
    for axis, name in ((1, "row"), (2, "column")):
        size, wanted = x.shape[axis], shape[axis]
        if size > wanted:
            x = _crop(x, axis, 0, wanted, f"fpn_crop_{name}{number}")
        elif size < wanted:
            last = _crop(x, axis, size - 1, size, f"fpn_last_{name}{number}")
            x = layers.Concatenate(axis, name=f"fpn_repeat_{name}{number}")([x, last])
    return x


def _crop(x, axis, begin, end, name):
    """x[begin:end] along an axis, 1 or 2."""
    crop = (begin, x.shape[axis] - end)
    return layers.Cropping2D((crop, (0, 0)) if axis == 1 else ((0, 0), crop), name=name)(x)


def _conv(x, channels, size, name, strides=1, padding="same"):
    return layers.Conv2D(
        channels, size, strides, padding, kernel_initializer="glorot_uniform", name=name
    )(x)
