"""A feature pyramid (Lin et al. 2017a) in the form of RetinaNet (Lin et al. 2017b, sec. 4): strides 8 to 128."""

from keras import layers


def neck(maps, levels, channels=256):
    """The backbone's maps of strides 8, 16 and 32 -> `levels` maps of `channels` channels, each half the size of the one before.

    Coarse maps are enlarged by repeating pixels and added to the finer ones; beyond stride 32 come 3x3 convolutions of stride 2.
    """
    if not 3 <= levels <= 5:
        raise ValueError(f"the fpn neck gives 3 to 5 maps, model.levels asks for {levels}")
    merged = [_conv(maps[-1], channels, 1, "fpn_lateral5")]
    for number, feature in ((4, maps[1]), (3, maps[0])):
        lateral = _conv(feature, channels, 1, f"fpn_lateral{number}")
        merged.insert(0, layers.Add(name=f"fpn_add{number}")([_enlarge(merged[0], lateral.shape, number), lateral]))
    outputs = [_conv(x, channels, 3, f"fpn_output{number}") for number, x in enumerate(merged, start=3)]
    x = maps[-1]
    for number in range(6, 3 + levels):
        if number > 6:
            x = layers.ReLU(name=f"fpn_relu{number}")(x)
        x = layers.ZeroPadding2D(1, name=f"fpn_pad{number}")(x)
        x = _conv(x, channels, 3, f"fpn_output{number}", strides=2, padding="valid")
        outputs.append(x)
    return outputs


def _enlarge(x, shape, number):
    """Twice the size, less the row or column by which that is more than `shape` where a map had an odd side."""
    x = layers.UpSampling2D(2, interpolation="nearest", name=f"fpn_enlarge{number}")(x)
    rows, columns = x.shape[1] - shape[1], x.shape[2] - shape[2]
    return layers.Cropping2D(((0, rows), (0, columns)), name=f"fpn_crop{number}")(x) if rows or columns else x


def _conv(x, channels, size, name, strides=1, padding="same"):
    return layers.Conv2D(channels, size, strides, padding, kernel_initializer="glorot_uniform", name=name)(x)
