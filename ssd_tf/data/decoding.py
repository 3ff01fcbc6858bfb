"""The decoder of image files inside a graph, for serving."""

import tensorflow as tf

from ssd_tf import pixels
from ssd_tf.data import image_headers
from ssd_tf.data.records import decode_stored


def decode_image(encoded, gray_range=pixels.FULL_RANGE):
    """Decode an image file to uint8 [H, W, 3], as shown: rotated and mirrored as EXIF says.

    A JPEG, PNG, WebP, GIF, or BMP of 8 bits or more; the pixels are those of `pixels.read_image`.
    gray_range: for PNGs of 16 bits, as `pixels.to_rgb` takes it. Raises InvalidArgumentError for
    other files, corrupt ones, and those of more than pixels.MAX_PIXELS pixels.
    """
    header = image_headers.read_header(encoded)
    num_pixels = tf.reduce_prod(tf.minimum(header.hw, pixels.MAX_PIXELS + 1))
    checks = [
        tf.debugging.Assert(header.kind != image_headers.UNKNOWN, ["unknown format"]),
        tf.debugging.Assert(num_pixels <= pixels.MAX_PIXELS, ["too many pixels:", num_pixels]),
    ]
    with tf.control_dependencies(checks):
        encoded = tf.identity(encoded)
    image = tf.switch_case(
        header.kind,
        {
            image_headers.GRAY_16_PNG: lambda: _decode_gray_16(encoded, gray_range),
            image_headers.PALETTE_BMP: lambda: _decode_palette_bmp(encoded),
            image_headers.WEBP: lambda: tf.io.decode_webp(encoded)[0, ..., :3],
            image_headers.GIF: lambda: decode_stored(image_headers.cut_gif(encoded)),
        },
        default=lambda: decode_stored(encoded),
    )
    return tf.cond(
        header.orientation == 1, lambda: image, lambda: _orient(image, header.orientation)
    )


def _decode_gray_16(encoded, gray_range):
    values = tf.io.decode_png(encoded, channels=1, dtype=tf.uint16)
    image = tf.gather(pixels.gray_table(gray_range), tf.cast(values, tf.int32))
    return tf.image.grayscale_to_rgb(image)


def _decode_palette_bmp(encoded):
    indices = decode_stored(encoded)[..., 0]  # which TensorFlow takes for gray values
    return tf.gather(image_headers.read_bmp_palette(encoded), tf.cast(indices, tf.int32))


def _orient(image, orientation):
    """Turn the stored pixels [H, W, 3] into the image as shown."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    is_flipped = [[3, 4, 7, 8], [2, 3, 6, 7]]  # orientations: up and down, left and right
    flips = tf.reduce_any(tf.constant(is_flipped, tf.int64) == orientation, 1)
    # tf.reverse accepts constant axes only.
    return tf.raw_ops.Reverse(tensor=image, dims=tf.concat([flips, [False]], 0))
