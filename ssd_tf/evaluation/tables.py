"""Ground truth and detections of a split, as columns of arrays.

Shapes: `N` objects of a split, `n` detections of a split. Boxes are x, y, width, height in pixels.
"""

import typing

import numpy as np

# A model's scores are float32, where .35 is slightly less than in Python: a score counts as at
# least .35 if it is less by at most this.
SCORE_ROUNDING = 1e-7

SCORE_TOLERANCE = 1e-6  # sums of float32 probabilities may exceed 1 by this much


class Truth(typing.NamedTuple):
    """The objects of a split.

    images: {id: its row of COCO's `images`}. categories: {id: name}. Both in the order of the data.
    image, category: [N] indices into the sorted ids, as COCO's evaluation orders them. boxes:
    [N, 4]. area: [N], of the annotation. crowd, difficult: [N] bool; such objects count neither as
    found nor as missed.
    """

    images: dict
    categories: dict
    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray

    @property
    def image_ids(self) -> list:
        """The sorted ids of the images."""
        return sorted(self.images)

    @property
    def image_rows(self) -> list[dict]:
        """The rows of the images, in the order of image_ids."""
        return [self.images[image_id] for image_id in self.image_ids]

    @property
    def category_ids(self) -> list:
        """The sorted ids of the categories."""
        return sorted(self.categories)

    @property
    def names(self) -> list[str]:
        """The names of the categories, in the order of category_ids."""
        return [self.categories[category_id] for category_id in self.category_ids]

    @property
    def ignored(self) -> np.ndarray:
        """[N] bool: crowds and difficult objects."""
        return self.crowd | self.difficult

    def select(self, rows) -> "Truth":
        """The truth with these rows of its objects: indices, or a mask [N]."""
        return Truth(*self[:2], *(column[rows] for column in self[2:]))


class Found(typing.NamedTuple):
    """The detections of a split; image and category as in the Truth that they belong to.

    image, category: [n]. boxes: [n, 4]. scores: [n].
    """

    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def select(self, rows) -> "Found":
        """The detections in these rows: indices, or a mask [n]."""
        return Found(*(column[rows] for column in self))


def concatenate(empty, parts) -> list[np.ndarray]:
    """Concatenate tuples of columns, column by column; `empty` has columns without rows."""
    return [np.concatenate(columns) for columns in zip(empty, *parts, strict=True)]
