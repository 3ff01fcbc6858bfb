"""Training augmentation: geometry first, on box coordinates alone; then only the pixels that are needed; colours last.

A *window* is the part of the plane that becomes the training picture, `[ymin, xmin, ymax, xmax]` in units of the original
one: a crop lies inside [0, 1], a zoom-out reaches beyond. All is made of graph ops; randomness comes from a stateless seed [2].
Shapes: `N` objects, `M` modes of the crop sampler, `T` tries.
"""

import tensorflow as tf

from ssd_tf.boxes import geometry
from ssd_tf.data import records

FILL_RGB = (123.0, 117.0, 104.0)  # the authors' mean, which the zoom-out is filled with


def augment(example, output_hw, options, seed):
    """Example -> image float32 [h, w, 3] in 0..255 and the Example with its boxes in the picture's new coordinates.

    options: config.Augment. Objects whose centre falls outside are dropped, the others clipped (Liu et al. 2016, sec. 2.2).
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    objects = tf.boolean_mask(example["boxes"], ~example["crowd"])
    window = sample_window(objects, options, seeds[0])
    flips = sample_flips(options, seeds[1])
    image = cut(example["image"], window, output_hw)
    image = flip_image(image, flips)
    image = distort_color(image, options, seeds[2])
    return image, flip_boxes(move_boxes(example, window), flips)


def plain(example, output_hw):
    """Example -> the whole picture warped to `output_hw`, float32 [h, w, 3] in 0..255, and the Example unchanged."""
    return resize(records.decode_image(example["image"]), output_hw), example


def resize(image, output_hw):
    """The one resize of evaluation, serving and detection: warp, bilinear, half-pixel centres, no antialias."""
    return tf.image.resize(tf.cast(image, tf.float32), output_hw, "bilinear", antialias=False)


def sample_window(boxes, options, seed):
    """The window [4] of a random zoom-out followed by a random crop of it; boxes [N, 4] steer the crop."""
    zoom_seed, crop_seed = tf.unstack(tf.random.split(seed, 2))
    canvas = sample_zoom_out(options, zoom_seed)
    if not options.crop_min_iou:
        return canvas
    crop = sample_crop(_into(boxes, canvas), options, crop_seed)
    origin, size = canvas[:2], canvas[2:] - canvas[:2]
    return tf.concat([origin + crop[:2] * size, origin + crop[2:] * size], 0)


def sample_zoom_out(options, seed):
    """A canvas of 1 to zoom_out_max sides with the picture at a random place of it, as a window [4]."""
    if not options.zoom_out_probability:
        return tf.constant([0.0, 0.0, 1.0, 1.0])
    chance, ratio, top, left = tf.unstack(tf.random.stateless_uniform([4], seed))
    ratio = tf.where(chance < options.zoom_out_probability, 1 + ratio * (options.zoom_out_max - 1), 1.0)
    top, left = top * (ratio - 1), left * (ratio - 1)
    return tf.stack([-top, -left, ratio - top, ratio - left])


def sample_crop(boxes, options, seed):
    """The authors' batch sampler: each mode draws up to crop_tries crops; one of those that succeeded, or the whole, is taken.

    A crop succeeds where any object [N, 4] has at least the mode's IoU with it; a mode of 0 takes any crop.
    Side lengths are scale * sqrt(ratio) and scale / sqrt(ratio) of the picture's, as in caffe's sampler.cpp.
    """
    least = tf.constant(options.crop_min_iou)
    shape = [len(options.crop_min_iou), options.crop_tries]
    numbers = tf.random.stateless_uniform([4, *shape], seed)
    scale = options.crop_scale[0] + numbers[0] * (options.crop_scale[1] - options.crop_scale[0])
    low = tf.maximum(options.crop_aspect[0], scale**2)
    high = tf.minimum(options.crop_aspect[1], 1 / scale**2)
    ratio = tf.sqrt(low + numbers[1] * (high - low))
    height, width = scale / ratio, scale * ratio
    top, left = numbers[2] * (1 - height), numbers[3] * (1 - width)
    crops = tf.stack([top, left, top + height, left + width], -1)  # [M, T, 4]

    overlaps = geometry.iou(tf.reshape(crops, [-1, 4]), boxes)  # [M * T, N]
    best = tf.reshape(tf.reduce_max(tf.pad(overlaps, [[0, 0], [0, 1]]), 1), shape)
    accepted = best >= least[:, None]
    first = tf.gather(crops, tf.argmax(accepted, 1), batch_dims=1)  # [M, 4]
    choices = tf.concat([[[0.0, 0.0, 1.0, 1.0]], tf.boolean_mask(first, tf.reduce_any(accepted, 1))], 0)
    pick = tf.random.stateless_uniform([], seed + 1, maxval=tf.shape(choices)[0], dtype=tf.int32)
    return choices[pick]


def sample_flips(options, seed):
    """Whether to flip upside down and left to right [2] bool."""
    return tf.random.stateless_uniform([2], seed) < [options.vertical_flip_probability, options.flip_probability]


def move_boxes(example, window):
    """The Example as seen through the window: boxes moved, those with their centre outside dropped, the others clipped.

    Crowds stay while any of them shows: a region to ignore is one whether or not its middle can be seen.
    """
    boxes = _into(example["boxes"], window)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = tf.reduce_all((centre >= 0) & (centre < 1), 1)
    clipped = tf.clip_by_value(boxes, 0.0, 1.0)
    visible = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], 1)
    keep = visible & (inside | example["crowd"])
    per_object = {"boxes": clipped} | {key: example[key] for key in ("labels", "crowd", "difficult", "area")}
    return {**example, **{key: tf.boolean_mask(value, keep) for key, value in per_object.items()}}


def flip_boxes(example, flips):
    """The Example mirrored: flips [2] bool, upside down and left to right."""
    ymin, xmin, ymax, xmax = tf.unstack(example["boxes"], axis=1)
    ymin, ymax = tf.cond(flips[0], lambda: (1 - ymax, 1 - ymin), lambda: (ymin, ymax))
    xmin, xmax = tf.cond(flips[1], lambda: (1 - xmax, 1 - xmin), lambda: (xmin, xmax))
    return {**example, "boxes": tf.stack([ymin, xmin, ymax, xmax], 1)}


def flip_image(image, flips):
    image = tf.cond(flips[0], lambda: image[::-1], lambda: image)
    return tf.cond(flips[1], lambda: image[:, ::-1], lambda: image)


def cut(encoded, window, output_hw):
    """Encoded picture, window [4] -> what the window shows of it, warped to float32 [h, w, 3]; FILL_RGB around the picture.

    Only the pixels under the window are decoded (JPEG), and they are resized once: bilinear, half-pixel centres, no antialias.
    """
    is_jpeg = tf.io.is_jpeg(encoded)
    whole = tf.cond(is_jpeg, lambda: tf.zeros([0, 0, 3], tf.uint8), lambda: records.decode_image(encoded))
    size = tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(encoded)[:2], lambda: tf.shape(whole)[:2])
    size_float = tf.cast(size, tf.float32)
    low, high = window[:2] * size_float, window[2:] * size_float  # in pixels of the picture
    # One pixel more on each side, for the bilinear neighbours of the outermost samples.
    begin = tf.clip_by_value(tf.cast(tf.floor(low), tf.int32) - 1, 0, size - 1)
    end = tf.clip_by_value(tf.cast(tf.math.ceil(high), tf.int32) + 1, begin + 1, size)
    part = tf.cond(
        is_jpeg,
        lambda: tf.image.decode_and_crop_jpeg(
            encoded, tf.concat([begin, end - begin], 0), channels=3, dct_method="INTEGER_ACCURATE"
        ),
        lambda: whole[begin[0] : end[0], begin[1] : end[1]],
    )
    scale = tf.cast(output_hw, tf.float32) / (high - low)
    image = tf.raw_ops.ScaleAndTranslate(
        images=part[None],
        size=tf.cast(output_hw, tf.int32),
        scale=scale,
        translation=(tf.cast(begin, tf.float32) - low) * scale,
        kernel_type="triangle",
        antialias=False,
    )[0]
    inside = [_inside(output_hw[axis], scale[axis], low[axis], size_float[axis]) for axis in (0, 1)]
    image = tf.where((inside[0][:, None] & inside[1])[..., None], image, tf.constant(FILL_RGB))
    return tf.ensure_shape(image, [*output_hw, 3])


def _inside(length, scale, low, size):
    """Which samples of one axis have their centre on the picture [length] bool."""
    centre = low + (tf.range(length, dtype=tf.float32) + 0.5) / scale
    return (centre >= 0) & (centre <= size)


def distort_color(image, options, seed):
    """Brightness, contrast, saturation and hue, each with color_probability; contrast before or after the other two at random.

    image float32 [h, w, 3] in 0..255, clipped to that range after every step.
    """
    amount, chance = tf.unstack(tf.random.stateless_uniform([2, 5], seed))
    on = chance < options.color_probability

    def scale_between(limits, number):
        return limits[0] + number * (limits[1] - limits[0])

    def step(index, change):
        return lambda image: tf.cond(on[index], lambda: tf.clip_by_value(change(image), 0.0, 255.0), lambda: image)

    brightness = step(0, lambda x: x + (2 * amount[0] - 1) * options.brightness)
    contrast = step(1, lambda x: x * scale_between(options.contrast, amount[1]))
    saturation = step(2, lambda x: tf.image.adjust_saturation(x / 255, scale_between(options.saturation, amount[2])) * 255)
    hue = step(3, lambda x: tf.image.adjust_hue(x / 255, (2 * amount[3] - 1) * options.hue_degrees / 360) * 255)
    if options.brightness:
        image = brightness(image)
    contrast_first = amount[4] < 0.5
    if options.contrast != (1.0, 1.0):
        image = tf.cond(contrast_first, lambda: contrast(image), lambda: image)
    if options.saturation != (1.0, 1.0):
        image = saturation(image)
    if options.hue_degrees:
        image = hue(image)
    if options.contrast != (1.0, 1.0):
        image = tf.cond(contrast_first, lambda: image, lambda: contrast(image))
    return image


def _into(boxes, window):
    """boxes [N, 4] in the picture's units -> in the window's."""
    origin, size = window[:2], window[2:] - window[:2]
    return (boxes - tf.tile(origin, [2])) / tf.tile(size, [2])
