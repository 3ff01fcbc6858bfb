"""How well default boxes cover the objects that were found and those that were missed.

Shapes: `N` objects of a split, `A` default boxes.
"""

import itertools

import numpy as np

from ssd_tf.boxes import geometry
from ssd_tf.evaluation.tables import Truth
from ssd_tf.inference.detections import from_xywh_pixels

_LIMITS = (0, 0.3, 0.4, 0.5, 0.6, 0.7, 1)
_OBJECTS_AT_ONCE = 256


def coverage(truth: Truth, image_sizes, is_found, default_boxes) -> list[dict]:
    """[{"name", "objects", "found"}] by the IoU of each object's best default box.

    image_sizes: height and width of each of truth.image_ids. is_found: [N] bool.
    default_boxes: [A, 4] normalised corners. Ignored objects are left out.
    """
    rows = np.flatnonzero(~truth.ignored)
    sizes = np.array(image_sizes, float).reshape(-1, 2)[truth.image[rows]]
    corners = from_xywh_pixels(truth.boxes[rows], sizes)
    best = np.concatenate(
        [
            geometry.iou(part.astype(np.float32), default_boxes).numpy().max(1)
            for part in np.split(corners, range(_OBJECTS_AT_ONCE, len(rows), _OBJECTS_AT_ONCE))
        ]
        if len(rows)
        else [np.zeros(0)]
    )
    slices = []
    for low, high in itertools.pairwise(_LIMITS):
        inside = (best >= low) & ((best < high) | (high == 1))
        name = f"{low:.1f} to {high:.1f}"
        num_found = int(is_found[rows][inside].sum())
        slices.append({"name": name, "objects": int(inside.sum()), "found": num_found})
    return slices
