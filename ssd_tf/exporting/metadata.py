"""TFLite metadata, which MediaPipe Tasks and the Task Library need to open a detector.

Written with the `flatbuffers` library by the published schema, metadata_schema.fbs: the writers of
MediaPipe and tflite-support cannot be installed beside TensorFlow 2.21.
"""

import io
import zipfile

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.exporting.joining import pack
from ssd_tf.inference import tflite_metadata as fields
from ssd_tf.weights.label_files import format_names

LABEL_FILE = "labels.txt"
# Members of the schema's unions and enums.
_IMAGE_PROPERTIES = 2
_BOX_PROPERTIES = 3
_FEATURE_PROPERTIES = 1
_SCORE_THRESHOLDING = 3
_RGB = 1
_BOUNDARIES = 1
_RATIO = 0
_VALUE_LABELS = 3
# Of our boxes ymin, xmin, ymax, xmax, where clients find left, top, right, bottom.
_BOX_ORDER = (1, 0, 3, 2)
_OUTPUT_NAMES = ("location", "category", "score", "number of detections")
_OUTPUT_GROUP = "detection_result"
_VERSION = "1.0.0"
# The places of fields in the schema's tables that no reader of ours needs.
_CONTENT = 3
_ASSOCIATED_FILES = 6
_OUTPUT_GROUPS = 8
_MIN_PARSER_VERSION = 7


def add_metadata(content: bytes, names, score_threshold) -> bytes:
    """The .tflite file with metadata, and with the class names as a file at its end.

    content: a file with the operator's four outputs in their order. The metadata say that the input
    is RGB in 0..255, normalised by the graph (mean 0, std 1), and that detections below
    score_threshold need not be shown.
    """
    with_metadata = _store(content, _build(names, score_threshold))
    return _append_file(with_metadata, names)


def add_raw_metadata(content: bytes, names, version) -> bytes:
    """The same for a raw file, of which the input alone is described.

    version: what tells whether a default_boxes.json belongs to the file.
    """
    return _append_file(_store(content, _build_raw(version)), names)


def _store(content, metadata):
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    buffer = schema.BufferT()
    buffer.data = list(metadata)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = fields.BUFFER_NAME
    entry.buffer = len(model.buffers) - 1
    kept = [item for item in model.metadata or [] if item.name != fields.BUFFER_NAME.encode()]
    model.metadata = [*kept, entry]
    return pack(model)


def _append_file(content, names):
    """A flatbuffer ends where its tables say, so a zip archive can follow."""
    stream = io.BytesIO()
    stream.write(content)
    stamp = zipfile.ZipInfo(LABEL_FILE, (1980, 1, 1, 0, 0, 0))  # equal runs give equal files
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(stamp, format_names(names))
    return stream.getvalue()


def _build(names, score_threshold):
    builder = flatbuffers.Builder(1024)
    subgraph = _table(
        builder,
        {
            fields.INPUTS: _vector(builder, [_image(builder)]),
            fields.OUTPUTS: _vector(builder, _outputs(builder, score_threshold)),
            _OUTPUT_GROUPS: _vector(builder, [_group(builder)]),
        },
    )
    return _finish(builder, subgraph, fields.DETECTOR_DESCRIPTION.format(len(names)))


def _build_raw(version):
    builder = flatbuffers.Builder(1024)
    outputs = [_tensor(builder, name, _feature(builder)) for name in ("offsets", "logits")]
    subgraph = _table(
        builder,
        {
            fields.INPUTS: _vector(builder, [_image(builder)]),
            fields.OUTPUTS: _vector(builder, outputs),
        },
    )
    texts = {fields.VERSION: builder.CreateString(version)}
    return _finish(builder, subgraph, fields.RAW_DESCRIPTION, texts)


def _finish(builder, subgraph, description, texts=None):
    root = _table(
        builder,
        {
            **(texts or {}),
            fields.TENSOR_NAME: builder.CreateString("ObjectDetector"),
            fields.DESCRIPTION: builder.CreateString(description),
            fields.SUBGRAPHS: _vector(builder, [subgraph]),
            _MIN_PARSER_VERSION: builder.CreateString(_VERSION),
        },
    )
    builder.Finish(root, fields.IDENTIFIER)
    return builder.Output()


def _image(builder):
    """TensorMetadata of the input."""
    properties = _table(builder, {}, {0: _RGB})
    content = _content(builder, _IMAGE_PROPERTIES, properties)
    normalisation = _table(
        builder,
        {fields.MEAN: _floats(builder, [0.0]), fields.STD: _floats(builder, [1.0])},
    )
    unit = _table(
        builder,
        {fields.OPTIONS: normalisation},
        {fields.OPTIONS_TYPE: fields.NORMALIZATION_OPTIONS},
    )
    units = _vector(builder, [unit])
    name = builder.CreateString("image")
    description = builder.CreateString("RGB image, values from 0 to 255")
    return _table(
        builder,
        {
            fields.TENSOR_NAME: name,
            fields.DESCRIPTION: description,
            _CONTENT: content,
            fields.PROCESS_UNITS: units,
        },
    )


def _outputs(builder, score_threshold):
    """TensorMetadata of boxes, classes, scores and count."""
    index = _indices(builder, _BOX_ORDER)
    box = _table(builder, {0: index}, {1: _BOUNDARIES, 2: _RATIO})
    yield _tensor(builder, _OUTPUT_NAMES[0], _content(builder, _BOX_PROPERTIES, box))
    label_file = _table(builder, {0: builder.CreateString(LABEL_FILE)}, {2: _VALUE_LABELS})
    files = _vector(builder, [label_file])
    yield _tensor(builder, _OUTPUT_NAMES[1], _feature(builder), {_ASSOCIATED_FILES: files})
    builder.StartObject(1)
    builder.PrependFloat32Slot(0, score_threshold, 0.0)
    thresholding = builder.EndObject()
    unit = _table(
        builder, {fields.OPTIONS: thresholding}, {fields.OPTIONS_TYPE: _SCORE_THRESHOLDING}
    )
    units = _vector(builder, [unit])
    yield _tensor(builder, _OUTPUT_NAMES[2], _feature(builder), {fields.PROCESS_UNITS: units})
    yield _tensor(builder, _OUTPUT_NAMES[3], _feature(builder))


def _tensor(builder, name, content, more=None):
    name = builder.CreateString(name)
    return _table(builder, {fields.TENSOR_NAME: name, _CONTENT: content, **(more or {})})


def _feature(builder):
    return _content(builder, _FEATURE_PROPERTIES, _table(builder, {}))


def _content(builder, kind, properties):
    return _table(builder, {1: properties}, {0: kind})


def _group(builder):
    """The four outputs belong together, as MediaPipe's own writer says it."""
    tensors = [builder.CreateString(name) for name in _OUTPUT_NAMES]
    return _table(builder, {0: builder.CreateString(_OUTPUT_GROUP), 1: _vector(builder, tensors)})


def _table(builder, offsets, numbers=None):
    """A table with fields that refer to others, and fields of one byte."""
    numbers = numbers or {}
    builder.StartObject(max([*offsets, *numbers], default=-1) + 1)
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, number in numbers.items():
        builder.PrependUint8Slot(field, number, 0)
    return builder.EndObject()


def _vector(builder, offsets):
    offsets = list(offsets)
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder, values):
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return builder.EndVector()


def _indices(builder, values):
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependUint32(value)
    return builder.EndVector()
