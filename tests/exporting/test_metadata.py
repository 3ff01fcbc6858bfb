"""TFLite metadata: read by our own reader, and field by field as the schema places them."""

import io
import zipfile

import numpy as np
import pytest
from fixed_detector import NAMES
from flatbuffers import encode, number_types
from flatbuffers.table import Table

from ssd_tf import tflite_metadata
from ssd_tf.exporting import tflite


@pytest.fixture(scope="module")
def content(tiny_config, network, tmp_path_factory):
    path = tmp_path_factory.mktemp("metadata") / "model.tflite"
    tflite.Converter(tiny_config, network, NAMES).export(path, "float32")
    return path.read_bytes()


def table(content):
    """The root of the metadata."""
    buffer = tflite_metadata.find_buffer(content)
    assert buffer[4:8] == b"M001"
    return Table(buffer, encode.Get(number_types.UOffsetTFlags.packer_type, buffer, 0))


def place(parent, field):
    offset = parent.Offset(4 + 2 * field)
    assert offset, f"no field {field}"
    return parent.Pos + offset


def child(parent, field):
    return Table(parent.Bytes, parent.Indirect(place(parent, field)))


def children(parent, field):
    offset = parent.Offset(4 + 2 * field)
    start = parent.Vector(offset)
    return [
        Table(parent.Bytes, parent.Indirect(start + 4 * index))
        for index in range(parent.VectorLen(offset))
    ]


def text(parent, field):
    return parent.String(place(parent, field)).decode()


def byte(parent, field):
    offset = parent.Offset(4 + 2 * field)
    return parent.Get(number_types.Uint8Flags, parent.Pos + offset) if offset else 0


def numbers(parent, field, kind):
    offset = parent.Offset(4 + 2 * field)
    return np.frombuffer(parent.Bytes, kind, parent.VectorLen(offset), parent.Vector(offset))


def test_what_our_reader_finds(content):
    metadata = tflite_metadata.read_metadata(content)
    assert [values.tolist() for values in metadata.normalisation] == [[0], [1]]
    assert metadata.output_names == ("location", "category", "score", "number of detections")


@pytest.mark.parametrize(("count", "words"), [(0, "0 classes"), (1, "1 class"), (20, "20 classes")])
def test_the_description_has_the_number_of_classes(count, words):
    description = tflite_metadata.describe_detector(count)
    assert description == f"SSD detector of {words}"
    metadata = tflite_metadata.Metadata(description=description)
    assert (metadata.num_classes, metadata.is_ours) == (count, True)


@pytest.mark.parametrize(
    ("description", "count"),
    [
        ("", None),
        ("SSD detector of 1 classes", 1),  # of an earlier version
        ("SSD detector of many classes", None),
        ("An SSD detector of 2 classes", None),
        ("SSD detector of 2 classes of animals", None),
    ],
)
def test_other_descriptions(description, count):
    metadata = tflite_metadata.Metadata(description=description)
    assert (metadata.num_classes, metadata.is_ours) == (count, count is not None)


def test_the_input(content):
    (subgraph,) = children(table(content), 3)
    (image,) = children(subgraph, 2)
    assert text(image, 0) == "image"
    properties = child(image, 3)
    assert byte(properties, 0) == 2  # ImageProperties
    assert byte(child(properties, 1), 0) == 1  # RGB
    (unit,) = children(image, 4)
    assert byte(unit, 0) == 1  # NormalizationOptions


def test_the_outputs(content):
    (subgraph,) = children(table(content), 3)
    location, category, score, count = children(subgraph, 3)
    box = child(child(location, 3), 1)
    assert byte(child(location, 3), 0) == 3  # BoundingBoxProperties
    # Left, top, right, bottom lie at 1, 0, 3, 2 of ymin, xmin, ymax, xmax.
    assert numbers(box, 0, "<u4").tolist() == [1, 0, 3, 2]
    assert (byte(box, 1), byte(box, 2)) == (1, 0)  # BOUNDARIES, RATIO
    (labels,) = children(category, 6)
    assert (text(labels, 0), byte(labels, 2)) == ("labels.txt", 3)  # TENSOR_VALUE_LABELS
    (unit,) = children(score, 4)
    assert byte(unit, 0) == 3  # ScoreThresholdingOptions
    options = child(unit, 1)
    threshold = options.Get(number_types.Float32Flags, place(options, 0))
    assert threshold == pytest.approx(0.3)
    assert text(count, 0) == "number of detections"
    (group,) = children(subgraph, 8)
    assert text(group, 0) == "detection_result"


def test_the_labels_are_a_file_at_the_end(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt") == b"red\ngreen\nblue\n"


def test_equal_runs_give_equal_files(content, tiny_config, network, tmp_path):
    path = tmp_path / "model.tflite"
    tflite.Converter(tiny_config, network, NAMES).export(path, "float32")
    metadata = tflite_metadata.find_buffer(path.read_bytes())
    assert metadata == tflite_metadata.find_buffer(content)
