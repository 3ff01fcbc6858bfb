"""Images as people have them: files, Pillow images, arrays. Needs Pillow and NumPy only."""

import os

import numpy as np
from PIL import Image, ImageOps


def read_image(image) -> np.ndarray:
    """A path, Pillow image or array -> uint8 [H, W, 3] RGB, upright as EXIF says.

    Raises OSError or ValueError when it cannot be read, or is an array of another kind.
    """
    if isinstance(image, (str, os.PathLike)):
        with _open(image) as opened:
            return _to_rgb(opened)
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"expected an image as uint8 [height, width, 3], got {image.dtype} {list(image.shape)}"
        )
    return image


def _open(path):
    try:
        return Image.open(path)
    except Image.DecompressionBombError as error:  # neither an OSError nor a ValueError
        raise ValueError(f"{error}; images of more pixels are not read") from None


def _to_rgb(image):
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
