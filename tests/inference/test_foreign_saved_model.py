"""SavedModels as the TF Object Detection API exports them."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.inference.detector import load_detector

IMAGE = np.zeros((8, 12, 3), np.uint8)


class Foreign(tf.Module):
    """Takes one image at a time, and has more outputs than ours; ids from 1 with gaps."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8)])
    def __call__(self, input_tensor):
        height = tf.cast(tf.shape(input_tensor)[1], tf.float32)
        return {
            "detection_boxes": tf.constant([[[0.1, 0.2, 0.5, 0.6], [0.0] * 4]]),
            "detection_scores": tf.stack([[height / 100, 0.0]]),
            "detection_classes": tf.constant([[3.0, 1.0]]),
            "num_detections": tf.constant([float(self.count)]),
            "raw_detection_boxes": tf.zeros([1, 9, 4]),
        }


def save(path, count=1):
    module = Foreign(count)
    tf.saved_model.save(module, str(path), signatures=module.__call__)
    return path


def test_nothing_found(tmp_path):
    assert len(load_detector(save(tmp_path / "model", count=0))(IMAGE)) == 0


def test_images_of_several_sizes_and_a_label_map_with_gaps(tmp_path):
    (tmp_path / "map.pbtxt").write_text('item { id: 3 name: "dog" } item { id: 1 name: "cat" }')
    detector = load_detector(save(tmp_path / "model"), labels=tmp_path / "map.pbtxt")
    found = detector.batch([IMAGE, np.zeros((20, 10, 3), np.uint8), IMAGE])
    assert [one.names for one in found] == [["dog"]] * 3
    assert [float(one.scores[0]) for one in found] == pytest.approx([0.08, 0.2, 0.08])
    np.testing.assert_allclose(found[0].boxes, [[0.1, 0.2, 0.5, 0.6]])


def test_other_outputs(tmp_path):
    module = tf.Module()
    module.double = tf.function(lambda image: {"double": 2 * image})
    signature = module.double.get_concrete_function(tf.TensorSpec([1, 4, 6, 3]))
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signature)
    with pytest.raises(
        ValueError,
        match=r"expected the outputs of the TF Object Detection API, got double: detection_boxes, "
        r"detection_scores, detection_classes, num_detections missing",
    ):
        load_detector(tmp_path / "model")


def test_without_signatures(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "model"))
    with pytest.raises(ValueError, match=r"expected a signature serving_default, got none"):
        load_detector(tmp_path / "model")
