"""Third-party SavedModels: as the TF Object Detection API exports them, and others."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.errors import ConfigError
from ssd_tf.inference.loading import load_detector

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


class Fixed(tf.Module):
    """An input of a given shape and type; the score is the mean of the first pixel, per 1,000.

    classes: of its two detections; more: further outputs.
    """

    def __init__(self, shape, dtype, classes=(3.0, 1.0), more=None):
        super().__init__()
        self.classes = tf.constant([classes])
        self.more = more or {}
        self.call = tf.function(self.detect, input_signature=[tf.TensorSpec(shape, dtype, "x")])

    def detect(self, x):
        if x.dtype == tf.string:
            x = tf.io.decode_image(x[0], channels=3)[None]
        value = tf.reduce_mean(tf.cast(x[0, 0, 0], tf.float32))
        return {
            "detection_boxes": tf.constant([[[0.1, 0.2, 0.5, 0.6], [0.0] * 4]]),
            "detection_scores": tf.stack([[value / 1000, 0.0]]),
            "detection_classes": self.classes,
            "num_detections": tf.constant([2.0]),
            **{name: tf.zeros(shape) for name, shape in self.more.items()},
        }


def save_fixed(path, *arguments):
    module = Fixed(*arguments)
    tf.saved_model.save(module, str(path), signatures=module.call.get_concrete_function())
    return path


# The first of 2 x 2 pixels is the mean of those that a warp to this size takes together.
QUARTERS = np.zeros((8, 12, 3), np.uint8)
QUARTERS[:4, :6] = 200


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32])
@pytest.mark.parametrize("batch", [1, None])
def test_a_fixed_size_is_resized_to(tmp_path, dtype, batch):
    detector = load_detector(save_fixed(tmp_path / "model", [batch, 2, 2, 3], dtype))
    found = detector.batch([QUARTERS, np.full((2, 2, 3), 100, np.uint8)])
    assert [one.scores[0] for one in found] == pytest.approx([0.2, 0.1])
    assert detector.batch([]) == []


@pytest.mark.parametrize("shape", [[1, 2, 2, 3], [1, None, None, 3], None])
def test_floats_need_a_range(tmp_path, shape):
    path = save_fixed(tmp_path / "model", shape, tf.float32)
    with pytest.raises(ValueError, match=r"takes floats and .*--input_range=-1,1"):
        load_detector(path)
    scores = [
        load_detector(path, input_range=given)(QUARTERS).scores[0]
        for given in ((0, 1), (0, 255), (-1, 1))
    ]
    assert scores == pytest.approx([200 / 255e3, 0.2, (400 / 255 - 1) / 1000], rel=1e-4)


def test_pixels_take_no_range(tmp_path):
    path = save_fixed(tmp_path / "model", [1, 2, 2, 3], tf.uint8)
    with pytest.raises(ConfigError, match=r"--input_range: .*model.*uint8"):
        load_detector(path, input_range=(0, 1))


@pytest.mark.parametrize(
    ("shape", "dtype", "text"),
    [
        ([None], tf.string, "takes encoded images"),
        ([1, 2, 2, 3], tf.float64, "got float64"),
        ([1, 2, 2, 3], tf.int8, "got int8"),
        ([1, 3, 2, 2], tf.uint8, r"got \(1, 3, 2, 2\)"),
        ([4, 2, 2, 3], tf.uint8, r"got \(4, 2, 2, 3\)"),
        ([1, 2, None, 3], tf.uint8, r"got \(1, 2, None, 3\)"),
    ],
)
def test_inputs_that_are_not_understood(tmp_path, shape, dtype, text):
    path = save_fixed(tmp_path / "model", shape, dtype)
    with pytest.raises(ValueError, match=text) as error:
        load_detector(path, input_range=(0, 1))
    assert "\n" not in str(error.value)


def test_classes_from_0_are_rejected_before_anything_is_misnamed(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\nemu\n")
    path = save_fixed(tmp_path / "model", [1, None, None, 3], tf.uint8, (0.0, 1.0))
    detector = load_detector(path, labels=tmp_path / "names.txt")
    with pytest.raises(ValueError, match=r"label 0, expected labels from 1"):
        detector(QUARTERS)
    # A label of 0 that scores nothing only fills up.
    path = save_fixed(tmp_path / "other", [1, None, None, 3], tf.uint8, (1.0, 0.0))
    assert load_detector(path, labels=tmp_path / "names.txt")(QUARTERS).names == ["cat"]


def test_labels_are_rounded(tmp_path):
    path = save_fixed(tmp_path / "model", [1, None, None, 3], tf.uint8, (2.9999, 1.0001))
    assert load_detector(path)(QUARTERS).labels.tolist() == [3, 1]


def test_names_are_compared_with_the_scores_of_the_classes(tmp_path):
    more = {"detection_multiclass_scores": [1, 2, 4]}  # of the background and three classes
    arguments = ([1, None, None, 3], tf.uint8, (3.0, 1.0), more)
    path = save_fixed(tmp_path / "model", *arguments)
    labels = tmp_path / "names.txt"
    for text in ("background\ncat\ndog\nemu\n", "cat\ndog\nemu\n"):
        labels.write_text(text)
        assert load_detector(path, labels)(QUARTERS).names == ["emu", "cat"]
    for text in ("cat\ndog\n", "a\nb\nc\nd\n", "background\na\nb\nc\nd\n"):
        labels.write_text(text)
        with pytest.raises(ConfigError, match="expected 3, one for each class"):
            load_detector(path, labels)


@pytest.mark.parametrize("content", [b"", b"\x08", b"text that is no protocol buffer"])
def test_a_corrupt_saved_model(tmp_path, content):
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be loaded as a SavedModel|serving_default") as e:
        load_detector(tmp_path)
    assert "\n" not in str(e.value)
