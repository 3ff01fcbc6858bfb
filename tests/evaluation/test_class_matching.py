import numpy as np
import pytest

from ssd_tf.evaluation.class_matching import _relabel, match_labels
from ssd_tf.inference.detections import Detections
from ssd_tf.inference.detector import Detector, Stages

IMAGE = np.zeros((4, 6, 3), np.uint8)
BOXES = np.array([[0.1, 0.1, 0.2, 0.2], [0.3, 0.3, 0.4, 0.4], [0.5, 0.5, 0.6, 0.6]])


def detector(classes):
    """Finds an object of each of the labels 1, 2 and 3."""

    found = (BOXES, np.array([0.9, 0.8, 0.7]), np.array([1, 2, 3]))
    stages = Stages(
        lambda images: images, lambda batch: batch, lambda batch: [found for _ in batch]
    )
    return Detector(stages, "test", classes)


def test_classes_are_matched_by_name():
    detect = match_labels(detector(["dog", "cat", "owl"]), ["cat", "bat", "dog"])
    (found,) = detect([IMAGE])
    assert list(found.labels) == [3, 1]
    assert found.scores.tolist() == [0.9, 0.8]
    np.testing.assert_array_equal(found.boxes, BOXES[:2])


def test_equal_names():
    (found,) = match_labels(detector(["dog", "cat", "owl"]), ["dog", "cat", "owl"])([IMAGE])
    assert list(found.labels) == [1, 2, 3]


def test_labels_beyond_the_names_are_dropped():
    (found,) = match_labels(detector(["cat", "dog"]), ["dog", "cat"])([IMAGE])
    assert list(found.labels) == [2, 1]


@pytest.mark.parametrize("low", [0, -1, -5])
def test_labels_below_1_are_never_the_last_names(low):
    found = Detections(BOXES, np.array([0.9, 0.8, 0.7]), np.array([low, 1, 2]))
    assert _relabel(found, [3, 1]).labels.tolist() == [3, 1]


def test_no_class_in_common():
    with pytest.raises(
        ValueError,
        match=r"no class in common: the model has owl, ..., the data has cat, dog, ...",
    ):
        match_labels(detector(["owl"]), ["cat", "dog"])


def test_a_model_without_class_names():
    with pytest.raises(ValueError, match="give them with --labels FILE"):
        match_labels(detector(None), ["cat"])
