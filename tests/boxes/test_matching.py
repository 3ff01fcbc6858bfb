"""Matching against a slow NumPy version of its rules, and cases derived by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.boxes import matching

VARIANCES = (0.1, 0.1, 0.2, 0.2)
# Four default boxes: the left and the right half of a square, the upper half, and a small one in
# the lower right corner.
DEFAULTS = np.array(
    [[0, 0, 1, 0.5], [0, 0.5, 1, 1], [0, 0, 0.5, 1], [0.75, 0.75, 1, 1]], np.float32
)


def make_example(boxes, labels=None, crowd=(), difficult=()):
    """crowd, difficult: indices of the boxes that are."""
    num_objects = len(boxes)
    if labels is None:
        labels = np.arange(1, num_objects + 1)
    return {
        "boxes": tf.constant(np.reshape(boxes, (num_objects, 4)), tf.float32),
        "labels": tf.constant(labels, tf.int32, [num_objects]),
        "crowd": flags(num_objects, crowd),
        "difficult": flags(num_objects, difficult),
    }


def flags(num_objects, indices):
    return tf.constant([index in indices for index in range(num_objects)], tf.bool, [num_objects])


def make_targets(example, train_difficult=False):
    return matching.make_targets(example, DEFAULTS, VARIANCES, train_difficult)


def slow_intersection(box, others):
    ymin, xmin, ymax, xmax = box
    height = np.minimum(ymax, others[:, 2]) - np.maximum(ymin, others[:, 0])
    width = np.minimum(xmax, others[:, 3]) - np.maximum(xmin, others[:, 1])
    return np.where((height > 0) & (width > 0), height * width, 0)


def slow_iou(boxes, others):
    table = np.zeros((len(boxes), len(others)), np.float32)
    for row, box in enumerate(boxes):
        shared = slow_intersection(box, others)
        table[row] = shared / (slow_area(box[None]) + slow_area(others) - shared)
    return table


def slow_area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def slow_match(boxes, defaults):
    """Join the greatest pair and remove both, repeatedly; other boxes take their best >= .5."""
    table = slow_iou(boxes, defaults)
    matched = np.full(len(defaults), -1)
    for index in range(len(defaults)) if len(boxes) else ():
        if table[:, index].max() >= 0.5:
            matched[index] = table[:, index].argmax()
    remaining = table.copy()
    while remaining.size and remaining.max() > 0:
        # argmax finds the earlier object, then the earlier default box.
        row, column = np.unravel_index(remaining.argmax(), remaining.shape)
        matched[column] = row
        remaining[row] = 0
        remaining[:, column] = 0
    return matched


def slow_labels(boxes, labels, crowd, difficult, defaults):
    """matched [A] and labels [A]; crowd, difficult [N] bool."""
    is_object = ~crowd & ~difficult
    matched = slow_match(boxes[is_object], defaults)
    expected = np.zeros(len(defaults), int)
    for box in boxes[crowd]:
        expected[slow_intersection(box, defaults) >= 0.5 * slow_area(defaults)] = -1
    expected[np.any(slow_iou(boxes[difficult & ~crowd], defaults) >= 0.5, 0)] = -1
    expected[matched >= 0] = labels[is_object][matched[matched >= 0]]
    return matched, expected


def slow_offsets(objects, matched, defaults):
    offsets = np.zeros((len(defaults), 4))
    for index in np.flatnonzero(matched >= 0):
        ymin, xmin, ymax, xmax = objects[matched[index]].astype(float)
        default_ymin, default_xmin, default_ymax, default_xmax = defaults[index].astype(float)
        height = default_ymax - default_ymin
        width = default_xmax - default_xmin
        offsets[index] = (
            (ymin + ymax - default_ymin - default_ymax) / 2 / height / 0.1,
            (xmin + xmax - default_xmin - default_xmax) / 2 / width / 0.1,
            np.log((ymax - ymin) / height) / 0.2,
            np.log((xmax - xmin) / width) / 0.2,
        )
    return offsets


def random_boxes(rng, num_boxes):
    """Boxes on a grid of sixteenths, where areas are exact and ties and duplicates are frequent."""
    low = rng.integers(0, 14, (num_boxes, 2))
    high = np.minimum(low + rng.integers(1, 9, (num_boxes, 2)), 16)
    return (np.concatenate([low, high], 1) / 16).astype(np.float32)


def test_random_sets_against_brute_force():
    rng = np.random.default_rng(0)
    defaults = np.concatenate([random_boxes(rng, 90), DEFAULTS])
    signature = {
        "boxes": tf.TensorSpec([None, 4]),
        "labels": tf.TensorSpec([None], tf.int32),
        "crowd": tf.TensorSpec([None], tf.bool),
        "difficult": tf.TensorSpec([None], tf.bool),
    }
    make_random_targets = tf.function(
        lambda example: matching.make_targets(example, defaults, VARIANCES, False),
        input_signature=[signature],
        autograph=False,
    )
    for index in range(400):
        num_objects = (0, 1, 200)[index % 50] if index % 50 < 3 else int(rng.integers(2, 25))
        boxes = random_boxes(rng, num_objects)
        if num_objects > 2:
            boxes[1] = boxes[0]
        labels = rng.integers(1, 6, num_objects)
        crowd = rng.random(num_objects) < 0.1
        difficult = rng.random(num_objects) < 0.15
        found = make_random_targets(
            make_example(boxes, labels, np.flatnonzero(crowd), np.flatnonzero(difficult))
        )
        matched, expected = slow_labels(boxes, labels, crowd, difficult, defaults)
        np.testing.assert_array_equal(found["labels"], expected, err_msg=f"set {index}")
        offsets = slow_offsets(boxes[~crowd & ~difficult], matched, defaults)
        np.testing.assert_allclose(
            found["offsets"], offsets, rtol=1e-5, atol=1e-5, err_msg=f"set {index}"
        )


def test_no_objects():
    found = make_targets(make_example([]))
    np.testing.assert_array_equal(found["labels"], [0, 0, 0, 0])
    np.testing.assert_array_equal(found["offsets"], np.zeros((4, 4)))


def test_two_objects_with_the_same_best_default_box_get_one_each():
    # IoU with the left half: .8 for the first (.4 / .5) and .9 for the second; the first's next
    # best is the upper half: (.4 * .5) / (.4 + .5 - .2) = .286. An argmax per object would leave
    # the first without a default box.
    matched = matching.match(tf.constant([[0, 0, 1, 0.4], [0, 0, 1, 0.45]]), DEFAULTS)
    np.testing.assert_array_equal(matched, [1, -1, 0, -1])


def test_a_rejected_object_displaces_a_weaker_one_elsewhere():
    # Rows: three objects; columns: three default boxes. Objects 0 and 1 both prefer box 0 and
    # object 1 wins it; object 0 then takes box 1 from object 2, which ends with box 2.
    overlaps = tf.constant([[0.8, 0.6, 0.0], [0.9, 0.0, 0.0], [0.0, 0.5, 0.1]])
    np.testing.assert_array_equal(matching.bipartite(overlaps), [1, 0, 2])


def test_an_object_whose_only_default_box_is_taken_has_none():
    np.testing.assert_array_equal(
        matching.bipartite(tf.constant([[0.4, 0.0], [0.7, 0.0]])), [-1, 0]
    )


def test_ties_go_to_the_earlier_object_and_the_earlier_default_box():
    twice = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]], np.float32)
    # IoU .5 with the left and with the upper half: the first object takes the left one, the second
    # the upper one.
    np.testing.assert_array_equal(matching.match(tf.constant(twice), DEFAULTS), [0, -1, 1, -1])


def test_an_object_that_overlaps_no_default_box_has_none():
    far = tf.constant([[0.0, 0.0, 0.1, 0.1]])
    np.testing.assert_array_equal(matching.match(far, DEFAULTS[[1, 3]]), [-1, -1])


@pytest.mark.parametrize(
    ("boxes", "crowd", "difficult", "expected"),
    [
        # A crowd over the lower right quarter covers half of the right half and all of the small
        # box; IoU does not count.
        ([[0.5, 0.5, 1, 1]], [0], [], [0, -1, 0, -1]),
        # A difficult object there has an IoU of .5 with the right half and .25 with the small box.
        ([[0.5, 0.5, 1, 1]], [], [0], [0, -1, 0, 0]),
        # Positives win over a crowd that covers everything.
        ([[0, 0, 1, 1], [0, 0, 1, 0.5]], [0], [], [2, -1, -1, -1]),
    ],
)
def test_ignored_default_boxes(boxes, crowd, difficult, expected):
    found = make_targets(make_example(boxes, crowd=crowd, difficult=difficult))
    np.testing.assert_array_equal(found["labels"], expected)


def test_difficult_objects_can_be_trained_as_objects():
    example = make_example([[0, 0, 1, 0.5]], difficult=[0])
    found = make_targets(example, train_difficult=True)
    np.testing.assert_array_equal(found["labels"], [1, 0, 0, 0])
