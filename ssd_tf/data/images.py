"""The decoder and the resize that evaluation, serving and detection share."""

import tensorflow as tf


def decode_image(encoded):
    """Decode a JPEG, PNG, BMP or GIF to uint8 [H, W, 3]."""
    # INTEGER_ACCURATE decodes as libjpeg and Pillow do; `channels` also converts grayscale files.
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def resize(image, output_hw):
    """Warp uint8 [..., H, W, 3] to float32 [..., *output_hw, 3].

    Bilinear, half-pixel centres, no antialiasing.
    """
    return tf.image.resize(tf.cast(image, tf.float32), output_hw, "bilinear", antialias=False)
