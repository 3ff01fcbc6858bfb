"""ATSS against a NumPy implementation of the paper's algorithm 1, object by object."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.boxes import atss, matching
from ssd_tf.boxes.default_boxes import BoxLevel, make_default_boxes

INPUT_HW = (64, 96)
SHAPES_HW = (((16, 16), (12, 24)), ((32, 32), (24, 48)), ((60, 60), (48, 90)))
MAPS = ((8, 12), (4, 6), (2, 3))
LEVELS = [BoxLevel(shapes) for shapes in SHAPES_HW]
DEFAULT_BOXES = make_default_boxes(LEVELS, MAPS, INPUT_HW)
LEVEL_OF_BOX = np.repeat([0, 1, 2], [192, 48, 12])
MATCH = atss.make_match(DEFAULT_BOXES, LEVEL_OF_BOX, INPUT_HW)
# As in the input pipeline, in a graph for any number of objects.
MATCH_IN_GRAPH = tf.function(MATCH, input_signature=[tf.TensorSpec([None, 4])])


def match(boxes):
    return MATCH_IN_GRAPH(np.reshape(boxes, (-1, 4)).astype(np.float32)).numpy()


def ious(box, others):
    """IoU of a box [4] with each of the others [n, 4]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), 1)
    areas = np.prod(others[:, 2:] - others[:, :2], 1)
    return shared / (np.prod(box[2:] - box[:2]) + areas - shared)


def match_by_the_paper(objects):
    """Algorithm 1, line by line, with k = 9 cells of two default boxes each."""
    best = np.zeros(len(DEFAULT_BOXES))
    matched = np.full(len(DEFAULT_BOXES), -1)
    centre = (DEFAULT_BOXES[:, :2] + DEFAULT_BOXES[:, 2:]) / 2
    for number, box in enumerate(objects):
        middle = (box[:2] + box[2:]) / 2
        candidates = []
        for level in range(3):
            members = np.flatnonzero(level == LEVEL_OF_BOX)
            distance = np.sum(((centre[members] - middle) * INPUT_HW) ** 2, 1)
            candidates += list(members[np.argsort(distance, kind="stable")[:18]])
        overlaps = ious(box, DEFAULT_BOXES[candidates])
        threshold = overlaps.mean() + overlaps.std(ddof=1)
        for index, overlap in zip(candidates, overlaps, strict=True):
            is_inside = (centre[index] > box[:2]).all() and (centre[index] < box[2:]).all()
            if overlap >= threshold and is_inside and overlap > best[index]:
                best[index] = overlap
                matched[index] = number
    return matched


def test_without_objects():
    np.testing.assert_array_equal(match([]), np.full(252, -1))


def test_an_object_on_a_default_box():
    """Its own box is the best; others of the same cell and size overlap enough, or do not."""
    index = 192 + 2 * (1 * 6 + 2)  # row 1, column 2 of the second map, first shape: 32 x 32
    matched = match(DEFAULT_BOXES[index])
    assert matched[index] == 0
    # Mean and deviation of 48 IoUs (18, 18 and 12 candidates) by the paper's formula.
    assert (ious(DEFAULT_BOXES[index], DEFAULT_BOXES)[matched == 0] > 0.3).all()


def test_the_better_object_gets_the_box():
    index = 192 + 2 * (1 * 6 + 2)
    exact = DEFAULT_BOXES[index]
    shifted = exact + np.float32(0.04)
    assert match([shifted, exact])[index] == 1
    assert match([exact, shifted])[index] == 0
    assert match([exact, exact])[index] == 0


@pytest.mark.parametrize("seed", range(10))
def test_random_sets_against_the_paper(seed):
    random = np.random.default_rng(seed)
    for _ in range(100):
        count = random.integers(0, 12)
        sides = random.uniform(0.03, 0.9, (count, 2))
        corners = random.uniform(0, 1 - sides)
        objects = np.concatenate([corners, corners + sides], 1).astype(np.float32)
        expected = match_by_the_paper(objects.astype(np.float64))
        found = match(objects)
        different = found != expected
        # Rounding decides where a distance or an IoU is as large as another.
        assert different.mean() < 0.01


def test_a_centre_on_the_edge_is_not_inside():
    """Rows 12 to 20 and columns 14 to 22 of the input: centres are at rows 4, 12, 20, ..."""
    np.testing.assert_array_equal(match([12 / 64, 14 / 96, 20 / 64, 22 / 96]), np.full(252, -1))


def test_ignore_regions_stay():
    box = DEFAULT_BOXES[200]
    example = {
        "boxes": tf.constant([box, [0, 0, 1, 1]], tf.float32),
        "labels": tf.constant([2, 1]),
        "crowd": tf.constant([False, True]),
        "difficult": tf.constant([False, False]),
    }
    targets = matching.make_targets(
        example,
        DEFAULT_BOXES,
        (0.1, 0.1, 0.2, 0.2),
        train_difficult=False,
        assign=MATCH,
    )
    labels = targets["labels"].numpy()
    assert labels[200] == 2
    assert set(labels) == {-1, 2}
    np.testing.assert_allclose(targets["offsets"][200], np.zeros(4), atol=1e-5)
