"""The one definition of a box that can be trained on, for NumPy arrays and tensors alike."""


def is_valid(boxes):
    """boxes [..., 4], normalised corners -> bool [..., 2], by axis: both must be true.

    A valid box has an extent and its centre in the image. Converted boxes also lie within the
    image; those of third-party records may reach beyond its edge.
    """
    low = boxes[..., :2]
    high = boxes[..., 2:]
    return (high > low) & (low + high >= 0) & (low + high <= 2)
