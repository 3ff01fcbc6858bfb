"""The detections in one image."""

import dataclasses
import io
import typing

import numpy as np
from PIL import Image

from ssd_tf.coco_rows import LARGEST_ID
from ssd_tf.draw import draw_detections, name_of
from ssd_tf.inference.thresholds import DEFAULT_SCORE, Thresholds


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The detections in one image, highest score first; a notebook shows them drawn.

    boxes: [n, 4] normalised corners (ymin, xmin, ymax, xmax). scores: [n]. labels: [n] from 1.
    classes: the name of each label, or None if the model has no names. image: uint8 [H, W, 3], in
    which they were detected. thresholds: the model's, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: typing.Sequence | None = None
    image: np.ndarray | None = None
    thresholds: Thresholds | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        best = ", ".join(
            f"{name} {score:.2f}" for name, score in zip(self.names[:5], self.scores, strict=False)
        )
        return f"<{len(self)} detections{': ' * bool(best)}{best}{', ...' * (len(self) > 5)}>"

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [name_of(label, self.classes) for label in self.labels]

    def select(self, rows: np.ndarray) -> "Detections":
        """The detections of these rows: indices, or a mask [n]."""
        return dataclasses.replace(
            self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows]
        )

    def above(self, score: float) -> "Detections":
        """The detections that score at least this."""
        return self.select(self.scores >= score)

    def confident(self) -> "Detections":
        """The detections that score at least the threshold of their class.

        Without thresholds, those that score at least 0.5.
        """
        if self.thresholds is None:
            return self.above(DEFAULT_SCORE)
        # A float32 score of .35 is less than Python's .35.
        lowest = np.array(self.thresholds.of(self.names), np.float32)
        return self.select(self.scores >= lowest)

    def draw(self, score: float | None = None) -> Image.Image:
        """A Pillow image with the boxes that score at least `score`; default: the confident ones.

        Raises ValueError without an image.
        """
        if self.image is None:
            raise ValueError("there is no image to draw on; detector(image) keeps it")
        shown = self.confident() if score is None else self.above(score)
        return draw_detections(self.image, shown, self.classes, score=0)

    def to_coco(self, image_id: int | str = 1) -> list[dict]:
        """Rows of a COCO results file, boxes in pixels; category ids are the labels.

        Raises ValueError without an image, whose size is needed.
        """
        if self.image is None:
            raise ValueError("the size of the image is not known; detector(image) keeps it")
        boxes = to_xywh_pixels(self.boxes, self.image.shape[:2]).tolist()
        return [
            {"image_id": image_id, "category_id": int(label), "bbox": box, "score": float(score)}
            for box, label, score in zip(boxes, self.labels, self.scores, strict=True)
        ]

    def _repr_png_(self) -> bytes | None:
        if self.image is None:
            return None
        content = io.BytesIO()
        self.draw().save(content, "PNG")
        return content.getvalue()


def from_xywh_pixels(boxes, image_hw):
    """x, y, width, height in pixels [n, 4] -> normalised corners [n, 4].

    image_hw: of one image, or of each box's [n, 2].
    """
    x, y, width, height = np.asarray(boxes, float).reshape(-1, 4).T
    corners = np.stack([y, x, y + height, x + width], 1)
    return corners / np.tile(np.asarray(image_hw, float), 2)


def to_xywh_pixels(boxes, image_hw):
    """Normalised corners [n, 4] -> x, y, width, height in pixels [n, 4]."""
    ymin, xmin, ymax, xmax = np.asarray(boxes, float).reshape(-1, 4).T
    height, width = image_hw
    return np.stack([xmin * width, ymin * height, (xmax - xmin) * width, (ymax - ymin) * height], 1)


def image_ids(names) -> list[int]:
    """A unique COCO id for each image.

    The numbers that the names spell if all of them are numbers and differ, else 1..n in order.
    """
    numbers = [int(name) for name in names if name.isdecimal()]
    if len(set(numbers)) == len(names) and max(numbers, default=0) <= LARGEST_ID:
        return numbers
    return list(range(1, len(names) + 1))
