"""Training augmentation: geometry first, on box coordinates alone; then only the pixels that are needed, resized once and
distorted at the small size; the canvas around them last.

All is made of graph ops; randomness comes from a stateless seed [2] int64. Shapes: `N` objects.
"""

import numpy as np
import tensorflow as tf

from ssd_tf.data import colors, crops
from ssd_tf.data.images import decode_image

FILL_RGB = (123.0, 117.0, 104.0)  # the authors' mean, which the canvas of a zoom-out is filled with


def augment(example, output_hw, options, seed):
    """Example -> image float32 [h, w, 3] in 0..255 and the Example with its boxes in the picture's new coordinates.

    options: config.Augment; one without any step warps the whole picture, as `resize` does. Crowds do not steer the crop.
    """
    picture, picture_hw = open_picture(example["image"])
    placement, flips, example = sample_geometry(example, picture_hw, output_hw, options, seed)
    image = resize_part(decode_part(picture, placement), placement)
    image = colors.distort_color(image, options, seed)
    return finish(image, placement, flips, output_hw), example


def sample_geometry(example, picture_hw, output_hw, options, seed):
    """Zoom-out, crop and flips -> Placement, flips [2] bool, the Example with its boxes moved."""
    objects = tf.boolean_mask(example["boxes"], ~example["crowd"])
    window = crops.sample_window(objects, picture_hw, options, seed)
    placement, window = crops.place(window, picture_hw, output_hw)
    example = crops.move_boxes(example, window)
    flips = crops.sample_flips(options, seed)
    return placement, flips, crops.flip_boxes(example, flips)


def open_picture(encoded):
    """Encoded picture -> (encoded, pixels uint8 [H, W, 3], is it a JPEG, [H, W] int32), [H, W] int32.

    A JPEG is decoded later; its pixels are [0, 0, 3] here.
    """
    is_jpeg = tf.io.is_jpeg(encoded)
    pixels = tf.cond(is_jpeg, lambda: tf.zeros([0, 0, 3], tf.uint8), lambda: decode_image(encoded))
    picture_hw = tf.cond(
        is_jpeg, lambda: tf.image.extract_jpeg_shape(encoded)[:2], lambda: tf.shape(pixels)[:2]
    )
    return (encoded, pixels, is_jpeg, picture_hw), picture_hw


def decode_part(picture, placement):
    """What `open_picture` gives -> uint8 [h, w, 3]: of a JPEG, only the part that is drawn is decoded."""
    encoded, pixels, is_jpeg, picture_hw = picture
    begin, end = placement.begin, placement.begin + placement.part_hw

    def from_jpeg():
        # A column more on either side, where there is one: libjpeg smooths the chroma of the outermost as if the picture ended.
        left = tf.maximum(begin[1] - 1, 0)
        right = tf.minimum(end[1] + 1, picture_hw[1])
        window = tf.stack([begin[0], left, placement.part_hw[0], right - left])
        part = tf.image.decode_and_crop_jpeg(
            encoded, window, channels=3, dct_method="INTEGER_ACCURATE"
        )
        return part[:, begin[1] - left : end[1] - left]

    return tf.cond(is_jpeg, from_jpeg, lambda: pixels[begin[0] : end[0], begin[1] : end[1]])


def resize_part(part, placement):
    """uint8 [h, w, 3] -> float32 at its size in the training picture [h, w, 3], at least one pixel: bilinear.

    # Differs from the authors: they resize with one of five interpolations, drawn at random for each picture.
    """
    size = tf.maximum(placement.target_hw, 1)
    # Crops take the fastest op, which knows whole pixels only; tf.image.resize would cast first and carry every pixel four
    # times as wide. The other op samples anywhere, in thrice the time.
    crop = {"images": part[None], "size": size, "half_pixel_centers": True}
    rest = {
        "image": part[None],
        "boxes": placement.samples[None],
        "box_ind": [0],
        "crop_size": size,
    }
    return tf.cond(
        placement.is_crop,
        lambda: tf.raw_ops.ResizeBilinear(**crop)[0],
        lambda: tf.raw_ops.CropAndResize(**rest)[0],
    )


def finish(image, placement, flips, output_hw):
    """The drawn part put on the canvas and flipped -> float32 [*output_hw, 3]."""
    covers = tf.reduce_all(placement.target_hw == output_hw)
    image = tf.cond(covers, lambda: image, lambda: put_on_canvas(image, placement, output_hw))
    # The op behind tf.reverse takes constant axes only, and a slice with step -1 takes fifteen times as long.
    image = tf.raw_ops.Reverse(tensor=image, dims=tf.concat([flips, [False]], 0))
    return tf.ensure_shape(image, [*output_hw, 3])


def put_on_canvas(image, placement, output_hw):
    """The drawn part with FILL_RGB around it [*output_hw, 3]."""
    canvas = tf.constant(np.full((*output_hw, 3), FILL_RGB, np.float32))
    begin, end = placement.target_begin, placement.target_begin + placement.target_hw
    image = image[: placement.target_hw[0], : placement.target_hw[1]]
    rows = canvas[begin[0] : end[0]]
    middle = tf.concat([rows[:, : begin[1]], image, rows[:, end[1] :]], 1)
    return tf.concat([canvas[: begin[0]], middle, canvas[end[0] :]], 0)
