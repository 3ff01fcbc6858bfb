"""Image files as people see them. Needs Pillow and NumPy only."""

import numpy as np
from PIL import Image, ImageOps


def read_image(path) -> np.ndarray:
    """An image file -> uint8 [H, W, 3] RGB, upright as its EXIF orientation says.

    Raises OSError or ValueError when it cannot be read.
    """
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
