"""Does an exported detector find what the Keras model finds?"""

import numpy as np


def compare(reference, other, images, score=0.35, partner_score=0.30, tolerance=0.01) -> dict:
    """Runs two Detectors over pictures and pairs their detections, both ways.

    Every detection scored >= score on one side wants a partner >= partner_score of the same class on the other, with every
    corner within `tolerance` of the picture's side. Returns {"pictures", "detections", "unpaired", "first_unpaired" (up to 20),
    "largest_corner_difference"}.
    """
    unpaired, largest, detections = [], 0.0, 0
    for index, image in enumerate(images):
        found = {"reference": reference(image), "other": other(image)}
        for side, opposite in (("reference", "other"), ("other", "reference")):
            for row in np.flatnonzero(found[side]["scores"] >= score):
                detections += 1
                distance = _nearest(found[side], row, found[opposite], partner_score)
                if distance <= tolerance:
                    largest = max(largest, distance)
                else:
                    box = np.round(found[side]["boxes"][row].astype(float), 4).tolist()
                    unpaired.append(
                        {
                            "picture": index,
                            "side": side,
                            "box": box,
                            "label": int(found[side]["labels"][row]),
                        }
                    )
    return {
        "pictures": len(images),
        "detections": detections,
        "unpaired": len(unpaired),
        "first_unpaired": unpaired[:20],
        "largest_corner_difference": float(largest),
    }


def _nearest(found, row, others, partner_score):
    """The largest corner difference to the nearest partner, infinite where there is none."""
    candidates = (others["labels"] == found["labels"][row]) & (others["scores"] >= partner_score)
    if not candidates.any():
        return np.inf
    return float(np.abs(others["boxes"][candidates] - found["boxes"][row]).max(1).min())
