"""Photometric distortion of the resized training image.

Every step keeps values in 0..255 (up to rounding), as 8-bit images do. All functions take and
return an image float32 [h, w, 3]; the factors, shifts and conditions are scalar tensors.
"""

from typing import NamedTuple

import tensorflow as tf

from ssd_tf.config import NO_CHANGE, Color
from ssd_tf.data.random_streams import RandomStream, interpolate, uniform

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601, rounded as in torchvision


class Draw(NamedTuple):
    """The random numbers of one step on one image; scalars."""

    applies: tf.Tensor  # bool
    amount: tf.Tensor  # in [0, 1): position within the step's range


def distort_color(image, color: Color, seed):
    """Distort brightness, contrast, saturation and hue at random, then maybe shuffle the channels.

    Contrast comes before or after saturation and hue, at random: the order of the original Caffe
    code and of torchvision alike.
    # Differs from the references: we distort the resized image, so torchvision's contrast keeps the
    # mean of the visible part only; and we compute in floats, while the original Caffe code rounds
    # hue to 2 degrees and everything else to 1/255 at every step.
    """
    numbers = uniform(seed, RandomStream.COLORS, [13])
    applies = tf.unstack(numbers[5:10] < color.probability)
    draws = map(Draw, applies, tf.unstack(numbers[:5]))
    brightness, contrast, saturation, hue, brightness_factor = draws
    contrast_first = numbers[10] < 0.5
    factor = interpolate(contrast.amount, *color.contrast)
    has_contrast = color.contrast != NO_CHANGE

    def change_contrast(image):
        return adjust_contrast(image, factor, color.contrast_about)

    def shuffle(image):
        return shuffle_channels(image, numbers[12])

    image = _distort_brightness(image, color, brightness, brightness_factor)
    image = _apply_if(contrast.applies & contrast_first, change_contrast, image, has_contrast)
    image = _distort_saturation_and_hue(image, color, saturation, hue)
    image = _apply_if(contrast.applies & ~contrast_first, change_contrast, image, has_contrast)
    shuffle_probability = color.channel_shuffle_probability
    return _apply_if(numbers[11] < shuffle_probability, shuffle, image, shuffle_probability > 0)


def adjust_brightness(image, shift):
    """Add `shift`, on the scale 0..255."""
    return _clip(image + shift)


def adjust_contrast(image, factor, about):
    """Scale the distance from a fixed point.

    about: "black" (original Caffe code), or "mean", that of the grayscale image (torchvision).
    """
    if about == "black":
        return _clip(image * factor)
    mean = tf.tensordot(tf.reduce_mean(image, [0, 1]), tf.constant(GRAY), 1)
    return _clip(image * factor + (1 - factor) * mean)


def adjust_hsv(image, saturation, turn, wraps):
    """Scale S of HSV by `saturation` (up to 1) and rotate H by `turn`, in turns from -1 to 1.

    wraps: if False, a hue below 0 becomes 0 (red), like a byte that saturates. A hue above 1 always
    wraps, as in OpenCV.
    """
    # Whole planes at a time: TensorFlow's own rgb_to_hsv and AdjustHue go pixel by pixel and take
    # several times as long.
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
    scaled = tf.minimum(tf.math.divide_no_nan(chroma, value) * saturation, 1.0)
    return tf.image.hsv_to_rgb(tf.transpose(tf.stack([hue, scaled, value]), [1, 2, 0]))


def adjust_saturation(image, factor):
    """Equal `adjust_hsv` without a rotation, in half the time.

    Only the distance of each channel from the maximum changes.
    """
    channels = tf.unstack(image, axis=-1)
    value = tf.maximum(tf.maximum(channels[0], channels[1]), channels[2])
    chroma = value - tf.minimum(tf.minimum(channels[0], channels[1]), channels[2])
    factor = tf.minimum(tf.math.divide_no_nan(value, chroma), factor)  # S grows up to 1
    kept = value - value * factor
    return tf.transpose(tf.stack([channel * factor + kept for channel in channels]), [1, 2, 0])


def adjust_saturation_by_gray(image, factor):
    """Scale the distance of each pixel from its gray value (torchvision)."""
    weights = factor * tf.eye(3) + (1 - factor) * tf.constant(GRAY)[:, None]
    return _clip(tf.reshape(tf.reshape(image, [-1, 3]) @ weights, tf.shape(image)))


def shuffle_channels(image, order):
    """Permute the channels; `order` in [0, 1) selects one of the six permutations."""
    permutations = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    index = tf.cast(order * 6, tf.int32)
    return tf.gather(image, tf.constant(permutations)[index], axis=-1)


def _distort_brightness(image, color, brightness, brightness_factor):
    shift = (2 * brightness.amount - 1) * color.brightness
    factor = interpolate(brightness_factor.amount, *color.brightness_factor)
    image = _apply_if(
        brightness.applies,
        lambda image: adjust_brightness(image, shift),
        image,
        color.brightness > 0,
    )
    return _apply_if(
        brightness_factor.applies,
        lambda image: _clip(image * factor),
        image,
        color.brightness_factor != NO_CHANGE,
    )


def _distort_saturation_and_hue(image, color, saturation, hue):
    """Distort both, in one pass if both work on HSV.

    Saturation keeps H and V, so the order of the two does not matter there.
    """
    factor = interpolate(saturation.amount, *color.saturation)
    factor = tf.where(saturation.applies, factor, 1.0)
    turn = (2 * hue.amount - 1) * (color.hue_degrees / 360)
    turn = tf.where(hue.applies, turn, 0.0)
    by_gray = color.saturation_by == "gray"

    def saturate(image):
        adjust = adjust_saturation_by_gray if by_gray else adjust_saturation
        return adjust(image, factor)

    def rotate_hue(image, saturation=1.0):
        return adjust_hsv(image, saturation, turn, color.hue_wraps)

    def saturate_if(image):
        return _apply_if(saturation.applies, saturate, image, color.saturation != NO_CHANGE)

    if by_gray or not color.hue_degrees:
        return _apply_if(hue.applies, rotate_hue, saturate_if(image), color.hue_degrees > 0)
    return tf.cond(hue.applies, lambda: rotate_hue(image, factor), lambda: saturate_if(image))


def _apply_if(condition, step, image, is_possible):
    """Return step(image) if the condition holds; add no operation if the step is not possible."""
    return tf.cond(condition, lambda: step(image), lambda: image) if is_possible else image


def _clip(image):
    return tf.clip_by_value(image, 0.0, 255.0)
