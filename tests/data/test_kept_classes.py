"""Detections of an old detector beside the ground truth of new images."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.data import kept_classes, pipeline, records, split_examples
from ssd_tf.data.kept_classes import Detected, KeptClasses

TURTLE = [0.0, 0.0, 0.5, 0.5]


def classes(**ids):
    return [{"name": name, "id": class_id} for name, class_id in ids.items()]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (classes(a=7, b=3), classes(c=9), classes(a=7, b=3, c=9)),
        (classes(a=7, b=3), classes(b=1, a=2), classes(a=7, b=3)),  # shared names keep their ids
        (classes(a=7, b=3), classes(c=3, d=8), classes(a=7, b=3, c=8, d=9)),  # 3, then 8 are taken
        (classes(a=7), classes(c=1, a=2, d=7), classes(a=7, c=1, d=8)),
    ],
)
def test_the_longer_list(old, new, expected):
    assert kept_classes.extend_classes(old, new) == tuple(expected)


def test_labels_go_by_name():
    found = kept_classes.labels_in(["a", "b", "c"], ["c", "a"])
    assert found.tolist() == [3, 1] and found.dtype == np.int32


def make_detected(rows, key=5):
    """Detected of one image; rows: (box, label, score)."""
    boxes, labels, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Detected(
        np.array([key]),
        np.array([len(rows)]),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int32),
        np.array(scores, np.float32),
    )


def make_example(boxes=(TURTLE,), crowd=(False,), difficult=(False,)):
    """An image of 10 x 20 pixels whose objects are turtles, label 1."""
    return {
        "image": tf.constant(b"content"),
        "boxes": tf.reshape(tf.constant(boxes, tf.float32), [-1, 4]),
        "labels": tf.ones([len(boxes)], tf.int32),
        "crowd": tf.constant(crowd, bool, [len(boxes)]),
        "difficult": tf.constant(difficult, bool, [len(boxes)]),
        "area": tf.fill([len(boxes)], 50.0),
        "height": tf.constant(10),
        "width": tf.constant(20),
    }


def add(example, rows, label_of=(4,), train_difficult=False):
    """The columns of the Example with these detections: boxes, labels, crowd, difficult, area."""
    detected = make_detected(rows, records.image_key(b"content").numpy())
    kept = KeptClasses(detected, np.array(label_of, np.int32))
    merged = kept_classes.make_add(kept, 0.5, train_difficult)(example)
    return [merged[key].numpy().tolist() for key in ("boxes", "labels", "crowd", "difficult")] + [
        merged["area"].numpy().round(3).tolist()
    ]


PERSON = ([0.5, 0.5, 1.0, 1.0], 1, 0.5)
UNSURE = ([0.0, 0.5, 0.5, 0.75], 2, 0.25)


def test_nothing_was_detected():
    assert add(make_example(), []) == [[TURTLE], [4], [False], [False], [50]]


def test_an_image_without_objects():
    found = add(make_example((), (), ()), [PERSON])
    assert found == [[PERSON[0]], [1], [False], [False], [50]]


def test_sure_ones_are_objects_and_others_difficult():
    boxes, labels, crowd, difficult, area = add(make_example(), [PERSON, UNSURE])
    assert boxes == [TURTLE, PERSON[0], UNSURE[0]]
    assert labels == [4, 1, 2]
    assert crowd == [False] * 3
    assert difficult == [False, False, True]
    assert area == [50, 50, 25]  # of 10 x 20 pixels


def test_a_second_opinion_on_an_object_is_ignored():
    same = ([0.0, 0.0, 0.5, 0.25], 3, 0.9)  # half of the turtle: IoU .5
    other = ([0.0, 0.0, 0.5, 0.1875], 3, 0.9)  # IoU .375
    _, labels, _, difficult, _ = add(make_example(), [same, other, (TURTLE, 2, 0.9), PERSON])
    assert labels == [4, 3, 3, 2, 1]
    assert difficult == [False, True, False, True, False]


def test_a_crowd_is_no_object():
    _, labels, _, difficult, _ = add(make_example(crowd=(True,)), [(TURTLE, 3, 0.9)])
    assert labels == [4, 3]
    assert difficult == [False, False]


def test_classes_that_the_data_has_are_left_to_it():
    example = make_example()
    _, labels, *_ = add(example, [PERSON, UNSURE, (UNSURE[0], 3, 0.9)], label_of=(2, 3))
    assert labels == [2, 1]


def test_difficult_objects_that_are_to_be_trained():
    example = make_example(difficult=(True,))
    assert add(example, [UNSURE])[3] == [True, True]
    assert add(example, [UNSURE], train_difficult=True)[3] == [False, True]


def test_an_image_that_was_not_looked_at():
    kept = KeptClasses(make_detected([PERSON], key=5), np.array([4], np.int32))
    with pytest.raises(tf.errors.InvalidArgumentError):
        kept_classes.make_add(kept, 0.5, False)(make_example())


def detected_of(*images):
    """Detected of images (key, labels); each box, label and score tells where it belongs."""
    labels = [label for _, labels in images for label in labels]
    return Detected(
        np.array([key for key, _ in images], np.int64),
        np.array([len(labels) for _, labels in images], np.int64),
        np.array([[label, 0, label, 0] for label in labels], np.float32).reshape(-1, 4),
        np.array(labels, np.int32),
        np.array(labels, np.float32) / 100,
    )


def test_parts_are_joined_by_key():
    parts = [detected_of((9, [1, 2]), (3, [])), detected_of((-4, [5]), (9, [7, 8]), (6, [6]))]
    found = kept_classes.join_parts(parts)
    assert found.keys.tolist() == [-4, 3, 6, 9]
    assert found.counts.tolist() == [1, 0, 1, 2]
    assert found.labels.tolist() == [5, 6, 1, 2]  # of equal images the first
    assert found.boxes[:, 0].tolist() == [5, 6, 1, 2]
    assert found.scores.tolist() == pytest.approx([0.05, 0.06, 0.01, 0.02])


def test_a_part_is_read_as_it_was_written(tmp_path):
    assert kept_classes.read_part(tmp_path, 2) is None
    part = detected_of((9, [1, 2]), (3, []))
    kept_classes.write_part(tmp_path, 2, part)
    for written, read in zip(part, kept_classes.read_part(tmp_path, 2), strict=True):
        np.testing.assert_array_equal(read, written)
        assert read.dtype == written.dtype
    assert kept_classes.read_part(tmp_path, 1) is None


@pytest.mark.parametrize("position", [0, 0.3, 0.6, 0.99])
def test_a_part_that_is_cut_off_or_overwritten(tmp_path, position):
    kept_classes.write_part(tmp_path, 0, detected_of((9, [1, 2])))
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: int(position * len(content))])
    assert kept_classes.read_part(tmp_path, 0) is None


DEFAULT_BOXES = np.array([[0, 0, 1, 0.5], [0, 0.5, 1, 1], [0.25, 0.25, 0.75, 0.5]], np.float32)


@pytest.fixture
def kept(striped_data):
    """For every striped image: a label 3 on the left half, and an uncertain 4 on the right one."""
    examples = split_examples.read_examples(striped_data, "train").as_numpy_iterator()
    keys = np.sort([example["image_key"] for example in examples])
    num_images = len(keys)
    boxes = [[0, 0, 1, 0.5], [0, 0.5, 1, 1]] * num_images
    return KeptClasses(
        Detected(
            keys,
            np.full(num_images, 2),
            np.array(boxes, np.float32),
            np.array([3, 4] * num_images, np.int32),
            np.array([0.9, 0.3] * num_images, np.float32),
        ),
        np.array([5, 6], np.int32),
    )


@pytest.mark.parametrize("train_difficult", [False, True])
def test_the_input_pipeline_adds_and_moves_them(small_config, striped, kept, train_difficult):
    """Mirrored, with the image: the label is on the right then, and what is ignored on the left."""
    augment = {"flip_probability": 1.0}
    config = small_config(data__augment=augment, data__train_difficult=train_difficult)
    serialized = striped.make_record(7)  # of class 2; a box of 12 x 20 pixels at (8, 10)
    prepare = pipeline.make_prepare(config, DEFAULT_BOXES, 2, with_example=True, kept=kept)
    _, targets, example = prepare(tf.constant(0, tf.int64), serialized)
    assert example["labels"].numpy().tolist() == [6, 3, 4]
    assert example["boxes"][1:].numpy().tolist() == [[0, 0.5, 1, 1], [0, 0, 1, 0.5]]
    # The object, mirrored, is [.27, .32, .67, .77] and has the third default box as its own.
    assert targets["labels"].numpy().tolist() == [-1, 3, 6]


def test_without_them_labels_are_those_of_the_data(small_config, striped):
    prepare = pipeline.make_prepare(small_config(), DEFAULT_BOXES, 2, with_example=True)
    _, _, example = prepare(tf.constant(0, tf.int64), striped.make_record(7))
    assert example["labels"].numpy().tolist() == [2]
