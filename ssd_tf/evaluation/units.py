"""Signs that boxes are not x, y, width, height in pixels, as COCO files have them."""

import numpy as np

from ssd_tf.parsing import to_number

_LARGEST_FRACTION = 1.5  # some normalised boxes end beyond their image
_OVERHANG = 1.05  # so do boxes in pixels, as models do not clip all of theirs
_SUSPICIOUS = 1 / 3  # of the boxes


def find_fault(table, image_rows) -> str:
    """What is suspicious about the boxes of a Truth or Found; empty if nothing is.

    image_rows: the images, with their sizes if they are known, in the order of table.image.
    """
    if not len(table.image):
        return ""
    ends = table.boxes[:, :2] + table.boxes[:, 2:]
    if np.abs(np.concatenate([table.boxes, ends], 1)).max() <= _LARGEST_FRACTION:
        return "all boxes lie within 0 to 1; expected x, y, width, height in pixels"
    sizes = [[to_number(row.get(key)) for key in ("width", "height")] for row in image_rows]
    # Comparisons with NaN, of a size that is not known, are false.
    is_beyond = (ends > _OVERHANG * np.array(sizes)[table.image]).any(1)
    if is_beyond.mean() <= _SUSPICIOUS:
        return ""
    return (
        f"{is_beyond.sum()} of {len(is_beyond)} boxes end beyond their image; expected x, y, "
        "width, height in pixels of the image, not corners or pixels of another size"
    )
