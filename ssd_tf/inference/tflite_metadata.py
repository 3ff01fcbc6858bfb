"""TFLite metadata: the part of it that a detector's clients read.

The schema is metadata_schema.fbs of the TFLite Support Library and of MediaPipe Tasks.
"""

import re
import typing

import numpy as np
from flatbuffers import encode, number_types
from flatbuffers.table import Table
from tensorflow.lite.python import schema_py_generated as schema

BUFFER_NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
NORMALIZATION_OPTIONS = 1
# The places of fields in the schema's tables.
SUBGRAPHS = 3
INPUTS = 2
OUTPUTS = 3
TENSOR_NAME = 0
DESCRIPTION = 1
VERSION = 2
PROCESS_UNITS = 4
OPTIONS_TYPE = 0
OPTIONS = 1
MEAN = 0
STD = 1


# How our exports describe themselves.
DETECTOR_DESCRIPTION = "SSD detector of {} classes"
RAW_DESCRIPTION = "Predictions of an SSD detector, to be decoded by its client"


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
        pattern = DETECTOR_DESCRIPTION.format("([0-9]{1,9})")
        match = re.fullmatch(pattern, self.description)
        return match and int(match[1])


def read_metadata(content: bytes) -> Metadata:
    """A .tflite file's content -> its Metadata, empty if the file has none or they are corrupt."""
    buffer = find_buffer(content)
    if buffer is None or buffer[4:8] != IDENTIFIER:
        return Metadata()
    try:
        return _read(buffer)
    except Exception:  # reading a corrupt flatbuffer raises almost anything
        return Metadata()


def _read(buffer):
    root = Table(buffer, encode.Get(number_types.UOffsetTFlags.packer_type, buffer, 0))
    described = (_text(root, DESCRIPTION), _text(root, VERSION))
    for subgraph in _tables(root, SUBGRAPHS):
        inputs = _tables(subgraph, INPUTS)
        outputs = _tables(subgraph, OUTPUTS)
        names = tuple(_text(tensor, TENSOR_NAME) for tensor in outputs)
        return Metadata(_normalisation(inputs), names, *described)
    return Metadata(None, (), *described)


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


def _normalisation(inputs):
    for unit in (unit for tensor in inputs for unit in _tables(tensor, PROCESS_UNITS)):
        place = _place(unit, OPTIONS_TYPE)
        kind = unit.Get(number_types.Uint8Flags, place) if place else 0
        if kind == NORMALIZATION_OPTIONS:
            options = Table(unit.Bytes, unit.Indirect(_place(unit, OPTIONS)))
            return _check_normalisation(_floats(options, MEAN), _floats(options, STD))
    return None


def _check_normalisation(mean, std):
    """Both, or None if no image can be normalised by them."""
    fits = len(mean) == len(std) and len(mean) in (1, 3)
    is_usable = fits and np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
    return (mean, std) if is_usable else None


def _place(table, field):
    """Where a field is, or 0 if it is absent."""
    offset = table.Offset(4 + 2 * field)
    return offset and table.Pos + offset


def _vector(table, field):
    """(start, length) of a vector."""
    place = _place(table, field)
    if not place:
        return 0, 0
    offset = place - table.Pos
    return table.Vector(offset), table.VectorLen(offset)


def _tables(table, field):
    start, length = _vector(table, field)
    return [Table(table.Bytes, table.Indirect(start + 4 * index)) for index in range(length)]


def _floats(table, field):
    start, length = _vector(table, field)
    return np.frombuffer(table.Bytes, "<f4", length, start)


def _text(table, field):
    place = _place(table, field)
    return table.String(place).decode() if place else ""
