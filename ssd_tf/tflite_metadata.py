"""TFLite metadata, which tell a client what the input and the outputs of a detector are.

The tables are those of metadata_schema.fbs, of the TFLite Support Library and of MediaPipe Tasks.
No package with its generated code can be installed beside TensorFlow 2.21.
"""

import re
import typing

import numpy as np
from flatbuffers import encode, number_types
from flatbuffers.table import Table
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.class_names import count_classes

BUFFER_NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
# How our exports describe themselves: with the operator and the number of classes, or raw.
_DETECTOR_DESCRIPTION = "SSD detector of "
RAW_DESCRIPTION = "Predictions of an SSD detector, to be decoded by its client"


class _Field(typing.NamedTuple):
    """A field of a table.

    kind: "byte", "float", "int", "text", the name of a table, or a vector of one of these: "[int]".
    member: of a union, whose type is the field before; None for another field.
    """

    slot: int
    kind: str
    member: int | None = None


SCHEMA = {
    "Model": {
        "name": _Field(0, "text"),
        "description": _Field(1, "text"),
        "version": _Field(2, "text"),
        "subgraphs": _Field(3, "[Subgraph]"),
        "min_parser_version": _Field(7, "text"),
    },
    "Subgraph": {
        "inputs": _Field(2, "[Tensor]"),
        "outputs": _Field(3, "[Tensor]"),
        "output_groups": _Field(8, "[TensorGroup]"),
    },
    "Tensor": {
        "name": _Field(0, "text"),
        "description": _Field(1, "text"),
        "content": _Field(3, "Content"),
        "process_units": _Field(4, "[ProcessUnit]"),
        "associated_files": _Field(6, "[File]"),
    },
    "TensorGroup": {"name": _Field(0, "text"), "tensor_names": _Field(1, "[text]")},
    "Content": {
        "feature": _Field(1, "Feature", member=1),
        "image": _Field(1, "Image", member=2),
        "bounding_box": _Field(1, "BoundingBox", member=3),
    },
    "Feature": {},
    "Image": {"color_space": _Field(0, "byte")},
    "BoundingBox": {
        "index": _Field(0, "[int]"),
        "type": _Field(1, "byte"),
        "coordinate_type": _Field(2, "byte"),
    },
    "ProcessUnit": {
        "normalization": _Field(1, "Normalization", member=1),
        "score_thresholding": _Field(1, "ScoreThresholding", member=3),
    },
    "Normalization": {"mean": _Field(0, "[float]"), "std": _Field(1, "[float]")},
    "ScoreThresholding": {"global_score_threshold": _Field(0, "float")},
    "File": {"name": _Field(0, "text"), "type": _Field(2, "byte")},
}


class Metadata(typing.NamedTuple):
    """normalisation: (mean [1] or [3], std of the same) of a float input, or None.

    description, version: of the model.
    """

    normalisation: tuple | None = None
    output_names: tuple[str, ...] = ()
    description: str = ""
    version: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether the file is one of our exports."""
        return self.description == RAW_DESCRIPTION or self.num_classes is not None

    @property
    def num_classes(self) -> int | None:
        """C of one of our exports with the operator, which itself has empty classes besides."""
        pattern = rf"{_DETECTOR_DESCRIPTION}([0-9]{{1,9}}) class(es)?"
        match = re.fullmatch(pattern, self.description)
        return match and int(match[1])


def describe_detector(num_classes) -> str:
    """The description of an export with the operator."""
    return _DETECTOR_DESCRIPTION + count_classes(num_classes)


def read_metadata(content: bytes) -> Metadata:
    """A .tflite file's content -> its Metadata, empty if the file has none or they are corrupt."""
    buffer = find_buffer(content)
    if buffer is None or buffer[4:8] != IDENTIFIER:
        return Metadata()
    try:
        root = Table(buffer, encode.Get(number_types.UOffsetTFlags.packer_type, buffer, 0))
        return _read_model(_Reader(root, "Model"))
    except Exception:  # reading a corrupt flatbuffer raises almost anything
        return Metadata()


def find_buffer(content: bytes) -> bytes | None:
    """The metadata in a .tflite file's content."""
    try:
        model = schema.Model.GetRootAs(content, 0)
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == BUFFER_NAME.encode():
                return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    except Exception:  # a corrupt flatbuffer raises almost anything; find_outputs reports it
        return None
    return None


def _read_model(model):
    described = (model.read("description", ""), model.read("version", ""))
    for subgraph in model.read("subgraphs", ()):
        names = tuple(tensor.read("name", "") for tensor in subgraph.read("outputs", ()))
        return Metadata(_find_normalisation(subgraph), names, *described)
    return Metadata(None, (), *described)


def _find_normalisation(subgraph):
    """The first one of an input, or None if no image can be normalised by it."""
    for tensor in subgraph.read("inputs", ()):
        for unit in tensor.read("process_units", ()):
            options = unit.read("normalization")
            if options is not None:
                mean = options.read("mean", ())
                std = options.read("std", ())
                fits = len(mean) == len(std) and len(mean) in (1, 3)
                is_finite = np.isfinite(mean).all() and np.isfinite(std).all()
                return (mean, std) if fits and is_finite and (std > 0).all() else None
    return None


class _Reader:
    """A table in a buffer. Its fields are read on demand: a corrupt file may repeat tables."""

    def __init__(self, table, name):
        self._table = table
        self._fields = SCHEMA[name]

    def read(self, name, default=None):
        """A field: text, an array of floats, or Readers of tables; the default if it is absent."""
        field = self._fields[name]
        table = self._table
        if field.member is not None and self._read_byte(field.slot - 1) != field.member:
            return default
        offset = table.Offset(4 + 2 * field.slot)
        if not offset:
            return default
        if field.kind.startswith("["):
            return self._read_vector(offset, field.kind[1:-1])
        if field.kind == "text":
            return table.String(table.Pos + offset).decode()
        return _Reader(Table(table.Bytes, table.Indirect(table.Pos + offset)), field.kind)

    def _read_byte(self, slot):
        offset = self._table.Offset(4 + 2 * slot)
        return self._table.Get(number_types.Uint8Flags, self._table.Pos + offset) if offset else 0

    def _read_vector(self, offset, kind):
        data = self._table.Bytes
        start = self._table.Vector(offset)
        length = self._table.VectorLen(offset)
        if kind == "float":
            return np.frombuffer(data, "<f4", length, start)
        positions = [self._table.Indirect(start + 4 * index) for index in range(length)]
        return [_Reader(Table(data, position), kind) for position in positions]
