"""Ground truth and detections as columns of arrays: a million detections as dicts take a gigabyte.

Shapes: `N` objects of a split, `n` detections of a split. Boxes are x, y, width, height in pixels.
"""

import typing

import numpy as np

# A model's scores are float32, where .35 is slightly less than in Python: what scores at least .35
# scores at least this much less.
SCORE_ROUNDING = 1e-7

SCORE_TOLERANCE = 1e-6  # sums of float32 probabilities may exceed 1 by this much


class Truth(typing.NamedTuple):
    """The objects of a split.

    image_ids, category_ids: sorted, as COCO's evaluation orders them. names: of the categories.
    image, category: [N] indices into these. boxes: [N, 4]. area: [N], of the annotation.
    crowd, difficult: [N] bool; such objects count neither as found nor as missed.
    """

    image_ids: list
    category_ids: list
    names: list[str]
    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray

    @property
    def ignored(self):
        return self.crowd | self.difficult


class Found(typing.NamedTuple):
    """The detections of a split; image and category as in the Truth that they belong to.

    image, category: [n]. boxes: [n, 4]. scores: [n].
    """

    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def select(self, rows) -> "Found":
        """Those of these rows: indices, or a mask [n]."""
        return Found(*(column[rows] for column in self))


def make_truth(ground_truth: dict) -> Truth:
    """COCO instances, as `coco_instances` makes or reads them -> Truth."""
    image_ids = sorted(row["id"] for row in ground_truth["images"])
    categories = sorted(ground_truth["categories"], key=lambda row: row["id"])
    category_ids = [row["id"] for row in categories]
    rows = ground_truth["annotations"]
    return Truth(
        image_ids,
        category_ids,
        [row["name"] for row in categories],
        _indices(image_ids, [row["image_id"] for row in rows]),
        _indices(category_ids, [row["category_id"] for row in rows]),
        np.array([row["bbox"] for row in rows], float).reshape(-1, 4),
        np.array([row["area"] for row in rows], float),
        np.array([bool(row["iscrowd"]) for row in rows], bool),
        np.array([bool(row.get("difficult")) for row in rows], bool),
    )


def select_objects(truth: Truth, rows) -> Truth:
    """The truth with these rows of its objects: indices, or a mask [N]."""
    return Truth(*truth[:3], *(column[rows] for column in truth[3:]))


def places(ids) -> dict:
    """{id: its index}."""
    return {value: index for index, value in enumerate(ids)}


def image_rows(ground_truth: dict, truth: Truth) -> list[dict]:
    """The images of the COCO instances that truth was made of, in the order of its image_ids."""
    rows = {row["id"]: row for row in ground_truth["images"]}
    return [rows[image_id] for image_id in truth.image_ids]


def _indices(ids, values):
    place = places(ids)
    return np.array([place[value] for value in values], np.int64)
