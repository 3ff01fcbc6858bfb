"""Photometric distortion, at the size of the training picture. Every step keeps 0..255 (but for rounding), as 8-bit pictures do.

All functions take and return image float32 [h, w, 3]; numbers that steer them are scalar tensors.
"""

import tensorflow as tf

from ssd_tf.data.crops import uniform

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601 as torchvision rounds it


def distort_color(image, options, seed):
    """Brightness, contrast, saturation and hue, each with color_probability, then perhaps the channels shuffled.

    Contrast comes before or after saturation and hue, at random: the order of the authors and of torchvision alike.
    # Differs from the references: we distort the small picture, so the mean that torchvision's contrast keeps is that of the
    # part that shows; and in floats, where the authors round hue to 2 degrees and all else to 1/255 at every step.
    """
    numbers = uniform(seed, 4, [13])
    amount, on = numbers[:5], numbers[5:10] < options.color_probability
    contrast_first = numbers[10] < 0.5
    image = _adjust_brightness(image, options, amount, on)
    image = _if(
        on[1] & contrast_first,
        _contrast_step(options, amount[1]),
        image,
        options.contrast != (1.0, 1.0),
    )
    image = _adjust_saturation_and_hue(image, options, amount, on)
    image = _if(
        on[1] & ~contrast_first,
        _contrast_step(options, amount[1]),
        image,
        options.contrast != (1.0, 1.0),
    )
    shuffle = numbers[11] < options.channel_shuffle_probability
    return _if(
        shuffle,
        lambda x: shuffle_channels(x, numbers[12]),
        image,
        options.channel_shuffle_probability,
    )


def adjust_brightness(image, shift):
    """Adds `shift`, of 255."""
    return _clip(image + shift)


def adjust_contrast(image, factor, about="black"):
    """Scales the distance from black (the authors), or from the mean of the gray picture (torchvision)."""
    if about == "black":
        return _clip(image * factor)
    mean = tf.tensordot(tf.reduce_mean(image, [0, 1]), tf.constant(GRAY), 1)
    return _clip(image * factor + (1 - factor) * mean)


def adjust_hsv(image, saturation, turn, wraps=True):
    """HSV with S scaled by `saturation` (at most to 1) and H turned by `turn`, in turns between -1 and 1.

    wraps: where false, a hue below 0 becomes 0 (red), as in a byte that saturates; OpenCV's other end does wrap.
    """
    # Whole planes at a time: TensorFlow's own rgb_to_hsv and AdjustHue go pixel by pixel and take several times as long.
    red, green, blue = tf.unstack(image, axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    sixth = tf.where(
        value == red,
        green - blue,
        tf.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma),
    )
    hue = tf.math.divide_no_nan(sixth, 6 * chroma)  # -1/6 .. 5/6
    hue = turn + (hue - tf.floor(hue))
    if not wraps:
        hue = tf.maximum(hue, 0.0)
    hue -= tf.floor(hue)
    grown = tf.minimum(tf.math.divide_no_nan(chroma, value) * saturation, 1.0)
    return tf.image.hsv_to_rgb(tf.transpose(tf.stack([hue, grown, value]), [1, 2, 0]))


def adjust_saturation(image, factor):
    """`adjust_hsv` without a turn, in half of its time: only the distance from the largest channel changes."""
    channels = tf.unstack(image, axis=-1)
    value = tf.maximum(tf.maximum(channels[0], channels[1]), channels[2])
    chroma = value - tf.minimum(tf.minimum(channels[0], channels[1]), channels[2])
    factor = tf.minimum(tf.math.divide_no_nan(value, chroma), factor)  # S grows to 1 at most
    kept = value - value * factor
    return tf.transpose(tf.stack([channel * factor + kept for channel in channels]), [1, 2, 0])


def adjust_saturation_by_gray(image, factor):
    """Scales the distance of every pixel from its gray (torchvision)."""
    weights = factor * tf.eye(3) + (1 - factor) * tf.constant(GRAY)[:, None]
    return _clip(tf.reshape(tf.reshape(image, [-1, 3]) @ weights, tf.shape(image)))


def shuffle_channels(image, number):
    """One of the six orders of the channels, by a number in [0, 1)."""
    orders = tf.constant([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    return tf.gather(image, orders[tf.cast(number * 6, tf.int32)], axis=-1)


def _adjust_brightness(image, options, amount, on):
    image = _if(
        on[0],
        lambda x: adjust_brightness(x, (2 * amount[0] - 1) * options.brightness),
        image,
        options.brightness,
    )
    factor = _between(amount[4], options.brightness_factor)
    return _if(on[4], lambda x: _clip(x * factor), image, options.brightness_factor != (1.0, 1.0))


def _contrast_step(options, number):
    return lambda image: adjust_contrast(
        image, _between(number, options.contrast), options.contrast_about
    )


def _adjust_saturation_and_hue(image, options, amount, on):
    """Both in one pass where both work on HSV: saturation keeps H and V, so their order there does not matter."""
    saturation = tf.where(on[2], _between(amount[2], options.saturation), 1.0)
    turn = tf.where(on[3], (2 * amount[3] - 1) * (options.hue_degrees / 360), 0.0)
    scales, turns = options.saturation != (1.0, 1.0), options.hue_degrees > 0
    if options.saturation_by == "gray":
        image = _if(on[2], lambda x: adjust_saturation_by_gray(x, saturation), image, scales)
        return _if(on[3], lambda x: adjust_hsv(x, 1.0, turn, options.hue_wraps), image, turns)
    if not turns:
        return _if(on[2], lambda x: adjust_saturation(x, saturation), image, scales)
    return tf.cond(
        on[3],
        lambda: adjust_hsv(image, saturation, turn, options.hue_wraps),
        lambda: _if(on[2], lambda x: adjust_saturation(x, saturation), image, scales),
    )


def _if(condition, step, image, possible):
    """step(image) where the condition holds; no operation at all where the config leaves the step out."""
    return tf.cond(condition, lambda: step(image), lambda: image) if possible else image


def _between(number, limits):
    return limits[0] + number * (limits[1] - limits[0])


def _clip(image):
    return tf.clip_by_value(image, 0.0, 255.0)
