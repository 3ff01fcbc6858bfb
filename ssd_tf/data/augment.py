"""Training augmentation.

Geometry comes first, on box coordinates only. Then only the pixels that are needed are decoded,
resized once and distorted at the output size. The canvas around them comes last.

Everything consists of graph operations; randomness comes from a stateless seed [2] int64 only.
Shapes: `N` objects.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ssd_tf.config import Augment
from ssd_tf.data import colors, crops
from ssd_tf.data.records import decode_stored

FILL_RGB = (123.0, 117.0, 104.0)  # the mean of the original Caffe code: fills a zoom-out's canvas


class OpenedImage(NamedTuple):
    """An encoded image and its size; a JPEG is decoded later."""

    encoded: tf.Tensor
    pixels: tf.Tensor  # uint8 [H, W, 3]; of a JPEG [0, 0, 3]
    is_jpeg: tf.Tensor
    hw: tf.Tensor  # [2] int32


def make_stages(output_hw, augment: Augment) -> dict:
    """The steps of the augmentation: {name: function of what the step before it returned}.

    The first takes (seed, Example). The last returns an image float32 [h, w, 3] in 0..255 and the
    Example with its boxes moved along. If `augment` does nothing, the whole image is warped, as
    `resize` does. Crowds do not guide the crop.
    """

    def open_example(seed, example):
        return seed, open_image(example["image"]), example

    def sample(seed, opened, example):
        return seed, opened, *sample_geometry(example, opened.hw, output_hw, augment, seed)

    def decode(seed, opened, placement, *rest):
        return seed, decode_part(opened, placement), placement, *rest

    def resize(seed, part, placement, *rest):
        return seed, resize_part(part, placement), placement, *rest

    def distort_color(seed, image, *rest):
        return colors.distort_color(image, augment.color, seed), *rest

    def finish(image, placement, flips, example):
        return finish_image(image, placement, flips, output_hw), example

    return {
        "open": open_example,
        "zoom-out, crop, boxes": sample,
        "decode": decode,
        "resize": resize,
        "colour": distort_color,
        "canvas, flip": finish,
    }


def sample_geometry(example, image_hw, output_hw, augment: Augment, seed):
    """Sample zoom-out, crop and flips: Placement, flips [2] bool, the Example with moved boxes."""
    objects = tf.boolean_mask(example["boxes"], ~example["crowd"])
    window = crops.sample_window(
        objects, image_hw, augment.zoom_out_probability, augment.crop, seed
    )
    placement, window = crops.place_window(window, image_hw, output_hw)
    example = crops.move_boxes(example, window)
    flips = crops.sample_flips(augment.vertical_flip_probability, augment.flip_probability, seed)
    return placement, flips, crops.flip_boxes(example, flips)


def open_image(encoded) -> OpenedImage:
    """Read the size of an encoded image; decode it unless it is a JPEG."""
    is_jpeg = tf.io.is_jpeg(encoded)
    pixels = tf.cond(is_jpeg, lambda: tf.zeros([0, 0, 3], tf.uint8), lambda: decode_stored(encoded))
    hw = tf.cond(
        is_jpeg, lambda: tf.image.extract_jpeg_shape(encoded)[:2], lambda: tf.shape(pixels)[:2]
    )
    return OpenedImage(encoded, pixels, is_jpeg, hw)


def decode_part(opened, placement):
    """Return the part of an OpenedImage that is drawn, uint8 [h, w, 3].

    Of a JPEG only that part is decoded.
    """
    begin = placement.begin
    end = placement.begin + placement.part_hw

    def from_jpeg():
        # One more column on either side, if there is one: libjpeg smooths the chroma of the
        # outermost columns as if the image ended there.
        left = tf.maximum(begin[1] - 1, 0)
        right = tf.minimum(end[1] + 1, opened.hw[1])
        window = tf.stack([begin[0], left, placement.part_hw[0], right - left])
        part = tf.image.decode_and_crop_jpeg(
            opened.encoded, window, channels=3, dct_method="INTEGER_ACCURATE"
        )
        return part[:, begin[1] - left : end[1] - left]

    def from_pixels():
        return opened.pixels[begin[0] : end[0], begin[1] : end[1]]

    return tf.cond(opened.is_jpeg, from_jpeg, from_pixels)


def resize_part(part, placement):
    """Resize a part uint8 [h, w, 3] bilinearly to its size in the training image, float32.

    The result has at least one pixel.
    # Differs from the original Caffe code, which resizes with one of five interpolations, drawn at
    # random per image.
    """
    size = tf.maximum(placement.target_hw, 1)
    images = part[None]

    # Crops take the fastest operation, which knows whole pixels only; tf.image.resize would cast
    # first and move four times as many bytes per pixel.
    def resize_crop():
        return tf.raw_ops.ResizeBilinear(images=images, size=size, half_pixel_centers=True)[0]

    # The other operation samples at any position and takes three times as long.
    def resize_at_samples():
        return tf.raw_ops.CropAndResize(
            image=images, boxes=placement.samples[None], box_ind=[0], crop_size=size
        )[0]

    return tf.cond(placement.is_crop, resize_crop, resize_at_samples)


def finish_image(image, placement, flips, output_hw):
    """Put the drawn part on the canvas and flip it: float32 [*output_hw, 3]."""
    covers = tf.reduce_all(placement.target_hw == output_hw)
    image = tf.cond(covers, lambda: image, lambda: put_on_canvas(image, placement, output_hw))
    # tf.reverse accepts constant axes only, and a slice with step -1 takes fifteen times as long.
    image = tf.raw_ops.Reverse(tensor=image, dims=tf.concat([flips, [False]], 0))
    return tf.ensure_shape(image, [*output_hw, 3])


def put_on_canvas(image, placement, output_hw):
    """Surround the drawn part with FILL_RGB: float32 [*output_hw, 3]."""
    canvas = tf.constant(np.full((*output_hw, 3), FILL_RGB, np.float32))
    begin = placement.target_begin
    end = placement.target_begin + placement.target_hw
    image = image[: placement.target_hw[0], : placement.target_hw[1]]
    rows = canvas[begin[0] : end[0]]
    middle = tf.concat([rows[:, : begin[1]], image, rows[:, end[1] :]], 1)
    return tf.concat([canvas[: begin[0]], middle, canvas[end[0] :]], 0)
