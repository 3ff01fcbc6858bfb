"""What a detector takes as an image: files, their bytes, Pillow images, arrays."""

import os

import numpy as np
from PIL import Image

from ssd_tf import pixels


def read_image(image, gray_range=pixels.FULL_RANGE) -> np.ndarray:
    """A path, the bytes of a file, a Pillow image or array -> uint8 [H, W, 3] RGB, as shown.

    gray_range: as `pixels.to_rgb` takes it, for gray images of 16 bits. Raises OSError when a file
    cannot be read, ValueError for content that is not an image, or an array of another kind.
    """
    if isinstance(image, (str, os.PathLike, bytes, Image.Image)):
        return pixels.read_image(image, gray_range)
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"expected an image as uint8 [height, width, 3], got {image.dtype} {list(image.shape)}"
        )
    return image
