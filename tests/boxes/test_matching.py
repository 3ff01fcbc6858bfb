"""Matching against a slow NumPy version of its rules, and cases worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.boxes import matching

# Four default boxes: the left and the right half of a square, the upper half, and a small one in its lower right corner.
DEFAULTS = np.array(
    [[0, 0, 1, 0.5], [0, 0.5, 1, 1], [0, 0, 0.5, 1], [0.75, 0.75, 1, 1]], np.float32
)


def example(boxes, labels=None, crowd=(), difficult=()):
    number = len(boxes)
    return {
        "boxes": tf.constant(np.reshape(boxes, (number, 4)), tf.float32),
        "labels": tf.constant(
            np.arange(1, number + 1) if labels is None else labels, tf.int32, [number]
        ),
        "crowd": tf.constant([index in crowd for index in range(number)], tf.bool, [number]),
        "difficult": tf.constant(
            [index in difficult for index in range(number)], tf.bool, [number]
        ),
    }


def slow_iou(boxes, others):
    table = np.zeros((len(boxes), len(others)), np.float32)
    for row, (top, left, bottom, right) in enumerate(boxes):
        height = np.minimum(bottom, others[:, 2]) - np.maximum(top, others[:, 0])
        width = np.minimum(right, others[:, 3]) - np.maximum(left, others[:, 1])
        shared = np.where((height > 0) & (width > 0), height * width, 0)
        own = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
        table[row] = shared / ((bottom - top) * (right - left) + own - shared)
    return table


def slow_match(boxes, defaults):
    """The greatest pair of all is joined and leaves, over and over; then every default box left takes its best at .5."""
    table = slow_iou(boxes, defaults)
    matched = np.full(len(defaults), -1)
    for index in range(len(defaults)) if len(boxes) else ():
        if table[:, index].max() >= 0.5:
            matched[index] = table[:, index].argmax()
    left = table.copy()
    while left.size and left.max() > 0:
        row, column = np.unravel_index(
            left.argmax(), left.shape
        )  # the earlier object, then the earlier default box
        matched[column] = row
        left[row], left[:, column] = 0, 0
    return matched


def slow_labels(boxes, labels, crowd, difficult, defaults):
    real = ~crowd & ~difficult
    matched = slow_match(boxes[real], defaults)
    answer = np.zeros(len(defaults), int)
    for top, left, bottom, right in boxes[crowd]:
        height = np.minimum(bottom, defaults[:, 2]) - np.maximum(top, defaults[:, 0])
        width = np.minimum(right, defaults[:, 3]) - np.maximum(left, defaults[:, 1])
        own = (defaults[:, 2] - defaults[:, 0]) * (defaults[:, 3] - defaults[:, 1])
        answer[(height > 0) & (width > 0) & (height * width >= 0.5 * own)] = -1
    answer[np.any(slow_iou(boxes[difficult & ~crowd], defaults) >= 0.5, 0)] = -1
    answer[matched >= 0] = labels[real][matched[matched >= 0]]
    return matched, answer


def random_boxes(rng, number):
    """On a grid of sixteenths, where areas are exact and ties and identical boxes abound."""
    low = rng.integers(0, 14, (number, 2))
    high = np.minimum(low + rng.integers(1, 9, (number, 2)), 16)
    return (np.concatenate([low, high], 1) / 16).astype(np.float32)


def test_a_thousand_random_sets_as_by_brute_force():
    rng = np.random.default_rng(0)
    defaults = np.concatenate([random_boxes(rng, 90), DEFAULTS])
    signature = {"boxes": tf.TensorSpec([None, 4]), "labels": tf.TensorSpec([None], tf.int32)}
    signature |= {key: tf.TensorSpec([None], tf.bool) for key in ("crowd", "difficult")}
    make_targets = tf.function(
        lambda e: matching.make_targets(e, defaults), input_signature=[signature]
    )
    for turn in range(1000):
        number = (0, 1, 200)[turn % 50] if turn % 50 < 3 else int(rng.integers(2, 25))
        boxes = random_boxes(rng, number)
        if number > 2:
            boxes[1] = boxes[0]
        labels = rng.integers(1, 6, number)
        crowd, difficult = rng.random(number) < 0.1, rng.random(number) < 0.15
        found = make_targets(
            example(boxes, labels, np.flatnonzero(crowd), np.flatnonzero(difficult))
        )
        matched, expected = slow_labels(boxes, labels, crowd, difficult, defaults)
        np.testing.assert_array_equal(found["labels"], expected, err_msg=f"set {turn}")
        objects = boxes[~crowd & ~difficult].astype(float)
        offsets = np.zeros((len(defaults), 4))
        for index in np.flatnonzero(matched >= 0):
            (top, left, bottom, right), (dt, dl, db, dr) = (
                objects[matched[index]],
                defaults[index].astype(float),
            )
            height, width = db - dt, dr - dl
            centre = (
                (top + bottom - dt - db) / 2 / height / 0.1,
                (left + right - dl - dr) / 2 / width / 0.1,
            )
            offsets[index] = (
                *centre,
                np.log((bottom - top) / height) / 0.2,
                np.log((right - left) / width) / 0.2,
            )
        np.testing.assert_allclose(
            found["offsets"], offsets, rtol=1e-5, atol=1e-5, err_msg=f"set {turn}"
        )


def test_no_objects():
    found = matching.make_targets(example([]), DEFAULTS)
    np.testing.assert_array_equal(found["labels"], [0, 0, 0, 0])
    np.testing.assert_array_equal(found["offsets"], np.zeros((4, 4)))


def test_two_objects_that_want_one_default_box_get_one_each():
    # IoU with the left half: .8 for the first (.4 / .5) and .9 for the second; the first's next best is the upper half:
    # (.4 * .5) / (.4 + .5 - .2) = .286. An argmax per object would leave the first without a default box.
    matched = matching.match(tf.constant([[0, 0, 1, 0.4], [0, 0, 1, 0.45]]), DEFAULTS)
    np.testing.assert_array_equal(matched, [1, -1, 0, -1])


def test_of_equals_the_earlier_object_and_the_earlier_default_box_win():
    twice = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]], np.float32)
    # IoU .5 with the left and with the upper half: the first object takes the left one, the second what remains.
    np.testing.assert_array_equal(matching.match(tf.constant(twice), DEFAULTS), [0, -1, 1, -1])


def test_an_object_that_touches_no_default_box_has_none():
    far = tf.constant([[0.0, 0.0, 0.1, 0.1]])
    np.testing.assert_array_equal(matching.match(far, DEFAULTS[[1, 3]]), [-1, -1])


@pytest.mark.parametrize(
    ("boxes", "crowd", "difficult", "expected"),
    [
        # A crowd over the lower right quarter covers half of the right half and all of the small box; IoU does not count.
        ([[0.5, 0.5, 1, 1]], [0], [], [0, -1, 0, -1]),
        # A difficult object there has an IoU of .5 with the right half and .25 with the small box.
        ([[0.5, 0.5, 1, 1]], [], [0], [0, -1, 0, 0]),
        # Positives win over a crowd that covers all.
        ([[0, 0, 1, 1], [0, 0, 1, 0.5]], [0], [], [2, -1, -1, -1]),
    ],
)
def test_ignored_default_boxes(boxes, crowd, difficult, expected):
    found = matching.make_targets(example(boxes, crowd=crowd, difficult=difficult), DEFAULTS)
    np.testing.assert_array_equal(found["labels"], expected)


def test_difficult_objects_can_be_trained_as_objects():
    found = matching.make_targets(
        example([[0, 0, 1, 0.5]], difficult=[0]), DEFAULTS, train_difficult=True
    )
    np.testing.assert_array_equal(found["labels"], [1, 0, 0, 0])
