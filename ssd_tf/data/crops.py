"""The geometry of a training picture: zoom-out, crop and flips, on box coordinates and the picture's size alone.

A *window* is the part of the plane that becomes the training picture, `[ymin, xmin, ymax, xmax]` in units of the original
one: a crop lies inside [0, 1], a zoom-out reaches beyond. Shapes: `N` objects, `M` modes of the crop sampler, `T` tries.
"""

import typing

import tensorflow as tf

from ssd_tf.boxes import geometry

WHOLE = (0.0, 0.0, 1.0, 1.0)


class Placement(typing.NamedTuple):
    """Which pixels of the picture (part) are drawn into which pixels of the training picture (target); all [2], y first.

    The rest of the training picture is canvas; nothing is drawn where target_hw has a 0.
    """

    begin: tf.Tensor  # int32, as are the next three
    part_hw: tf.Tensor
    target_begin: tf.Tensor
    target_hw: tf.Tensor
    is_crop: (
        tf.Tensor
    )  # bool: the window lies in the picture, so part and target are the whole window
    samples: tf.Tensor  # [4] float32: else, corners of the target's outermost centres between those of the part, 0 to 1


def uniform(seed, stream, shape):
    """Random numbers in [0, 1) of one purpose: `stream` 0, 1, 2, ... are independent of each other for a seed [2] int64."""
    return tf.random.stateless_uniform(
        shape, seed + tf.stack([tf.cast(stream, tf.int64) * 2**40, 0])
    )


def sample_window(boxes, picture_hw, options, seed):
    """The window [4] of a random zoom-out followed by a random crop of it; boxes [N, 4] steer the crop, picture_hw [2]."""
    canvas = sample_zoom_out(options, seed)
    if not options.crop_min_iou:
        return canvas
    sample = {"caffe": sample_crop_caffe, "torchvision": sample_crop_torchvision}[options.crop_rule]
    crop = sample(into_window(boxes, canvas), picture_hw, options, seed)
    if not options.zoom_out_probability:
        return crop
    return out_of_window(crop, canvas)


def sample_zoom_out(options, seed):
    """A canvas of 1 to zoom_out_max sides with the picture at a random place of it, as a window [4].

    # Differs from the authors: they write the expanded canvas as a JPEG and read it again, ours is never encoded anew.
    """
    if not options.zoom_out_probability:
        return tf.constant(WHOLE)
    numbers = uniform(seed, 0, [4])
    more = tf.where(
        numbers[0] < options.zoom_out_probability, numbers[1] * (options.zoom_out_max - 1), 0.0
    )
    before = numbers[2:] * more  # canvas above the picture and left of it
    return tf.concat([-before, 1 + more - before], 0)


def sample_crop_caffe(boxes, picture_hw, options, seed):  # noqa: ARG001 - here aspect is relative to the picture
    """The authors' sampler: every mode draws up to crop_tries crops; one of the modes that succeeded, or the whole, is taken.

    A crop succeeds where *any* object of boxes [N, 4] has at least the mode's IoU with it; a mode of 0 takes any crop. Sides are
    scale * sqrt(ratio) and scale / sqrt(ratio) of the picture's (weiliu89/caffe, sampler.cpp) -> crop [4].
    # Differs from the authors: their "any crop" mode fails on a picture without objects, ours crops it.
    """
    least = tf.constant(options.crop_min_iou)
    shape = [len(options.crop_min_iou), options.crop_tries]
    scale, ratio, top, left = tf.unstack(uniform(seed, 1, [4, *shape]))
    scale = _between(scale, *options.crop_scale)
    square = scale * scale
    ratio = tf.sqrt(
        _between(
            ratio,
            tf.maximum(options.crop_aspect[0], square),
            tf.minimum(options.crop_aspect[1], 1 / square),
        )
    )
    crops = _crops(scale / ratio, scale * ratio, top, left)  # [M, T, 4]

    overlaps = geometry.iou(tf.reshape(crops, [-1, 4]), boxes)  # [M * T, N]
    best = tf.reshape(tf.reduce_max(overlaps, 1), shape)  # -inf without objects
    accepted = tf.maximum(best, 0.0) >= least[:, None]
    first = tf.gather(crops, tf.argmax(accepted, 1), batch_dims=1)  # [M, 4]
    succeeded = tf.concat([[True], tf.reduce_any(accepted, 1)], 0)  # the whole picture always does
    lot = tf.where(succeeded, uniform(seed, 2, [shape[0] + 1]), -1.0)
    return tf.concat([[WHOLE], first], 0)[tf.argmax(lot)]


def sample_crop_torchvision(boxes, picture_hw, options, seed):
    """torchvision's RandomIoUCrop: draws a mode first and, where crop_tries crops fail it, another -> crop [4].

    Unlike the authors': both sides are drawn independently; aspect is width / height in pixels; an object counts only with its
    centre inside the crop, and one must even for a mode of 0, so a picture without objects stays whole.
    """
    hw = tf.cast(picture_hw, tf.float32)
    modes = [*options.crop_min_iou, 1.0]  # the last leaves the picture whole
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2

    def draw(done, _, turn):
        numbers = uniform(seed, 16 + turn, [5, options.crop_tries])
        mode = tf.cast(numbers[4, 0] * len(modes), tf.int32)
        height, width = tf.unstack(_between(numbers[:2], *options.crop_scale))
        crops = _crops(height, width, numbers[2], numbers[3])  # [T, 4]
        aspect = width * hw[1] / (height * hw[0])
        inside = tf.reduce_all(
            (crops[:, None, :2] < centres) & (centres < crops[:, None, 2:]), 2
        )  # [T, N]
        accepted = tf.reduce_any(
            inside & (geometry.iou(crops, boxes) >= tf.constant(modes)[mode]), 1
        )
        accepted &= (aspect >= options.crop_aspect[0]) & (aspect <= options.crop_aspect[1])
        whole = mode == len(modes) - 1
        crop = tf.where(whole, tf.constant(WHOLE), crops[tf.argmax(accepted)])
        return done | whole | tf.reduce_any(accepted), crop, turn + 1

    return tf.while_loop(lambda done, *_: ~done, draw, (tf.constant(False), tf.constant(WHOLE), 0))[
        1
    ]


def sample_flips(options, seed):
    """Whether to flip upside down and left to right [2] bool."""
    return uniform(seed, 3, [2]) < [options.vertical_flip_probability, options.flip_probability]


def place(window, picture_hw, output_hw):
    """window [4], picture_hw [2] -> its Placement and the window that this draws exactly [4].

    Each side is rounded to whole pixels of the picture, on the canvas too, as in the references: it moves by at most half of
    one, or one and a half where the window would else be less than a pixel wide. Boxes go through the window returned.
    Where the window reaches beyond the picture, a pixel of the training picture is drawn if its centre lies between the
    centres of the picture's pixels; the others are canvas, with the outer half of the picture's outermost pixels.
    """
    size, output = tf.cast(picture_hw, tf.float32), tf.constant(output_hw, tf.float32)
    low, high = tf.round(window[:2] * size), tf.round(window[2:] * size)
    low = tf.where(high <= size, tf.minimum(low, size - 1), low)  # a crop shows a pixel at least
    high = tf.maximum(high, low + 1)
    exact = tf.concat([low / size, high / size], 0)
    is_crop = tf.reduce_all((low >= 0) & (high <= size))
    margin = tf.where(
        is_crop, 0.0, 1.0
    )  # neighbours for the outermost pixels of a side that is cut off
    begin = tf.clip_by_value(low - margin, 0.0, size - 1)
    part = tf.clip_by_value(high + margin, begin + 1, size) - begin
    target_begin, target, samples = _target(low, (high - low) / output, size, output, begin, part)
    target_begin, target = tf.where(is_crop, 0.0, target_begin), tf.where(is_crop, output, target)
    whole = (tf.cast(x, tf.int32) for x in (begin, part, target_begin, target))
    return Placement(*whole, is_crop, samples), exact


def _target(low, pixel, size, output, begin, part):
    """Where a picture lies that does not fill its window: target_begin, target_hw and samples of a Placement, as floats.

    low: the window's begin; pixel: the size of one of the training picture; both in pixels of the picture; all [2].
    """
    rim = (
        0.5 + 3e-6 * size
    )  # more than the error of a place in float32, so that no sample lies outside
    target_begin = tf.clip_by_value(tf.math.ceil((rim - low) / pixel - 0.5), 0.0, output)
    target_end = tf.clip_by_value(tf.floor((size - rim - low) / pixel + 0.5), target_begin, output)
    ends = (
        tf.stack([target_begin + 0.5, target_end - 0.5]) * pixel + low - 0.5 - begin
    )  # [2, 2], in pixels of the part
    samples = tf.clip_by_value(ends / tf.maximum(part - 1, 1.0), 0.0, 1.0)
    return target_begin, target_end - target_begin, tf.reshape(samples, [4])


def move_boxes(example, window):
    """The Example as seen through the window: boxes moved, those with their centre outside dropped, the others clipped.

    Liu et al. 2016, sec. 2.2. Crowds stay while any of them shows: a region to ignore is one whether or not its middle does.
    """
    boxes = into_window(example["boxes"], window)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = tf.reduce_all((centre >= 0) & (centre < 1), 1)
    clipped = tf.clip_by_value(boxes, 0.0, 1.0)
    visible = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], 1)
    keep = tf.where(visible & (inside | example["crowd"]))[:, 0]
    per_object = {"boxes": clipped} | {
        key: example[key] for key in ("labels", "crowd", "difficult", "area")
    }
    return {**example, **{key: tf.gather(value, keep) for key, value in per_object.items()}}


def flip_boxes(example, flips):
    """The Example mirrored: flips [2] bool, upside down and left to right."""
    low, high = example["boxes"][:, :2], example["boxes"][:, 2:]
    return {
        **example,
        "boxes": tf.concat([tf.where(flips, 1 - high, low), tf.where(flips, 1 - low, high)], 1),
    }


def into_window(boxes, window):
    """boxes [N, 4] in the picture's units -> in the window's."""
    origin, size = window[:2], window[2:] - window[:2]
    return (boxes - tf.tile(origin, [2])) / tf.tile(size, [2])


def out_of_window(boxes, window):
    """boxes [..., 4] in the window's units -> in the picture's; the inverse of `into_window`."""
    origin, size = window[:2], window[2:] - window[:2]
    return boxes * tf.tile(size, [2]) + tf.tile(origin, [2])


def _between(numbers, low, high):
    return low + numbers * (high - low)


def _crops(height, width, top, left):
    """Sides and random numbers for the place, each [...] -> crops [..., 4] inside the picture."""
    top, left = top * (1 - height), left * (1 - width)
    return tf.stack([top, left, top + height, left + width], -1)
