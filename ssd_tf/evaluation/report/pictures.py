"""The images of a report: ground truth and detections side by side, as data URIs of JPEGs."""

import base64
import io

import numpy as np
from PIL import Image

from ssd_tf.draw import draw_comparison
from ssd_tf.evaluation.analysis import Analysis
from ssd_tf.inference.detections import Detections, from_xywh_pixels

_MOST_IMAGES = 6
_LARGEST_SIDE = 480  # pixels, of each of the two


def choose_images(analysis: Analysis) -> dict:
    """{"worst", "best", "label_errors": indices of images}, a few of each.

    The worst have the most errors for their objects (F1), the best the most objects and no errors.
    """
    right, wrong, missed = (analysis.image_counts[key] for key in ("right", "wrong", "missed"))
    num_errors = wrong + missed
    f1 = 2 * right / np.maximum(2 * right + num_errors, 1)
    worst = np.lexsort((-num_errors, f1))
    best = np.lexsort((-right, -f1))
    suspects = dict.fromkeys(
        int(analysis.found.image[row["detection"]]) for row in analysis.matches.label_errors
    )
    return {
        "worst": [int(i) for i in worst if num_errors[i]][:_MOST_IMAGES],
        "best": [int(i) for i in best if right[i] and not num_errors[i]][:_MOST_IMAGES],
        "label_errors": list(suspects)[:_MOST_IMAGES],
    }


def draw_image(analysis: Analysis, index, image) -> str:
    """One image of the split with its objects and its detections at the analysis' score."""
    truth = analysis.truth
    image_hw = image.shape[:2]
    rows = np.flatnonzero(truth.image == index)
    example = {
        "boxes": from_xywh_pixels(truth.boxes[rows], image_hw),
        "labels": truth.category[rows] + 1,
        "crowd": truth.crowd[rows],
        "difficult": truth.difficult[rows],
    }
    rows = np.flatnonzero(analysis.found.image == index)
    found = analysis.found.select(rows[np.argsort(-analysis.found.scores[rows], kind="stable")])
    boxes = from_xywh_pixels(found.boxes, image_hw)
    detections = Detections(boxes, found.scores, found.category + 1)
    small = _shrink(image)
    return _encode(draw_comparison(small, example, detections, truth.names, analysis.score))


def _shrink(image):
    picture = Image.fromarray(image)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return np.asarray(picture)


def _encode(picture):
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
