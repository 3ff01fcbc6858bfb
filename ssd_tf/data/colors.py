"""Photometric distortion of the resized training image.

Every step keeps values in 0..255 (up to rounding), as 8-bit images do. All functions take and
return an image float32 [h, w, 3]; the factors, shifts and conditions are scalar tensors.
"""

from typing import NamedTuple

import tensorflow as tf

from ssd_tf.config import NO_CHANGE, Color
from ssd_tf.data.random_streams import RandomStream, interpolate, uniform

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601, rounded as in torchvision


class PerStep(NamedTuple):
    """One scalar per distortion step."""

    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor
    brightness_factor: tf.Tensor


class ColorDraws(NamedTuple):
    """Random numbers of one image; all scalars."""

    amount: PerStep  # in [0, 1): position within the step's range
    applies: PerStep  # bool
    contrast_first: tf.Tensor  # bool: contrast before saturation and hue
    shuffles: tf.Tensor  # bool: whether the channels are shuffled
    channel_order: tf.Tensor  # in [0, 1)


def distort_color(image, color: Color, seed):
    """Distort brightness, contrast, saturation and hue at random, then maybe shuffle the channels.

    Contrast comes before or after saturation and hue, at random: the order of the original Caffe
    code and of torchvision alike.
    # Differs from the references: we distort the resized image, so torchvision's contrast keeps the
    # mean of the visible part only; and we compute in floats, while the original Caffe code rounds
    # hue to 2 degrees and everything else to 1/255 at every step.
    """
    draws = sample_draws(color, seed)
    contrast_applies = draws.applies.contrast

    def contrast(image):
        factor = interpolate(draws.amount.contrast, *color.contrast)
        return adjust_contrast(image, factor, color.contrast_about)

    def shuffle(image):
        return shuffle_channels(image, draws.channel_order)

    has_contrast = color.contrast != NO_CHANGE
    image = _distort_brightness(image, color, draws)
    image = _apply_if(contrast_applies & draws.contrast_first, contrast, image, has_contrast)
    image = _distort_saturation_and_hue(image, color, draws)
    image = _apply_if(contrast_applies & ~draws.contrast_first, contrast, image, has_contrast)
    return _apply_if(draws.shuffles, shuffle, image, color.channel_shuffle_probability > 0)


def sample_draws(color: Color, seed) -> ColorDraws:
    """Draw the random numbers of one image."""
    numbers = uniform(seed, RandomStream.COLORS, [13])
    return ColorDraws(
        amount=PerStep(*tf.unstack(numbers[:5])),
        applies=PerStep(*tf.unstack(numbers[5:10] < color.probability)),
        contrast_first=numbers[10] < 0.5,
        shuffles=numbers[11] < color.channel_shuffle_probability,
        channel_order=numbers[12],
    )


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

    Only the distance of each channel from the largest one changes.
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


def _distort_brightness(image, color, draws):
    shift = (2 * draws.amount.brightness - 1) * color.brightness
    factor = interpolate(draws.amount.brightness_factor, *color.brightness_factor)
    image = _apply_if(
        draws.applies.brightness,
        lambda image: adjust_brightness(image, shift),
        image,
        color.brightness > 0,
    )
    return _apply_if(
        draws.applies.brightness_factor,
        lambda image: _clip(image * factor),
        image,
        color.brightness_factor != NO_CHANGE,
    )


def _distort_saturation_and_hue(image, color, draws):
    """Distort both, in one pass if both work on HSV.

    Saturation keeps H and V, so the order of the two does not matter there.
    """
    applies = draws.applies
    factor = interpolate(draws.amount.saturation, *color.saturation)
    factor = tf.where(applies.saturation, factor, 1.0)
    turn = (2 * draws.amount.hue - 1) * (color.hue_degrees / 360)
    turn = tf.where(applies.hue, turn, 0.0)
    scales = color.saturation != NO_CHANGE
    turns = color.hue_degrees > 0

    def saturate(image):
        return adjust_saturation(image, factor)

    def saturate_by_gray(image):
        return adjust_saturation_by_gray(image, factor)

    def rotate_hue(image):
        return adjust_hsv(image, 1.0, turn, color.hue_wraps)

    if color.saturation_by == "gray":
        image = _apply_if(applies.saturation, saturate_by_gray, image, scales)
        return _apply_if(applies.hue, rotate_hue, image, turns)
    if not turns:
        return _apply_if(applies.saturation, saturate, image, scales)
    return tf.cond(
        applies.hue,
        lambda: adjust_hsv(image, factor, turn, color.hue_wraps),
        lambda: _apply_if(applies.saturation, saturate, image, scales),
    )


def _apply_if(condition, step, image, is_possible):
    """Return step(image) if the condition holds; add no operation if the step is not possible."""
    return tf.cond(condition, lambda: step(image), lambda: image) if is_possible else image


def _clip(image):
    return tf.clip_by_value(image, 0.0, 255.0)
