"""Third-party TFLite detectors: outputs in any order, inputs of any kind, labels inside."""

import functools
import tempfile
import zipfile

import fixed_detector
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf import pixels, tflite_metadata
from ssd_tf.errors import ConfigError
from ssd_tf.exporting.tflite import Converter
from ssd_tf.inference import tflite, tflite_outputs
from ssd_tf.inference.exported import read_gray_range
from ssd_tf.inference.loading import load_detector
from ssd_tf.tflite_metadata import Metadata, read_metadata

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
    path.write_bytes(convert_echo(tuple(names.items()), dtype))
    return path


@functools.cache
def convert_echo(names, dtype):
    """The TFLite file of an Echo whose outputs have these (role, name) pairs."""
    module = Echo(dict(names), dtype)
    function = tf.function(module.detect).get_concrete_function(module.spec)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": function})
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def reorder(path, target, order):
    """The file with its outputs, and its signature's, in this order of places."""

    def edit(model):
        graph = model.subgraphs[0]
        graph.outputs = np.array([graph.outputs[place] for place in order], np.int32)

    return change(path, target, edit)


def change(path, target, edit):
    """The file after edit(model), which changes its tables."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    edit(model)
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


class Corners(tf.Module):
    """Three default boxes with their moves and scores, as in ST's model zoo."""

    def predict(self, image):
        zero = 0.0 * tf.reduce_sum(image)
        default_boxes = [[0.1, 0.2, 0.3, 0.6], [0.1, 0.2, 0.3, 0.6], [0.5, 0.5, 0.9, 0.9]]
        return {
            "anchors_concat": tf.constant([default_boxes]),
            # The last one's corners cross.
            "bboxes_concat": tf.constant([[[0.5, 0.25, 0, -0.25]] * 2 + [[1.0, 0, -1, 0]]]) + zero,
            "classes_softmax": tf.constant([[[0.1, 0.8, 0.1], [0.3, 0.7, 0], [0.9, 0, 0.1]]])
            + zero,
        }


def test_moved_corners_of_sts_model_zoo(tmp_path):
    module = Corners()
    spec = tf.TensorSpec([1, 4, 6, 3], tf.float32, "image")
    function = tf.function(module.predict).get_concrete_function(spec)
    tf.saved_model.save(module, tmp_path, signatures={"serving_default": function})
    path = tmp_path / "model.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert())
    detector = load_detector(path, input_range=(0, 1))
    found = detector(IMAGE)
    # From x .1 by half of .2, and from y .2 and .6 by a quarter of .4. The second box is the same,
    # for the first class. The last one has no width, and its corner xmin = .5 + .4.
    assert found.labels.tolist() == [1, 2, 2]
    assert found.scores.tolist() == pytest.approx([0.8, 0.1, 0.1])
    expected = [[0.3, 0.2, 0.5, 0.3]] * 2 + [[0.5, 0.9, 0.9, 0.9]]
    np.testing.assert_allclose(found.boxes, expected, atol=1e-6)


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
    path = write(tmp_path / "model.tflite")
    detector = load_detector(path)
    assert max(detector(IMAGE).scores) == pytest.approx(1 / 3 - 2 / 3, abs=1e-4)
    with pytest.raises(ConfigError, match=r"--input_range: .*model\.tflite"):
        load_detector(path, input_range=(0, 1))


def test_floats_are_never_fed_without_knowing_their_range(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"model.tflite takes floats .*--input_range=-1,1 or ",
    ):
        load_detector(write(tmp_path / "model.tflite"))


@pytest.mark.parametrize(("dtype", "mean"), [(tf.uint8, 85), (tf.int8, 85 - 128)])
def test_integers_are_pixels(tmp_path, dtype, mean):
    path = write(tmp_path / "model.tflite", dtype=dtype)
    assert max(load_detector(path)(IMAGE).scores) == pytest.approx(mean)
    with pytest.raises(ConfigError, match=rf"--input_range: .*model\.tflite.*{dtype.name}"):
        load_detector(path, input_range=(0, 1))


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


def test_a_corrupt_archive_is_none_of_our_own(tmp_path):
    # Whatever is behind a third-party model, names of a file need nothing of it.
    path = write(tmp_path / "model.tflite")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "cat\ndog\nemu\n")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"PK\x01\x02", b"PK\x01\x03"))
    with pytest.raises(ValueError, match="archive at its end is corrupt"):
        load_detector(path, input_range=(0, 1))
    (tmp_path / "names.txt").write_text("cat\ndog\nemu\n")
    detector = load_detector(path, labels=tmp_path / "names.txt", input_range=(0, 1))
    assert detector(IMAGE).names == ["cat", "emu"]


@pytest.mark.parametrize("name", [None, b""])
def test_outputs_need_no_tensor_names(tmp_path, name):
    def rename(model):
        for tensor in model.subgraphs[0].tensors:
            tensor.name = name

    path = change(write(tmp_path / "model.tflite"), tmp_path / "changed.tflite", rename)
    assert len(load_detector(path, input_range=(0, 1))(IMAGE)) == 2

    def drop_signature(model):
        rename(model)
        model.signatureDefs = None

    path = change(tmp_path / "model.tflite", tmp_path / "unnamed.tflite", drop_signature)
    with pytest.raises(ValueError, match=r"unnamed\.tflite: expected a detector's four outputs"):
        load_detector(path, input_range=(0, 1))


@pytest.mark.parametrize("role", ["inputs", "outputs"])
def test_a_name_that_is_not_utf_8(tmp_path, role):
    def rename(model):
        graph = model.subgraphs[0]
        graph.tensors[getattr(graph, role)[0]].name = b"\x81"

    path = change(write(tmp_path / "model.tflite"), tmp_path / "changed.tflite", rename)
    with pytest.raises(ValueError, match=r"changed\.tflite"):
        load_detector(path, input_range=(0, 1))


def test_outputs_that_are_not_there(tmp_path):
    def point_outside(model):
        model.subgraphs[0].outputs = np.array([0, 1, 2, 9999], np.int32)

    path = change(write(tmp_path / "model.tflite"), tmp_path / "changed.tflite", point_outside)
    with pytest.raises(ValueError, match=r"changed\.tflite is not a TFLite file, or is corrupt"):
        load_detector(path, input_range=(0, 1))


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


def edit(path, target, change):
    """The file after change(model, graph) of its unpacked content."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    change(model, model.subgraphs[0])
    builder = schema.flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


def test_no_images(tmp_path):
    assert load_detector(write(tmp_path / "model.tflite"), input_range=(0, 1)).batch([]) == []


class Sized(Echo):
    """An input of another shape or type, or two inputs."""

    def __init__(self, shape, dtype=tf.float32, num_inputs=1):
        super().__init__(NAMES, dtype)
        self.specs = [tf.TensorSpec(shape, dtype, f"in{index}") for index in range(num_inputs)]

    def detect_all(self, *images):
        return self.detect(tf.add_n([tf.cast(image, tf.float32) for image in images]))


def write_sized(path, *arguments):
    module = Sized(*arguments)
    function = tf.function(module.detect_all).get_concrete_function(*module.specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    path.write_bytes(converter.convert())
    return path


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([1, None, None, 3],), r"\[1, any, any, 3\]"),
        (([1, 4, None, 3],), r"\[1, 4, any, 3\]"),
        (([1, 3, 4, 6],), r"\[1, 3, 4, 6\]"),
        (([4, 6, 3],), r"\[4, 6, 3\]"),
        (([2, 4, 6, 3],), r"\[2, 4, 6, 3\]"),
        (([1, 4, 6, 3], tf.int32), "got int32"),
        (([1, 4, 6, 3], tf.int16), "got int16"),
        (([1, 4, 6, 3], tf.int64), "got int64"),
        (([1, 4, 6, 3], tf.bool), "got bool"),
        (([1, 4, 6, 3], tf.float32, 2), "one input, the image, got 2"),
    ],
)
def test_inputs_that_are_not_understood_are_rejected_at_once(tmp_path, arguments, text):
    path = write_sized(tmp_path / "model.tflite", *arguments)
    with pytest.raises(ValueError, match=rf"model.tflite: expected .*{text}") as error:
        load_detector(path, input_range=(0, 1))
    assert "\n" not in str(error.value)


def test_a_batch_of_any_size(tmp_path):
    path = write_sized(tmp_path / "model.tflite", [None, 4, 6, 3])
    assert load_detector(path, input_range=(0, 1))(IMAGE).labels.tolist() == [1, 3]


class Integers(Echo):
    """Its four outputs as uint8: q, of which `quantise` says what it means."""

    def detect(self, image):
        zero = 0.0 * tf.reduce_sum(image)
        outputs = {
            "boxes": tf.constant([[[0.0, 51.0, 255.0, 102.0], [0.0, 0.0, 51.0, 51.0]]]) + zero,
            "classes": tf.constant([[12.0, 10.0]]) + zero,
            "scores": tf.constant([[120.0, 240.0]]) + zero,
            "count": tf.constant([2.0]) + zero,
        }
        return {self.names[role]: tf.cast(value, tf.uint8) for role, value in outputs.items()}


def quantise(path, **parameters):
    """Give outputs a scale and a zero point."""
    indices = tflite_outputs.find_outputs(path.read_bytes(), Metadata(), path)

    def change(_model, graph):
        for role, (scale, zero) in parameters.items():
            quantization = schema.QuantizationParametersT()
            quantization.scale = np.array([scale], np.float32)
            quantization.zeroPoint = np.array([zero], np.int64)
            graph.tensors[indices[role]].quantization = quantization

    return edit(path, path.with_name("quantised.tflite"), change)


@pytest.fixture(scope="module")
def integers(tmp_path_factory):
    path = tmp_path_factory.mktemp("integers") / "model.tflite"
    module = Integers(NAMES)
    function = tf.function(module.detect).get_concrete_function(module.spec)
    tf.saved_model.save(module, str(path.with_suffix("")), signatures={"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(path.with_suffix("")))
    path.write_bytes(converter.convert())
    return path


def test_quantised_outputs_become_numbers(integers):
    path = quantise(
        integers, boxes=(1 / 255, 0), scores=(1 / 240, 0), classes=(0.5, 4), count=(1.0, 0)
    )
    found = load_detector(path, input_range=(0, 1))(IMAGE)
    # Best first: 240 / 240 with class (10 - 4) / 2 = 3, label 4; then 120 / 240 with label 5.
    assert found.scores.tolist() == pytest.approx([1.0, 0.5])
    assert found.labels.tolist() == [4, 5]
    np.testing.assert_allclose(found.boxes, [[0, 0, 0.2, 0.2], [0, 0.2, 1, 0.4]], atol=1e-6)


def test_classes_and_counts_may_be_plain_integers(integers):
    path = quantise(integers, boxes=(1 / 255, 0), scores=(1 / 240, 0))
    assert load_detector(path, input_range=(0, 1))(IMAGE).labels.tolist() == [11, 13]


@pytest.mark.parametrize("given", ["boxes", "scores"])
def test_integers_without_a_scale_are_rejected(integers, given):
    path = quantise(integers, **{given: (1 / 255, 0)})
    with pytest.raises(ValueError, match=r"expected (boxes|scores) as float32 or .*, got uint8"):
        load_detector(path, input_range=(0, 1))


class Labelled(Echo):
    """One detection of a class, counted from 0, beside what fills up."""

    def __init__(self, label, score):
        super().__init__(NAMES)
        self.label = label
        self.score = score

    def detect(self, image):
        zero = 0.0 * tf.reduce_sum(image)
        outputs = {
            "boxes": tf.zeros([1, 2, 4]) + zero,
            "classes": tf.constant([[1.0, self.label]]) + zero,
            "scores": tf.constant([[0.9, self.score]]) + zero,
            "count": tf.constant([2.0]) + zero,
        }
        return {self.names[role]: value for role, value in outputs.items()}


@pytest.mark.parametrize(("label", "score"), [(-1.0, 0.5), (-1.0, 0.0), (-7.0, 0.01)])
def test_labels_below_1(tmp_path, label, score):
    path = tmp_path / "model.tflite"
    module = Labelled(label, score)
    function = tf.function(module.detect).get_concrete_function(module.spec)
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": function})
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
    (tmp_path / "labels.txt").write_text("cat\ndog\nemu\n")
    detector = load_detector(path, input_range=(0, 1))
    if score == 0:
        assert detector(IMAGE).names == ["dog"]
    else:
        with pytest.raises(ValueError, match=rf"label {int(label) + 1}, expected labels from 1"):
            detector(IMAGE)


COCO = "ssd_mobilenet_v1_coco_quant"


@pytest.fixture(scope="module")
def without_names(tiny_config, tmp_path_factory):
    """An export of ours without its metadata; its operator has 3 classes and 15 unused ones."""
    folder = tmp_path_factory.mktemp("without_names")
    converter = Converter(tiny_config, fixed_detector.make_network(), fixed_detector.NAMES)
    converter.export(folder / "model.tflite", "float32")

    def edit(model):
        model.metadata = []

    return change(folder / "model.tflite", folder / "changed.tflite", edit)


@pytest.fixture(params=["ours", pytest.param("real", marks=pytest.mark.integration)])
def operator_file(request, without_names):
    """A file with the operator of SSDs and without names, its classes, and its range of pixels."""
    if request.param == "ours":
        return without_names, 18, (0, 255)
    return request.getfixturevalue("shared_data") / "weights" / f"{COCO}.tflite", 90, None


@pytest.mark.parametrize("where", ["given", "beside", "inside"])
@pytest.mark.parametrize("more", [-15, -11, -10, -1, 1, 2])
def test_names_are_compared_with_the_operators_classes(operator_file, tmp_path, where, more):
    source, num_classes, input_range = operator_file
    count = num_classes + more
    path = tmp_path / "model.tflite"
    path.write_bytes(source.read_bytes())
    text = "".join(f"class {index}\n" for index in range(count))
    labels = tmp_path / ("names.txt" if where == "given" else "labels.txt")
    if where == "inside":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("labelmap.txt", text)
    else:
        labels.write_text(text)
    message = rf"has {count} names, expected {num_classes}, .* of .*model.tflite"
    with pytest.raises(ValueError, match=message):
        load_detector(path, labels if where == "given" else None, input_range=input_range)


def test_the_coco_detectors_names(shared_data, tmp_path):
    """Whatever the form of its label file, a detection is called the same."""
    folder = shared_data / "weights"
    lines = (folder / f"{COCO}.txt").read_text().split("\n")[1:-1]
    assert (len(lines), lines[0], lines[89]) == (90, "person", "toothbrush")
    used = [(index, name) for index, name in enumerate(lines) if name != "???"]
    texts = {
        "bom.txt": "\ufeff???\n" + "\n".join(lines),
        "without_background.txt": "\ufeff" + "\r\n".join(lines) + "\r\n",
        "coral.txt": "".join(f"{index}  {name}\n" for index, name in used),
        "from_1.txt": "".join(f"{index + 1}: {name}\n" for index, name in used),
        "map.pbtxt": "".join(f"item {{ id: {k + 1} name: '{n}' }}\n" for k, n in used),
    }
    image = next((shared_data / "coco128" / "images").glob("*.jpg"))
    expected = load_detector(folder / f"{COCO}.tflite", folder / f"{COCO}.txt")(image).names
    assert len(set(expected)) >= 2
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
        detector = load_detector(folder / f"{COCO}.tflite", tmp_path / name)
        assert detector(image).names == expected, name


def corrupt(content, start, end, seed):
    """The content with one to eight bytes between two positions flipped."""
    random = np.random.default_rng(seed)
    changed = bytearray(content)
    for position in random.integers(start, end, random.integers(1, 9)):
        changed[position] ^= random.integers(1, 256)
    return bytes(changed)


def test_corrupt_metadata_give_one_line_or_none(tmp_path):
    """300 times each: the metadata, and the archive with the label file at the end."""
    content = write(tmp_path / "model.tflite").read_bytes()
    with zipfile.ZipFile(tmp_path / "model.tflite", "a") as archive:
        archive.writestr("labels.txt", "cat\ndog\nemu\n")
    whole = (tmp_path / "model.tflite").read_bytes()
    described = with_metadata(content)
    start = described.index(b"M001") - 4
    size = len(tflite_metadata.find_buffer(described))
    assert read_metadata(described).num_classes == 1
    path = tmp_path / "corrupt.tflite"
    outcomes = set()
    for seed in range(300):
        metadata = read_metadata(corrupt(described, start, start + size, seed))
        if metadata.normalisation:
            mean, std = metadata.normalisation
            assert np.isfinite([*mean, *std]).all() and min(std) > 0 and len(mean) == len(std)
        outcomes.add(metadata == read_metadata(described))
        path.write_bytes(corrupt(whole, len(content), len(whole), seed))
        try:
            outcomes.add(tflite.read_label_file(path) is None)
            assert read_gray_range(path) == pixels.FULL_RANGE
        except ValueError as error:
            outcomes.add("rejected")
            assert "\n" not in str(error)
    assert outcomes == {True, False, "rejected"}


def with_metadata(content):
    """The content with the metadata of our exports, as another program could write them."""
    from ssd_tf.exporting import tflite_file

    return tflite_file.add_metadata(content, ["cat"], 0.3)
