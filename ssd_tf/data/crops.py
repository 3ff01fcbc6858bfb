"""The geometry of a training image: zoom-out, crop and flips, from boxes and image size only.

A *window* is the part of the plane that becomes the training image, `[ymin, xmin, ymax, xmax]` in
units of the original one: a crop lies inside [0, 1], a zoom-out extends beyond it.
Shapes: `N` objects, `M` modes of the crop sampler, `T` tries.
"""

from typing import NamedTuple

import tensorflow as tf

from ssd_tf.boxes import geometry
from ssd_tf.config import Crop
from ssd_tf.data.random_streams import RandomStream, interpolate, uniform

_WHOLE = (0.0, 0.0, 1.0, 1.0)
# Sides of the largest canvas of a zoom-out in the original Caffe code and in torchvision.
MAX_ZOOM_OUT = 4.0


class Placement(NamedTuple):
    """The pixels of the image (part), and those of the training image (target) they are drawn into.

    All [2], y first. The rest of the training image is canvas; nothing is drawn if target_hw
    contains a 0.
    """

    begin: tf.Tensor  # int32, like the next three
    part_hw: tf.Tensor
    target_begin: tf.Tensor
    target_hw: tf.Tensor
    is_crop: tf.Tensor  # bool: the window lies in the image, so part and target fill it
    # Otherwise: corners [4] float32 of the target's outermost pixel centres, from 0 to 1 between
    # the outermost pixel centres of the part.
    samples: tf.Tensor


def sample_window(boxes, image_hw, zoom_out_probability, crop: Crop, seed):
    """Sample the window [4] of a random zoom-out followed by a random crop of it.

    boxes [N, 4] guide the crop; image_hw [2].
    """
    canvas = sample_zoom_out(zoom_out_probability, seed)
    if not crop.min_iou:
        return canvas
    boxes = into_window(boxes, canvas)
    if crop.sampler == "caffe":
        window = sample_crop_caffe(boxes, crop, seed)
    else:
        window = sample_crop_torchvision(boxes, image_hw, crop, seed)
    return out_of_window(window, canvas) if zoom_out_probability else window


def sample_zoom_out(probability, seed):
    """Sample a canvas of 1 to 4 sides, the image at a random position in it; a window [4].

    # Differs from the original Caffe code, which writes the expanded canvas as a JPEG and reads it
    # again; ours is never re-encoded.
    """
    if not probability:
        return tf.constant(_WHOLE)
    numbers = uniform(seed, RandomStream.ZOOM_OUT, [4])
    zooms = numbers[0] < probability
    extra = tf.where(zooms, numbers[1] * (MAX_ZOOM_OUT - 1), 0.0)
    before = numbers[2:] * extra  # canvas above the image and left of it
    return tf.concat([-before, 1 + extra - before], 0)


def sample_crop_caffe(boxes, crop: Crop, seed):
    """Sample a crop [4] as the original Caffe code does (weiliu89/caffe, sampler.cpp).

    Every mode draws up to `tries` crops; one of the modes that succeeded, or the whole image, is
    chosen at random. A crop succeeds if *any* object of boxes [N, 4] has at least the mode's IoU
    with it; a mode of 0 accepts any crop. Its height is scale / sqrt(ratio) of the image's height,
    its width scale * sqrt(ratio) of the image's width.
    # Differs from the original Caffe code: its "any crop" mode fails on an image without objects,
    # ours crops it.
    """
    min_iou = tf.constant(crop.min_iou)
    shape = [len(crop.min_iou), crop.tries]
    scale, ratio, top, left = tf.unstack(uniform(seed, RandomStream.CAFFE_CROPS, [4, *shape]))
    scale = interpolate(scale, *crop.scale)
    square = scale * scale
    low = tf.maximum(crop.aspect[0], square)
    high = tf.minimum(crop.aspect[1], 1 / square)
    ratio = tf.sqrt(interpolate(ratio, low, high))
    crops = _make_crops(scale / ratio, scale * ratio, top, left)  # [M, T, 4]

    overlaps = geometry.iou(tf.reshape(crops, [-1, 4]), boxes)  # [M * T, N]
    best = tf.reshape(tf.reduce_max(overlaps, 1), shape)  # -inf without objects
    accepted = tf.maximum(best, 0.0) >= min_iou[:, None]
    first = tf.gather(crops, tf.argmax(accepted, 1), batch_dims=1)  # [M, 4]
    succeeded = tf.concat([[True], tf.reduce_any(accepted, 1)], 0)  # the whole image always does
    lots = tf.where(succeeded, uniform(seed, RandomStream.CAFFE_CHOICE, [shape[0] + 1]), -1.0)
    return tf.concat([[_WHOLE], first], 0)[tf.argmax(lots)]


def sample_crop_torchvision(boxes, image_hw, crop: Crop, seed):
    """Sample a crop [4] as torchvision's RandomIoUCrop does.

    Draws a mode first and, if `tries` crops fail it, another one. Differences from the original
    Caffe code: both sides are drawn independently; aspect is width / height in pixels; an object
    counts only if its centre lies inside the crop, and one must, even for a mode of 0, so an image
    without objects stays whole.
    """
    hw = tf.cast(image_hw, tf.float32)
    modes = [*crop.min_iou, 1.0]  # the last leaves the image whole
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2

    def draw(done, _, attempt):
        numbers = uniform(seed, RandomStream.TORCHVISION_CROPS, [5, crop.tries], attempt)
        mode = tf.cast(numbers[4, 0] * len(modes), tf.int32)
        height, width = tf.unstack(interpolate(numbers[:2], *crop.scale))
        crops = _make_crops(height, width, numbers[2], numbers[3])  # [T, 4]
        aspect = width * hw[1] / (height * hw[0])
        inside = (crops[:, None, :2] < centres) & (centres < crops[:, None, 2:])
        overlaps = geometry.iou(crops, boxes) >= tf.constant(modes)[mode]  # [T, N]
        accepted = tf.reduce_any(tf.reduce_all(inside, 2) & overlaps, 1)
        accepted &= (aspect >= crop.aspect[0]) & (aspect <= crop.aspect[1])
        whole = mode == len(modes) - 1
        window = tf.where(whole, tf.constant(_WHOLE), crops[tf.argmax(accepted)])
        return done | whole | tf.reduce_any(accepted), window, attempt + 1

    start = (tf.constant(False), tf.constant(_WHOLE), 0)
    _, window, _ = tf.while_loop(lambda done, *_: ~done, draw, start)
    return window


def sample_flips(vertical_probability, horizontal_probability, seed):
    """Sample whether to flip upside down and left to right: [2] bool."""
    return uniform(seed, RandomStream.FLIPS, [2]) < [vertical_probability, horizontal_probability]


def place_window(window, image_hw, output_hw):
    """Convert window [4] and image_hw [2] to a Placement and the window [4] that it draws exactly.

    Each side is rounded to whole pixels of the image, on the canvas too, as in the references: it
    moves by at most half a pixel, or by one and a half if the window would otherwise be narrower
    than a pixel. Boxes go through the returned window.
    If the window extends beyond the image, a pixel of the training image is drawn if its centre
    lies between the centres of the image's pixels; the others are canvas, including the outer half
    of the image's outermost pixels.
    """
    size = tf.cast(image_hw, tf.float32)
    output = tf.constant(output_hw, tf.float32)
    low = tf.round(window[:2] * size)
    high = tf.round(window[2:] * size)
    low = tf.where(high <= size, tf.minimum(low, size - 1), low)  # a crop shows at least a pixel
    high = tf.maximum(high, low + 1)
    exact = tf.concat([low / size, high / size], 0)
    is_crop = tf.reduce_all((low >= 0) & (high <= size))
    margin = tf.where(is_crop, 0.0, 1.0)  # neighbours of the outermost pixels of a cut side
    begin = tf.clip_by_value(low - margin, 0.0, size - 1)
    part = tf.clip_by_value(high + margin, begin + 1, size) - begin
    pixel = (high - low) / output
    target_begin, target_hw, samples = _place_on_canvas(low, pixel, size, output, begin, part)
    target_begin = tf.where(is_crop, 0.0, target_begin)
    target_hw = tf.where(is_crop, output, target_hw)
    pixels = [tf.cast(values, tf.int32) for values in (begin, part, target_begin, target_hw)]
    return Placement(*pixels, is_crop, samples), exact


def _place_on_canvas(low, pixel, size, output, begin, part):
    """Compute target_begin, target_hw and samples of an image that does not fill its window.

    low: the begin of the window; pixel: the size of a pixel of the training image. All [2] float32,
    in pixels of the image, except output, in pixels of the training image.
    """
    # Exceeds the float32 error of a position, so that no sample lies outside.
    rim = 0.5 + 3e-6 * size
    target_begin = tf.clip_by_value(tf.math.ceil((rim - low) / pixel - 0.5), 0.0, output)
    target_end = tf.clip_by_value(tf.floor((size - rim - low) / pixel + 0.5), target_begin, output)
    centres = tf.stack([target_begin + 0.5, target_end - 0.5])  # [2, 2]: first and last
    positions = centres * pixel + low - 0.5 - begin  # in pixels of the part
    samples = tf.clip_by_value(positions / tf.maximum(part - 1, 1.0), 0.0, 1.0)
    return target_begin, target_end - target_begin, tf.reshape(samples, [4])


def move_boxes(example, window):
    """Return the Example as seen through the window.

    Boxes move; those whose centre is outside are dropped, the others are clipped (Liu et al. 2016,
    sec. 2.2). Crowds stay while any part of them is visible: a region to ignore remains one even if
    its centre is outside.
    """
    boxes = into_window(example["boxes"], window)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = tf.reduce_all((centre >= 0) & (centre < 1), 1)
    clipped = tf.clip_by_value(boxes, 0.0, 1.0)
    visible = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], 1)
    keep = tf.where(visible & (inside | example["crowd"]))[:, 0]
    moved = {**example, "boxes": tf.gather(clipped, keep)}
    for key in ("labels", "crowd", "difficult", "area"):
        moved[key] = tf.gather(example[key], keep)
    return moved


def flip_boxes(example, flips):
    """Mirror the boxes of an Example; flips [2] bool: upside down, left to right."""
    low = example["boxes"][:, :2]
    high = example["boxes"][:, 2:]
    flipped = [tf.where(flips, 1 - high, low), tf.where(flips, 1 - low, high)]
    return {**example, "boxes": tf.concat(flipped, 1)}


def into_window(boxes, window):
    """Convert boxes [N, 4] from the image's units to the window's."""
    origin = window[:2]
    size = window[2:] - window[:2]
    return (boxes - tf.tile(origin, [2])) / tf.tile(size, [2])


def out_of_window(boxes, window):
    """Convert boxes [..., 4] from the window's units to the image's; inverse of `into_window`."""
    origin = window[:2]
    size = window[2:] - window[:2]
    return boxes * tf.tile(size, [2]) + tf.tile(origin, [2])


def _make_crops(height, width, top, left):
    """Combine sides and positions, all [...] in 0..1, to crops [..., 4] inside the image.

    top and left are fractions of the space that the crop leaves.
    """
    top = top * (1 - height)
    left = left * (1 - width)
    return tf.stack([top, left, top + height, left + width], -1)
