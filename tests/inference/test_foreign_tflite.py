"""TFLite detectors of other makers: outputs in any order, inputs of any kind, labels inside."""

import zipfile

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.inference import tflite, tflite_outputs
from ssd_tf.inference.detector import load_detector
from ssd_tf.inference.tflite_metadata import Metadata, read_metadata

NAMES = {
    "boxes": "detection_boxes",
    "classes": "detection_classes",
    "scores": "detection_scores",
    "count": "num_detections",
}
IMAGE = np.zeros((8, 12, 3), np.uint8)
IMAGE[:, :, 0] = 255


class Echo(tf.Module):
    """Two detections, the worse first; the better one's score is the mean of the input."""

    def __init__(self, names, dtype=tf.float32):
        super().__init__()
        self.spec = tf.TensorSpec([1, 4, 6, 3], dtype, "image")
        self.names = names

    def detect(self, image):
        zero = 0.0 * tf.reduce_sum(tf.cast(image, tf.float32))
        mean = tf.reduce_mean(tf.cast(image, tf.float32))
        outputs = {
            "boxes": tf.constant([[[0.1, 0.2, 0.5, 0.6], [0.0, -0.5, 1.5, 1.0], [9.0] * 4]]) + zero,
            "classes": tf.constant([[2.0, 0.0, 7.0]]) + zero,
            "scores": tf.stack([[mean - 1000.0, mean, mean - 2000.0]]),
            "count": tf.constant([2.0]) + zero,
        }
        return {self.names[role]: value for role, value in outputs.items()}


def write(path, names=NAMES, dtype=tf.float32):
    module = Echo(names, dtype)
    folder = path.with_suffix("")
    function = tf.function(module.detect).get_concrete_function(module.spec)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    path.write_bytes(converter.convert())
    return path


def reorder(path, target, order):
    """The file with its outputs, and its signature's, in this order of places."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    graph.outputs = np.array([graph.outputs[place] for place in order], np.int32)
    builder = schema.flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


def test_a_file_that_is_not_a_detector(tmp_path):
    double = tf.function(lambda image: 2 * image).get_concrete_function(tf.TensorSpec([1, 4, 6, 3]))
    path = tmp_path / "double.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([double]).convert())
    with pytest.raises(
        ValueError,
        match=r"double.tflite: expected a detector's four outputs \(boxes, .*, got \w+ \[1, 4, 6",
    ):
        load_detector(path)


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0TFL3", b"text that is no flatbuffer"])
def test_a_damaged_file(tmp_path, content):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.tflite is not a TFLite file, or is corrupt"):
        load_detector(path)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0)])
def test_outputs_are_told_by_the_names_of_the_signature(tmp_path, order):
    path = reorder(write(tmp_path / "a.tflite"), tmp_path / "b.tflite", order)
    found = load_detector(path, input_range=(0, 1))(IMAGE)
    # Best first, clipped to the image, and without the third, which is beyond the count.
    assert found.labels.tolist() == [1, 3]
    np.testing.assert_allclose(found.boxes, [[0, 0, 1, 1], [0.1, 0.2, 0.5, 0.6]], atol=1e-6)
    assert found.scores.tolist() == pytest.approx([1 / 3, 1 / 3 - 1000])


@pytest.mark.parametrize(
    "names",
    [
        {"boxes": "a", "classes": "b", "scores": "c", "count": "d"},
        NAMES | {"scores": "detection_boxes_2"},
        NAMES | {"scores": "detection_multiclass_scores"},
    ],
)
def test_names_that_do_not_tell(tmp_path, names):
    path = write(tmp_path / "model.tflite", names)
    with pytest.raises(ValueError, match=r"told by their names or by the operator .*, got "):
        load_detector(path, input_range=(0, 1))


def test_names_of_the_metadata_tell_too(tmp_path):
    path = write(tmp_path / "model.tflite", dict(zip(NAMES, "wxyz", strict=True)))
    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    places = {entry.name: entry.tensorIndex for entry in model.signatureDefs[0].outputs}
    role_of = {places[letter.encode()]: role for role, letter in zip(NAMES, "wxyz", strict=True)}
    words = {
        "boxes": "location",
        "classes": "category",
        "scores": "score",
        "count": "number of detections",
    }
    outputs = model.subgraphs[0].outputs
    names = tuple(words[role_of[index]] for index in outputs)
    found = tflite_outputs.find_outputs(content, Metadata(output_names=names), path)
    assert {index: role for role, index in found.items()} == role_of


@pytest.mark.parametrize("text", ["0,1", "-1,1", "0,255", "10,20"])
def test_floats_are_scaled_as_the_user_says(tmp_path, text):
    low, high = map(float, text.split(","))
    detector = load_detector(write(tmp_path / "model.tflite"), input_range=(low, high))
    # A red image: a third of the values is 255, two thirds are 0.
    assert max(detector(IMAGE).scores) == pytest.approx(high / 3 + low * 2 / 3, abs=1e-4)


def test_floats_are_normalised_as_the_metadata_say(tmp_path, monkeypatch):
    normalisation = (np.array([127.5]), np.array([127.5]))
    monkeypatch.setattr(tflite, "read_metadata", lambda _content: Metadata(normalisation))
    detector = load_detector(write(tmp_path / "model.tflite"), input_range=(0, 1))
    assert max(detector(IMAGE).scores) == pytest.approx(1 / 3 - 2 / 3, abs=1e-4)


def test_floats_are_never_fed_without_knowing_their_range(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"model.tflite takes floats and does not say in which range; "
        r"give --input_range=-1,1 or ",
    ):
        load_detector(write(tmp_path / "model.tflite"))


@pytest.mark.parametrize(("dtype", "mean"), [(tf.uint8, 85), (tf.int8, 85 - 128)])
def test_integers_are_pixels(tmp_path, dtype, mean):
    detector = load_detector(write(tmp_path / "model.tflite", dtype=dtype))
    assert max(detector(IMAGE).scores) == pytest.approx(mean)


def test_the_file_has_its_labels_inside(tmp_path):
    path = write(tmp_path / "model.tflite")
    (tmp_path / "labels.txt").write_text("beside\n")
    assert load_detector(path, input_range=(0, 1)).classes == ["beside"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "no labels")
        archive.writestr("labelmap.txt", "???\ncat\n???\ndog\n")
    detector = load_detector(path, input_range=(0, 1))
    assert detector.classes == ["cat", None, "dog"]
    assert detector(IMAGE).names == ["cat", "dog"]


def test_a_label_map_with_gaps(tmp_path):
    (tmp_path / "map.pbtxt").write_text('item { id: 3 name: "dog" } item { id: 1 name: "cat" }')
    detector = load_detector(
        write(tmp_path / "model.tflite"), labels=tmp_path / "map.pbtxt", input_range=(0, 1)
    )
    assert detector.classes == ["cat", None, "dog"]


def test_a_file_without_metadata():
    assert read_metadata(b"") == Metadata()
    assert read_metadata(b"text that is no flatbuffer") == Metadata()


@pytest.mark.parametrize("order", [(1, 2, 0, 3), (3, 2, 1, 0)])
def test_the_coco_detector_with_its_outputs_reordered(shared_data, tmp_path, order):
    path = shared_data / "weights" / "ssd_mobilenet_v1_coco_quant.tflite"
    other = reorder(path, tmp_path / "other.tflite", order)
    image = next((shared_data / "coco128" / "images").glob("*.jpg"))
    one = load_detector(path)(image)
    two = load_detector(other)(image)
    assert len(one) == 10
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
