"""The resize that training, evaluation, serving and detection share."""

import numpy as np
import tensorflow as tf

# Output rows that `resize_array` computes at a time: few enough to stay in a processor's cache.
_BAND_ROWS = 16


def resize(image, output_hw):
    """Warp uint8 [..., H, W, 3] to float32 [..., *output_hw, 3].

    Bilinear, half-pixel centres, no antialiasing.
    """
    # Not cast to float32 first: that copies the whole image and gives the same bits.
    return tf.image.resize(image, output_hw, "bilinear", antialias=False)


def resize_array(image, output_hw):
    """`resize` of a NumPy image uint8 [H, W, 3]: the same pixels, in less time if it is large.

    A tensor would be a copy of the whole image, of which only four pixels for each that is left
    are needed.
    """
    if image.shape[0] * image.shape[1] <= 4 * output_hw[0] * output_hw[1]:
        return resize(image, output_hw).numpy()
    rows, row_shares = _neighbours(image.shape[0], output_hw[0])
    columns, column_shares = _neighbours(image.shape[1], output_hw[1])
    # A pixel as one item of three bytes is gathered faster than as three of one.
    pixels = np.ascontiguousarray(image).view("V3")[..., 0]
    output = np.empty((*output_hw, 3), np.float32)
    for start in range(0, output_hw[0], _BAND_ROWS):
        band = slice(start, start + _BAND_ROWS)
        corners = pixels[rows[:, band, None, None], columns].view(np.uint8)
        corners = corners.reshape(*corners.shape[:-1], -1, 3)
        left, right = np.moveaxis(corners, 2, 0).astype(np.float32)
        above, below = left + (right - left) * column_shares[:, None]
        output[band] = above + (below - above) * row_shares[band, None, None]
    return output


def _neighbours(size, output_size):
    """The two pixels around each output pixel's centre [2, n], and the second one's weight [n]."""
    scale = np.float32(size) / np.float32(output_size)
    centers = (np.arange(output_size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    before = np.floor(centers)
    indices = np.stack([before, np.ceil(centers)]).astype(int).clip(0, size - 1)
    return indices, centers - before
