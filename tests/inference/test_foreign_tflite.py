import pytest
import tensorflow as tf

from ssd_tf.inference.detector import load_detector


def test_a_file_that_is_not_a_detector(tmp_path):
    double = tf.function(lambda image: 2 * image).get_concrete_function(tf.TensorSpec([1, 4, 6, 3]))
    path = tmp_path / "double.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([double]).convert())
    with pytest.raises(
        ValueError,
        match=r"double.tflite: expected a detector's four outputs \(boxes, .*\), got 1",
    ):
        load_detector(path)
